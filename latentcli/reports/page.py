"""Builds one HTML document that needs no other file, from a title, a body and data.

The style sheets and scripts of latentcli/reports/assets stand inside the document, so it opens
from a disk with no network; its content security policy lets it load nothing but pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from json import dumps
from pathlib import Path
from typing import Any

POLICY = (
    "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""Pictures beside the page and what stands inside it; nothing from anywhere else."""

GENERATOR = '<meta name="generator" content="latentcli">'
"""What a page is known by as one of ours."""
HEAD = 4096
"""Bytes in which it stands."""

SAFE_IN_SCRIPT = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
"""No `</script>` ends the data early: in JSON these stand in strings only, where escapes do."""

Data = Iterable[tuple[str, Iterable[str]]]


@dataclass(frozen=True, slots=True)
class TextCell:
    """A cell of a table: its words, whether it is a figure, and where it links to."""

    text: str
    figure: bool = True
    link: str | None = None


def html_page(
    title: str,
    body: str | Iterable[str],
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    data: Data = (),
) -> Iterator[str]:
    """The pieces of a complete HTML document.

    `title` is plain text. `body` is HTML: what came from a user goes through `html.escape`
    first. `styles` and `scripts` name files of latentcli/reports/assets: page.css and theme.js
    (the button for light and dark, put into `<header class="masthead">`) come without being
    named, and the scripts share one module, in their order. `data` is pairs of an element's id
    and the pieces of a JSON text, which is escaped here.
    """
    yield f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{GENERATOR}\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
    yield f"<title>{escape(title)}</title>\n"
    for name in ("page.css", *styles):
        yield f"<style>\n{asset(name)}</style>\n"
    yield f"<script>\n{asset('theme.js')}</script>\n</head>\n<body>\n"
    yield from (body,) if isinstance(body, str) else body
    for name, pieces in data:
        yield f'<script type="application/json" id="{escape(name)}">'
        yield from (piece.translate(SAFE_IN_SCRIPT) for piece in pieces)
        yield "</script>\n"
    if scripts:
        yield '<script type="module">\n'
        yield from map(asset, scripts)
        yield "</script>\n"
    yield "</body>\n</html>\n"


def asset(name: str) -> str:
    """The text of a file of latentcli/reports/assets."""
    return (files("latentcli.reports") / "assets" / name).read_text(encoding="utf-8")


def json_list(items: Iterable[Any]) -> Iterator[str]:
    """The pieces of a JSON list with one item a line; ASCII, so any file name can be written."""
    before = "[\n"
    for item in items:
        yield before + dumps(item, separators=(",", ":"), allow_nan=False)
        before = ",\n"
    yield "[]" if before == "[\n" else "\n]"


def write_page(path: Path, pieces: Iterable[str]) -> Path:
    """Write the pieces as they come and rename: a reader finds the old page or the new one whole.

    Characters that UTF-8 cannot write (bytes of a file name that are no text) become `?`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as out:
            out.writelines(pieces)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def is_page(path: Path) -> bool:
    """Whether a file is a page that this module wrote."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(HEAD)


def section(name: str, heading: str, *parts: str) -> str:
    """A section with its heading; `name` is its id, `heading` plain text, `parts` HTML."""
    title = f'<h2 id="{escape(name)}">{escape(heading)}</h2>'
    return f'<section aria-labelledby="{escape(name)}">\n{title}\n{"".join(parts)}</section>\n'


def folded(summary: str, content: str) -> str:
    """HTML that shows when its `summary`, plain text, is clicked."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{content}</details>\n"


def facts_list(facts: Mapping[str, object]) -> str:
    """A list of names and values, all plain text; a fact that is None is left out."""
    pairs = (
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>\n"
        for name, value in facts.items()
        if value is not None
    )
    return f'<dl class="facts">\n{"".join(pairs)}</dl>\n'


def figures_table(
    headers: Sequence[str], rows: Iterable[Sequence[str | TextCell]], caption: str = ""
) -> str:
    """A table in a box that scrolls by itself on a narrow screen; all plain text.

    The first cell of a row is its heading; the others are figures, aligned right, where they are
    strings, and as they say where they are a `TextCell`. Columns follow their first row.
    """
    body = [tuple(_cell(value, i > 0) for i, value in enumerate(row)) for row in rows]
    figures = [cell.figure for cell in body[0]] if body else [False] * len(headers)
    shown = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    head = "".join(
        f'<th scope="col"{_kind(figure)}>{escape(text)}</th>'
        for text, figure in zip(headers, figures, strict=True)
    )
    lines = "".join(f"<tr>{''.join(map(_cell_html, row, range(len(row))))}</tr>\n" for row in body)
    label = escape(caption or headers[0], quote=True)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">\n'
        f'<table class="figures">\n{shown}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{lines}</tbody>\n</table>\n</div>\n"
    )


def chart_figure(svg: str, caption: str) -> str:
    """A chart, given as an inline SVG, and its caption in plain text."""
    text = f"<figcaption>{escape(caption)}</figcaption>"
    return f'<figure class="chart">\n{svg}\n{text}\n</figure>\n'


def _cell(value: str | TextCell, figure: bool) -> TextCell:
    return value if isinstance(value, TextCell) else TextCell(value, figure)


def _kind(figure: bool) -> str:
    return "" if figure else ' class="text"'


def _cell_html(cell: TextCell, column: int) -> str:
    text = escape(cell.text)
    inner = f'<a href="{escape(cell.link)}">{text}</a>' if cell.link else text
    if column == 0:
        return f'<th scope="row"{_kind(cell.figure)}>{inner}</th>'
    return f"<td{_kind(cell.figure)}>{inner}</td>"
