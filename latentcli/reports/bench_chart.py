"""Draws a bench document's images a second as a bar chart, PNG or SVG."""

from __future__ import annotations

import io
import tempfile
import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.core.mark import MADE_BY
from latentcli.reports.bench_tables import short_name, short_names, times
from latentcli.reports.tables import Values

SUFFIXES = (".png", ".svg")

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Okabe and Ito's colours, which all kinds of colour vision tell apart."""
BASELINE = "#8C8C8C"
INK, FAINT = "#222222", "#666666"

WIDTH, ROW, GAP = 6.4, 0.3, 0.55
"""Inches: a column of panels, a bar with its space, what a panel needs besides."""
ROOM = 1.7
"""Width of a panel over its longest bar: labels stand to the right of the bars."""


def check_chart(path: str) -> None:
    """UsageError where a chart cannot be drawn: another suffix, no place for it, no matplotlib.

    It is for before the measuring, which may take hours.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--chart is {path!r}; its name must end in {' or '.join(SUFFIXES)}.")
    try:
        if not target.parent.is_dir():
            raise UsageError(f"--chart is {path!r}, but there is no folder {target.parent}.")
        if target.is_dir():
            raise UsageError(f"--chart is {path!r}, which is a folder; name a file.")
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise UsageError(
            f"--chart is {path!r}, but nothing can be written there: {error.strerror}."
        ) from error
    if find_spec("matplotlib") is None:
        raise UsageError(
            "--chart needs matplotlib, which is not installed. Install the extra: pip install"
            ' "latentcli[charts]", or pip install matplotlib.'
        )


def draw_chart(document: Values, kind: str) -> bytes:
    """The chart as a file of `kind`, png or svg: a column for each op, a panel for each case."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ops = list(dict.fromkeys(row["op"] for row in document["rows"]))
    columns = [panels(document["rows"], op) for op in ops]
    names = list(dict.fromkeys(row["model"] for row in document["rows"]))
    colours = colours_of(names, document.get("baseline"))
    style: Any = {"font.size": 9, "svg.hashsalt": "latentcli", "svg.fonttype": "none"}
    with matplotlib.rc_context(style):
        tall = max(sum(GAP + ROW * len(rows) for rows in column) for column in columns)
        wide = WIDTH * len(ops)
        lines = textwrap.wrap(caption(document), int(15 * wide))
        head, foot = 0.6, 0.3 + 0.19 * len(lines)
        height = tall + head + foot
        room = ConstrainedLayoutEngine(
            rect=(0.08 / wide, foot / height, 1 - 0.16 / wide, tall / height), hspace=0.06
        )
        figure = Figure(figsize=(wide, height), layout=room)
        FigureCanvasAgg(figure)
        figure.text(0.12 / wide, 1 - 0.32 / height, title(document), size=12.5, weight="bold")
        figure.text(0.12 / wide, 0.12 / height, "\n".join(lines), size=8, color=FAINT)
        grids = figure.subfigures(1, len(ops), squeeze=False)[0]
        for part, column in zip(grids, columns, strict=True):
            heights = [GAP + ROW * len(rows) for rows in column]
            axes = part.subplots(len(column), 1, squeeze=False, height_ratios=heights)[:, 0]
            for axis, rows in zip(axes, column, strict=True):
                draw_panel(axis, rows, colours, short_names(names))
        target = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": MADE_BY}
        figure.savefig(target, format=kind, dpi=160, facecolor="white", metadata=metadata)
    return target.getvalue()


def panels(rows: Sequence[Values], op: str) -> list[list[Values]]:
    """The rows of an op, a list for each resolution and batch, in the order of the document."""
    cases: dict[tuple[str, int], list[Values]] = {}
    for row in rows:
        if row["op"] == op:
            cases.setdefault((row["resolution"], row["batch"]), []).append(row)
    return list(cases.values())


def colours_of(names: Sequence[str], baseline: str | None) -> dict[str, str]:
    """A colour for each model; the baseline is grey."""
    others = [name for name in names if name != baseline]
    found = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(others)}
    return {**found, **({baseline: BASELINE} if baseline in names and baseline else {})}


def draw_panel(axis: Any, rows: Sequence[Values], colours: Values, names: Values) -> None:
    """A bar for each model, its quartiles, and its figures in words beside it."""
    rates = [rate(row, "ms_per_batch") for row in rows]
    low = [max(own - rate(row, "ms_p75"), 0) for own, row in zip(rates, rows, strict=True)]
    high = [max(rate(row, "ms_p25") - own, 0) for own, row in zip(rates, rows, strict=True)]
    places = range(len(rows))
    axis.barh(places, rates, height=0.72, color=[colours[row["model"]] for row in rows])
    style = {"fmt": "none", "ecolor": INK, "elinewidth": 1, "capsize": 3}
    axis.errorbar(rates, places, xerr=[low, high], **style)
    most = max(own + up for own, up in zip(rates, high, strict=True))
    for place, row, own, up in zip(places, rows, rates, high, strict=True):
        axis.text(own + up + 0.015 * most, place, label(row), va="center", color=INK, size=8.5)
    axis.set_yticks(places, [names[row["model"]] for row in rows])
    axis.invert_yaxis()
    axis.set_xlim(0, ROOM * most)
    # Each bar has its figures beside it, so an axis of figures would say nothing more.
    axis.set_xticks([])
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.spines["left"].set_color("#BBBBBB")
    case = "{op} {resolution}, batch {batch}".format_map(rows[0])
    axis.set_title(case, loc="left", size=9.5, weight="bold")


def rate(row: Values, time: str) -> float:
    """Images a second at one of a row's times, in ms."""
    return 1000 * float(row["batch"]) / float(row[time])


def label(row: Values) -> str:
    """A row's rate, time and speedup in words."""
    speedup = "" if row["speedup"] is None else f", {times(row['speedup'])}"
    return f"{digits(row['images_per_second'])} images/s, {digits(row['ms_per_batch'])} ms{speedup}"


def digits(value: float) -> str:
    """1,234 or 12.3 or 0.123: three digits that mean something."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"


def title(document: Values) -> str:
    """One line above the chart."""
    against = document.get("baseline")
    over = f", and speedup over {short_name(document, against)}" if against else ""
    return f"Images a second{over}"


def caption(document: Values) -> str:
    """What the figures depend on, and what the lines at the bars' ends are."""
    cpu = document["device"] == "cpu" and document.get("cpu")
    number = document["threads"]
    parts = [
        f"{cpu}, {number} thread{'' if number == 1 else 's'}" if cpu else document["device"],
        document["dtype"],
        f"torch {document['torch']}",
        "torch.compile" if document["compiled"] else "eager",
        *(["random weights"] if document["random_weights"] else []),
    ]
    table = document.get("preset_table")
    if table and table["batch"] is not None:
        parts.append(f"batch size {table['batch']} instead of the published table's")
    return (
        f"{', '.join(parts)}. Medians of up to {document['repeats']} calls, the models in turns;"
        " lines are the quartiles. Made by latentcli bench."
    )
