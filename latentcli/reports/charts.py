"""Draws histograms and bars as inline SVG, readable on a phone and in both themes.

The text is XML and HTML at once: every label is escaped. Equal figures give equal text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from latentcli.reports import chart_svg as s
from latentcli.reports.chart_planes import PLOT, bucket_map, channel_plot

__all__ = ["bars", "binned", "bucket_map", "channel_plot"]

ROW = 38.0
"""Height of a bar and its label."""


def binned(
    series: Mapping[str, Sequence[float]],
    low: float,
    high: float,
    *,
    title: str,
    unit: str,
    note: str = "",
    noun: str = "values",
) -> str:
    """A histogram of values that are counted already: each series its counts in equal bins.

    Series are outlines over each other. Bars count values where all series have equally many, and
    are percent otherwise.

    The bins of every series go from `low` to `high`. `note` stands below and says what is not in
    them; `noun` is what is counted. ValueError where low is not below high.
    """
    if not low < high:
        raise ValueError(f"the bins go from {low} to {high}")
    totals = {name: math.fsum(counts) for name, counts in series.items()}
    filled = {name for name, total in totals.items() if total > 0}
    share = len({totals[name] for name in filled}) > 1
    heights = {
        name: [100 * c / totals[name] if share and totals[name] else float(c) for c in counts]
        for name, counts in series.items()
    }
    legend, top = s.legend([f"{name} ({s.compact(totals[name])})" for name in series], 0.0)
    top += 28
    highest = max((h for values in heights.values() for h in values), default=0)
    upright = s.scale([0, highest or 1], top + PLOT, top, ticks=4, whole=not share)
    left = s.margin(upright)
    along = _axis(low, high, left)
    what = f"% of {noun}" if share else noun
    body = legend + s.words(0, top - 13, what) + s.grid_y(upright, left, s.WIDTH - 8)
    for index, counts in enumerate(heights.values()):
        body += _outline(counts, low, high, along, upright, index)
    body += s.grid_x(along, top, top + PLOT, unit)
    bottom = top + PLOT + 44
    if note or not filled:
        said = note if filled else f"There are no values to show. {note}".strip()
        body += s.words(left, bottom + 10, said, most=s.letters(s.WIDTH - left))
        bottom += 18
    listed = "; ".join(_series_text(name, counts, low, high) for name, counts in series.items())
    description = f"{listed or 'No series'}. {unit}. {note}".strip()
    return s.svg(body, bottom, title=title, description=description)


def _axis(low: float, high: float, left: float) -> s.Scale:
    """An axis that ends where the bins do, and not at the ticks beyond."""
    wide = s.scale([low, high], left, s.WIDTH - 8, ticks=6)
    slack = 1e-9 * (high - low)
    inside = tuple(t for t in wide.ticks if low - slack <= t <= high + slack)
    return s.Scale(low, high, wide.start, wide.end, inside or (low, high), wide.step)


def _outline(
    counts: Sequence[float], low: float, high: float, along: s.Scale, upright: s.Scale, index: int
) -> str:
    if not any(counts):
        return ""
    ground = s.number(upright.start)
    path = [f"M{s.number(along.at(low))},{ground}"]
    for place, count in enumerate(counts, 1):
        right = low + (high - low) * place / len(counts)
        path.append(f"V{s.number(upright.at(count))}H{s.number(along.at(right))}")
    path.append(f"V{ground}")
    colour = s.colour(index)
    return (
        f'<path d="{"".join(path)}" style="stroke:{colour};fill:{colour}" fill-opacity="0.14"'
        f' stroke-width="1.6"{s.dashes(index)}/>'
    )


def _series_text(name: str, counts: Sequence[float], low: float, high: float) -> str:
    """A series in words: its mode, for those who cannot see the chart."""
    if not any(counts):
        return f"{name}: no values"
    best = max(range(len(counts)), key=counts.__getitem__)
    step = (high - low) / len(counts)
    ends = f"{s.figure(low + best * step)} and {s.figure(low + (best + 1) * step)}"
    return f"{name}: {s.figure(math.fsum(counts), 6)} values, most of them between {ends}"


def bars(
    items: Sequence[tuple[str, float]], *, title: str, unit: str, whole: float | None = None
) -> str:
    """Horizontal bars from zero, one (label, value) a row, their lengths proportional to values.

    Negative values go to the left. A value that is no finite number has no bar, and says so.
    `whole` is what values are parts of: it would fill the width, and a line ends there.
    """
    usable = [value for _, value in items if s.is_usable(value)]
    low, high = min([0.0, *usable]), max([0.0, *usable, whole or 0.0])
    if low == high:
        high = 1.0
    # The value stands behind the bar, and needs room there.
    right = s.WIDTH - 8 - 8.0 * max([len(s.figure(v)) for _, v in items], default=1)
    axis = s.Scale(low, high, 1, right, (), 1)
    body, top = s.words(0, 12, unit), 20.0
    for label, value in items:
        body += s.words(0, top + 12, label, most=s.letters(s.WIDTH))
        end = 1.0
        if s.is_usable(value):
            left, end = sorted((axis.at(0), axis.at(value)))
            tip = f"<title>{s.safe(label)}: {s.figure(value)} {s.safe(unit)}</title>"
            body += (
                f'<rect x="{left:.4f}" y="{s.number(top + 17)}" width="{end - left:.4f}"'
                f' height="12" rx="2" style="fill:{s.colour(0)}">{tip}</rect>'
            )
        body += s.words(end + 5, top + 27, s.figure(value))
        top += ROW
    if whole:
        body += s.line(axis.at(whole), 20, axis.at(whole), top, ' stroke-opacity="0.3"')
    if low < 0:
        body += s.line(axis.at(0), 20, axis.at(0), top, ' stroke-opacity="0.6"')
    listed = "; ".join(f"{label}: {s.figure(value)}" for label, value in items[:12])
    more = f"; and {len(items) - 12} more" if len(items) > 12 else ""
    description = f"{listed or 'Nothing to show'}{more}. {unit}"
    return s.svg(body, top + 4, title=title, description=description)
