"""Writes the page that shows all pictures of a roundtrip.

The page stands beside the pictures: `files/<NNN>/<NNNNNN>.<what>`, where NNNNNN is a picture's
index and NNN its thousands. It holds its data itself and reads those files only; or it holds the
files too, and reads none.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from json import dumps
from pathlib import Path
from typing import Any

from latentcli.reports.page import asset, html_page, json_list, write_page
from latentcli.reports.roundtrip_tables import pictures_word
from latentcli.reports.tables import Values
from latentcli.reports.viewer_summary import figures, of_pictures, opening, title_of

PAGE = "index.html"

SCRIPTS = tuple(
    f"viewer_{name}.js"
    for name in (
        *("data", "dom", "chart", "charts", "grid"),
        *("zoom", "gestures", "panes", "told", "compare", "keys", "main"),
    )
)
"""In the order in which they stand in the page: each uses only what came before when it starts."""


MIME = {"webp": "image/webp", "png": "image/png", "jpg": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Embedded:
    """The files that a page holds itself."""

    files: Callable[[], Iterator[tuple[str, bytes]]]
    """Their names, such as 000012.thumb.webp, and their bytes."""
    whole: frozenset[int]
    """Indices of the pictures that have all their files; others have the thumbnail."""
    small: int
    """Number of those others."""


def write_viewer(
    page: Path, document: Values, rows: Iterable[Values], inside: Embedded | None = None
) -> Path:
    """Write the page, and give its path; without `inside` its pictures stand beside it.

    `document` is what `roundtrip --json` prints. Each row has `index`, `key`, `source`, `width`,
    `height`, `figures` (one mapping of measure to value per model; None: identical) and `pca`
    (per model, whether there are colours of its latents). The rows are read once and written as
    they come, so any number of them needs no memory. The old page stays until the new one is
    whole. OSError where it cannot be written.
    """
    measures = of_pictures(document)
    pieces = html_page(
        title_of(document),
        body_of(document),
        styles=("viewer.css", "viewer_compare.css"),
        scripts=SCRIPTS,
        data=chain(
            (("about", [dumps(about(document, measures))]),),
            (("rows", json_list(packed(row, measures, inside) for row in rows)),),
            held(inside) if inside else (),
        ),
    )
    return write_page(page, pieces)


def held(inside: Embedded) -> Iterator[tuple[str, list[str]]]:
    """Each file as data of the page: its id and its address as JSON."""
    for name, data in inside.files():
        kind = MIME[name.rpartition(".")[2]]
        yield f"file-{name}", [f'"data:{kind};base64,{b64encode(data).decode()}"']


def body_of(document: Values) -> Iterator[str]:
    """The masthead, what counts, the frame that scripts fill, and tables that need no script."""
    yield '<header class="masthead"><p>latentcli roundtrip</p></header>\n<main>\n'
    yield from opening(document)
    yield '<noscript><section><p class="note">The pictures need JavaScript; the tables do not.'
    yield "</p></section></noscript>\n"
    yield asset("viewer_shell.html")
    yield from figures(document)
    yield "</main>\n"


def about(document: Values, measures: Sequence[Values]) -> dict[str, Any]:
    """What the scripts must know besides the rows."""
    names = [model["model"] for model in document["models"]]
    baseline = document.get("baseline")
    shown = ("name", "label", "unit", "digits", "higher_is_better")
    return {
        "models": names,
        "baseline": names.index(baseline) if baseline in names else None,
        "measures": [{name: measure.get(name) for name in shown} for measure in measures],
        "gain": document["settings"]["difference_gain"],
        "pictures": pictures_word(document),
        "explained": [model.get("pca_explained") for model in document["models"]],
    }


def packed(row: Values, measures: Sequence[Values], inside: Embedded | None = None) -> list[Any]:
    """A row as a list without names, which is most of a large page's size.

    A figure is a number, None where the pictures are identical and the measure has no upper end,
    or False where it was not measured.
    """
    fixed = (row[name] for name in ("index", "key", "source", "width", "height"))
    values = [[figure(each, measure) for measure in measures] for each in row["figures"]]
    whole = inside is None or row["index"] in inside.whole
    return [*fixed, values, [int(has) for has in row["pca"]], int(whole)]


def figure(figures: Values, measure: Values) -> float | bool | None:
    """One figure of `packed`."""
    unbounded = bool(measure["higher_is_better"])
    value = figures.get(measure["name"], math.nan)
    if value is None or value == math.inf:
        return None if unbounded else False
    return round(float(value), int(measure["digits"]) + 3) if math.isfinite(value) else False
