"""Builds the HTML page of `bench --report`: bars, tables, and what they depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from latentcli.reports.bench_tables import (
    SHARE_CHOICES,
    bench_facts,
    choices,
    heading,
    short_name,
    short_names,
    software_text,
)
from latentcli.reports.charts import bars
from latentcli.reports.page import (
    TextCell,
    chart_figure,
    facts_list,
    figures_table,
    folded,
    html_page,
    section,
)
from latentcli.reports.tables import Column, Values

OPEN_CASES = 4
"""Sizes and batches whose bars stand in the open; those of others are folded."""
DIGITS = 4


def bench_page(document: Values) -> Iterator[str]:
    """The pieces of the page; `document` is what `bench --json` prints."""
    return html_page(title(document), body(document), styles=("bench_page.css",))


def title(document: Values) -> str:
    """Speed of a and b against c."""
    base = document.get("baseline")
    names = dict.fromkeys(row["model"] for row in document["rows"])
    shown = [short_name(document, name) for name in names if name != base or len(names) == 1]
    listed = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    against = f" against {short_name(document, base)}" if base and len(names) > 1 else ""
    return f"Speed of {listed}{against}"


def body(document: Values) -> Iterator[str]:
    """The masthead, a section for each op, and how it was measured."""
    yield '<header class="masthead"><p>latentcli bench</p></header>\n<main>\n'
    place = document["cpu"] if document["device"] == "cpu" else document["device"]
    lead = f"{place}, {software_text(document)}."
    yield f'<header>\n<h1>{escape(title(document))}</h1>\n<p class="lead">{escape(lead)}</p>\n'
    yield "</header>\n"
    names = short_names(row["model"] for row in document["rows"])
    rows = [{**row, "model": names[row["model"]]} for row in document["rows"]]
    for op in dict.fromkeys(row["op"] for row in rows):
        yield op_section(document, op, [row for row in rows if row["op"] == op])
    facts = {name: value or None for name, value in bench_facts(document).items()}
    yield section("how", "How it was measured", facts_list(facts))
    yield "</main>\n"


def op_section(document: Values, op: str, rows: Sequence[Values]) -> str:
    """The bars and the table of an op and, where the machine was measured, the shares of it."""
    versus = any(row["speedup"] is not None for row in rows)
    cut = any(row.get("repeats") not in (None, document.get("repeats")) for row in rows)
    base = document.get("baseline")
    charts = [case_chart(case, short_name(document, base) if base else "") for case in cases(rows)]
    if len(charts) > 1 and len({row["model"] for row in rows}) == 1:
        charts = [one_model_chart(rows)]
    shown = f'<div class="charts">\n{"".join(charts[:OPEN_CASES])}</div>\n'
    if charts[OPEN_CASES:]:
        rest = f'<div class="charts">\n{"".join(charts[OPEN_CASES:])}</div>\n'
        shown += folded(f"Bars of {len(charts) - OPEN_CASES} more sizes and batches", rest)
    table = column_table(choices(op, versus, cut)[0], rows, "Medians and quartiles")
    shares = share_part(rows) if document.get("ceilings") else ""
    return section(op, heading(document, op), shown, table, shares)


def cases(rows: Sequence[Values]) -> list[list[Values]]:
    """The rows of each size and batch, in their order."""
    found: dict[tuple[str, int], list[Values]] = {}
    for row in rows:
        found.setdefault((row["resolution"], row["batch"]), []).append(row)
    return list(found.values())


def case_name(row: Values) -> str:
    """256x256, batch 8."""
    return f"{row['resolution']}, batch {row['batch']}"


def case_chart(rows: Sequence[Values], base: str) -> str:
    """The times of one size and batch as bars and, against a baseline, the speedups."""
    name = case_name(rows[0])
    times = bars(
        [(row["model"], rounded(row["ms_per_batch"])) for row in rows],
        title=f"Time of a batch, {name}",
        unit="ms, lower is better",
    )
    charts = chart_figure(times, f"Time of a batch, {name}.")
    speedups = [(row["model"], rounded(row["speedup"])) for row in rows if row["speedup"]]
    if speedups:
        text = f"How many times as fast as {base}, {name}"
        charts += chart_figure(bars(speedups, title=text, unit="times as fast"), f"{text}.")
    return charts


def one_model_chart(rows: Sequence[Values]) -> str:
    """The sizes and batches of the only model as bars of one chart, by the time of an image."""
    text = f"Time of an image with {rows[0]['model']}"
    times = bars(
        [(case_name(row), rounded(row["ms_per_batch"] / row["batch"])) for row in rows],
        title=text,
        unit="ms, lower is better",
    )
    return chart_figure(times, f"{text}, by size and batch.")


def share_part(rows: Sequence[Values]) -> str:
    """What part of the machine's own speed each model reaches, drawn and as a table."""
    of = {"matrix_share": "matrix products", "copy_share": "copies of memory"}
    drawn = (
        chart_figure(
            bars(
                [(f"{row['model']}, {case_name(row)}", rounded(100 * row[key])) for row in rows],
                title=f"Share of the machine's {what}",
                unit="% of it; the line is at 100%",
                whole=100.0,
            ),
            f"Share of the machine's highest speed in {what}.",
        )
        for key, what in of.items()
    )
    table = column_table(SHARE_CHOICES[0], rows, "Work, and its share of the machine's speed")
    charts = f'<div class="charts">\n{"".join(drawn)}</div>\n'
    return f"<h3>Share of the machine's speed</h3>\n{charts}{table}"


def column_table(columns: Sequence[Column], rows: Sequence[Values], caption: str) -> str:
    """The terminal's columns as an HTML table, the model first, without those that are empty."""
    ordered = sorted(columns, key=lambda column: column.header != "model")
    kept = [column for column in ordered if any(column.cell(row) for row in rows)]
    lines = ([TextCell(c.cell(row), c.figure) for c in kept] for row in rows)
    return figures_table([column.header for column in kept], lines, caption)


def rounded(value: float) -> float:
    """A value with the digits that mean something."""
    return float(f"{value:.{DIGITS}g}")
