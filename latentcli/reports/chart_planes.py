"""Draws points on a plane as inline SVG: figures of channels, or counts of sizes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from latentcli.reports import chart_svg as s

PLOT = 170.0
"""Height of a plot, without its axes."""
PLANE = 260.0
LARGEST_CIRCLE = 17.0
SMALLEST_CIRCLE = 3.0
MOST_CIRCLES = 1000
"""Sizes drawn, the most frequent ones."""


def channel_plot(
    measured: Sequence[float],
    *,
    title: str,
    unit: str,
    expected: Sequence[float] | None = None,
    band: tuple[Sequence[float], Sequence[float]] | None = None,
    marked: Collection[int] = (),
) -> str:
    """A point for each channel's figure, the line that is expected, and a band of what is usual.

    `expected` and both ends of `band` have one value a channel; `marked` channels stand out and
    are numbered. Figures that are not finite are left out and counted. ValueError where lengths
    differ.
    """
    others = [values for values in (expected, *(band or ())) if values is not None]
    if any(len(values) != len(measured) for values in others):
        raise ValueError(f"there are {len(measured)} channels, and other numbers of references")
    drawn = [(i, float(v)) for i, v in enumerate(measured) if s.is_usable(v)]
    levels = [v for values in others for v in values if s.is_usable(v)]
    legend, top = s.legend(["measured", "expected"] if expected is not None else [], 0.0)
    top += 28
    upright = s.scale([v for _, v in drawn] + levels, top + PLOT, top, ticks=5)
    left = s.margin(upright)
    along = s.scale([0, max(len(measured) - 1, 1)], left + 5, s.WIDTH - 12, ticks=6, whole=True)
    along = _channels(along, len(measured))
    body = legend + s.words(0, top - 13, unit) + s.grid_y(upright, left, s.WIDTH - 4)
    if band is not None:
        body += _band(band, along, upright)
    if expected is not None:
        body += _steps(expected, along, upright)
    radius = 3.0 if len(measured) <= 64 else 2.0 if len(measured) <= 256 else 1.5
    for channel, value in drawn:
        body += _point(channel, value, expected, along, upright, radius, channel in marked)
    body += s.grid_x(along, top, top + PLOT, "channel")
    bottom = top + PLOT + 44
    lost = len(measured) - len(drawn)
    note = (
        f"{lost:,} {'channel has' if lost == 1 else 'channels have'} no finite figure."
        if lost
        else ""
    )
    if note:
        body += s.words(left, bottom + 10, note)
        bottom += 18
    return s.svg(body, bottom, title=title, description=f"{_span(drawn, unit, marked)} {note}")


def _channels(along: s.Scale, count: int) -> s.Scale:
    """An axis that ends with the last channel."""
    last = max(count - 1, 1)
    ticks = tuple(t for t in along.ticks if t <= last)
    return s.Scale(0, last, along.start, along.end, ticks, along.step)


def _band(band: tuple[Sequence[float], Sequence[float]], along: s.Scale, upright: s.Scale) -> str:
    lower, upper = band
    there = [
        i for i, ends in enumerate(zip(lower, upper, strict=True)) if all(map(s.is_usable, ends))
    ]
    if not there:
        return ""
    over = [f"{_x(along, i)},{s.number(upright.at(upper[i]))}" for i in there]
    under = [f"{_x(along, i)},{s.number(upright.at(lower[i]))}" for i in reversed(there)]
    return f'<polygon points="{" ".join(over + under)}" fill-opacity="0.08"/>'


def _x(along: s.Scale, channel: int) -> str:
    return s.number(along.at(channel))


def _steps(expected: Sequence[float], along: s.Scale, upright: s.Scale) -> str:
    points = (
        f"{_x(along, i)},{s.number(upright.at(v))}"
        for i, v in enumerate(expected)
        if s.is_usable(v)
    )
    style = f'style="stroke:{s.colour(1)}" stroke-width="1.5"{s.dashes(1)}'
    return f'<polyline points="{" ".join(points)}" fill="none" {style}/>'


def _point(
    channel: int,
    value: float,
    expected: Sequence[float] | None,
    along: s.Scale,
    upright: s.Scale,
    radius: float,
    marked: bool,
) -> str:
    x, y = along.at(channel), upright.at(value)
    wanted = f", expected {s.figure(expected[channel])}" if expected is not None else ""
    tip = f"<title>channel {channel}: {s.figure(value)}{wanted}</title>"
    place = f'cx="{s.number(x)}" cy="{s.number(y)}"'
    if not marked:
        style = f'style="fill:{s.colour(0)}"'
        return f'<circle {place} r="{s.number(radius)}" {style}>{tip}</circle>'
    # A ring as well as a colour, for those who do not see the colour.
    style = f'style="fill:{s.colour(4)}" stroke="currentColor" stroke-width="1.2"'
    return f'<circle {place} r="4" {style}>{tip}</circle>'


def _span(drawn: Sequence[tuple[int, float]], unit: str, marked: Collection[int]) -> str:
    if not drawn:
        return f"{unit}: no channel has a figure."
    values = [value for _, value in drawn]
    text = (
        f"{unit} of {len(drawn)} channels, from {s.figure(min(values))} to {s.figure(max(values))}."
    )
    if marked:
        named = ", ".join(map(str, sorted(marked)[:20]))
        text += f" Channels that stand out: {named}{' and more' if len(marked) > 20 else ''}."
    return text


def bucket_map(sizes: Mapping[tuple[int, int], int], *, title: str, unit: str = "pixels") -> str:
    """A circle for each (width, height), its area as the number of things of that size.

    The broken line holds the squares. Beside it a page should show the sizes as a table.
    """
    found = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    drawn = [(w, h, n) for (w, h), n in found[:MOST_CIRCLES] if n > 0]
    top = 28.0
    upright = _padded([h for _, h, _ in drawn], top + PLANE, top)
    left = s.margin(upright)
    along = _padded([w for w, _, _ in drawn], left, s.WIDTH - 8)
    body = s.words(0, top - 13, f"height, {unit}") + s.grid_y(upright, left, s.WIDTH - 8)
    body += _squares(along, upright)
    most = max((n for *_, n in drawn), default=1)
    for width, height, count in drawn:
        radius = max(LARGEST_CIRCLE * math.sqrt(count / most), SMALLEST_CIRCLE)
        body += (
            f'<circle cx="{s.number(along.at(width))}" cy="{s.number(upright.at(height))}"'
            f' r="{s.number(radius)}" style="fill:{s.colour(0)};stroke:{s.colour(0)}"'
            f' fill-opacity="0.45"><title>{width} x {height}: {count:,}</title></circle>'
        )
    body += s.grid_x(along, top, top + PLANE, f"width, {unit}")
    listed = "; ".join(f"{w} x {h}: {n:,}" for w, h, n in drawn[:8])
    more = f"; and {len(found) - 8:,} more sizes" if len(found) > 8 else ""
    description = f"Width x height in {unit}, and how many: {listed or 'none'}{more}."
    return s.svg(body, top + PLANE + 44, title=title, description=description)


def _padded(values: Sequence[float], start: float, end: float) -> s.Scale:
    """An axis on which the largest circle fits at both ends."""
    low, high = (min(values), max(values)) if values else (0, 1)
    room = (high - low) / 8 or max(high / 4, 1)
    return s.scale([max(low - room, 0), high + room], start, end, ticks=5, whole=True)


def _squares(along: s.Scale, upright: s.Scale) -> str:
    low, high = max(along.low, upright.low), min(along.high, upright.high)
    if low >= high:
        return ""
    ends = (along.at(low), upright.at(low), along.at(high), upright.at(high))
    return s.line(*ends, ' stroke-opacity="0.35" stroke-dasharray="4 4"')
