"""Builds the parts that every chart is made of, as SVG text.

Charts are 400 units wide and their text is 12 units high, so that it can be read where a phone
shows the chart at about its own size. Colours are currentColor and the page's --series-0 to -5.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH = 400.0
TEXT = 12.0
LARGEST = 1e300
"""Values beyond are counted as not finite: their differences would not be."""
SERIES = 6
"""Colours that a page has; more series than that begin again."""

_DASHES = ("", "6 3", "2 2", "8 3 2 3", "4 4", "1 3")
_LETTER = 0.56 * TEXT
_NAMED = 40
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def safe(text: object) -> str:
    """A text for SVG or HTML, in elements and attributes; what XML cannot hold becomes U+FFFD."""
    return html.escape(_NO_XML.sub("\ufffd", str(text)))


def number(value: float) -> str:
    """A coordinate with two decimals at most."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def figure(value: float, digits: int = 4) -> str:
    """A value for people: whole ones with thousands' commas, others with so many digits."""
    if not math.isfinite(value):
        return "no number"
    if value == round(value) and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def compact(value: float) -> str:
    """A count in a few characters: 950, 12.3k, 4.8M, 1.2G."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{value / min(factor, 1e3 if letter == 'k' else factor):.3g}{letter}"
    return figure(value)


def cut(text: str, most: int) -> str:
    """A text of at most so many characters, with an ellipsis where something is missing."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "\u2026"


def letters(width: float) -> int:
    """Characters that fit into a width."""
    return max(int(width / _LETTER), 1)


def is_usable(value: float) -> bool:
    """Whether a value can be drawn."""
    return math.isfinite(value) and abs(value) <= LARGEST


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` on a line from `start` to `end`, with ticks at round numbers."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    step: float

    def at(self, value: float) -> float:
        """Where a value lies; one outside lies at the end."""
        part = (value - self.low) / (self.high - self.low)
        return self.start + min(max(part, 0.0), 1.0) * (self.end - self.start)

    def label(self, value: float) -> str:
        """A tick's text."""
        largest = max(abs(self.low), abs(self.high))
        if largest >= 1e6 or self.step < 1e-4:
            return f"{value:.4g}" if abs(value) > self.step / 2 else "0"
        exact = (n for n in range(6) if math.isclose(self.step * 10**n, round(self.step * 10**n)))
        places = next(exact, 6)
        text = f"{value:,.{places}f}"
        return text.lstrip("-") if float(text.replace(",", "")) == 0 else text


def scale(
    values: Iterable[float], start: float, end: float, *, ticks: int = 5, whole: bool = False
) -> Scale:
    """A scale that begins and ends at a tick and holds all values, which must be usable.

    Equal values get room to both sides; no values are 0 to 1. `whole` is for counts.
    """
    found = list(values)
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-290:
        room = 0.5 if abs(low) <= 5 else abs(low) / 10
        low, high = low - room, high + room
    step = _round_step((high - low) / ticks)
    if whole:
        step = max(step, 1.0)
    first, last = math.floor(low / step), math.ceil(high / step)
    # A quotient is rounded, so that a value may lie just outside of it.
    first, last = first - (first * step > low), last + (last * step < high)
    marks = tuple(i * step for i in range(first, last + 1))
    return Scale(marks[0], marks[-1], start, end, marks, step)


def _round_step(least: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 2.5, 5, 10, 20) if m * power >= least)


def line(x1: float, y1: float, x2: float, y2: float, extra: str = "") -> str:
    """A thin line in the text's colour."""
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    return f'<line {ends} stroke="currentColor"{extra}/>'


def words(x: float, y: float, text: str, *, anchor: str = "start", most: int = 0) -> str:
    """A line of text; where it has to be cut, it tells the whole to a pointer."""
    shown = cut(text, most) if most else text
    tip = f"<title>{safe(text)}</title>" if shown != text else ""
    position = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
    return f"<text {position}>{tip}{safe(shown)}</text>"


def colour(index: int) -> str:
    """The CSS colour of a series."""
    return f"var(--series-{index % SERIES}, currentColor)"


def dashes(index: int) -> str:
    """The dashes that tell a series apart without colour."""
    return f' stroke-dasharray="{_DASHES[index % SERIES]}"' if index % SERIES else ""


def legend(names: Sequence[str], y: float) -> tuple[str, float]:
    """The names beside a piece of their line, in rows from `y` on; and where the rows end."""
    parts, x = [], 0.0
    for index, name in enumerate(names):
        width = 44 + min(len(name), _NAMED) * _LETTER
        if x and x + width > WIDTH:
            x, y = 0.0, y + 18
        style = f' style="stroke:{colour(index)}" stroke-width="2.5"{dashes(index)}'
        parts.append(line(x, y + 8, x + 20, y + 8, style))
        parts.append(words(x + 26, y + 12, name, most=_NAMED))
        x += width
    return "".join(parts), y + (22 if names else 0)


def grid_x(axis: Scale, top: float, bottom: float, name: str) -> str:
    """Ticks below a plot, their labels, and the axis's name below those."""
    parts = [line(axis.start, bottom, axis.end, bottom, ' stroke-opacity="0.6"')]
    for tick in _thinned(axis):
        x, label = axis.at(tick), axis.label(tick)
        parts.append(line(x, bottom, x, bottom + 4, ' stroke-opacity="0.6"'))
        half = len(label) * _LETTER / 2
        parts.append(words(min(x, WIDTH - half), bottom + 17, label, anchor="middle"))
    middle = (axis.start + axis.end) / 2
    parts.append(words(middle, bottom + 34, name, anchor="middle", most=letters(WIDTH - 80)))
    return "".join(parts)


def _thinned(axis: Scale) -> Sequence[float]:
    """The ticks whose labels do not touch."""
    widest = max(len(axis.label(tick)) for tick in axis.ticks) * _LETTER + 8
    room = abs(axis.end - axis.start) / max(len(axis.ticks) - 1, 1)
    return axis.ticks[:: max(math.ceil(widest / room), 1)]


def grid_y(axis: Scale, left: float, right: float) -> str:
    """Lines across a plot at the ticks of its upright axis, with labels at their left."""
    parts = []
    for tick in axis.ticks:
        y = axis.at(tick)
        parts.append(line(left, y, right, y, ' stroke-opacity="0.15"'))
        parts.append(words(left - 6, y + 4, axis.label(tick), anchor="end"))
    return "".join(parts)


def margin(axis: Scale) -> float:
    """Room that the labels of an upright axis need."""
    return max(len(axis.label(tick)) for tick in axis.ticks) * _LETTER + 12


def svg(body: str, height: float, *, title: str, description: str) -> str:
    """The whole chart; its title and description are read out in its place."""
    box = f"0 0 {number(WIDTH)} {number(height)}"
    return (
        f'<svg class="chart" role="img" viewBox="{box}" width="100%" font-size="{number(TEXT)}"'
        f' fill="currentColor" xmlns="http://www.w3.org/2000/svg"><title>{safe(title)}</title>'
        f"<desc>{safe(description)}</desc>{body}</svg>"
    )
