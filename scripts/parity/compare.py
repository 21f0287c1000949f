"""Measures how far two tensors are apart and whether that is allowed, and tabulates many such."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.console import Console
from torch import Tensor

from latentcli.reports.tables import Column, Values, make_table


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a result is from its reference."""

    subject: str
    """The model or file."""
    what: str
    """The result."""
    largest: float
    """Largest absolute difference."""
    relative: float
    """What counts: in units of the reference, or the absolute difference of a figure."""
    allowed: float
    """The largest relative difference that is allowed."""
    tensors: int = 1
    """How many comparisons this stands for: the worst of them."""
    detail: str = ""
    """What to tell a reader besides, where it is not ok."""

    @property
    def ok(self) -> bool:
        """False for NaN too."""
        return self.relative <= self.allowed


Measure = Callable[[Tensor, Tensor], float]


def of_std(got: Tensor, want: Tensor) -> float:
    """Largest difference relative to the reference's standard deviation."""
    return _ratio((got - want).abs().max().item(), want.std().item())


def of_peak(got: Tensor, want: Tensor) -> float:
    """Largest difference relative to the reference's largest value."""
    return _ratio((got - want).abs().max().item(), want.abs().max().item())


def of_rms(got: Tensor, want: Tensor) -> float:
    """RMS of the difference relative to the reference's RMS."""
    ratio = _ratio((got - want).square().mean().item(), want.square().mean().item())
    return math.sqrt(ratio)


def _ratio(part: float, whole: float) -> float:
    return part / max(whole, 1e-30)


def difference(
    subject: str, what: str, got: Tensor, want: Tensor, allowed: float, measure: Measure = of_std
) -> Difference:
    """The tensors' difference in float32 on the CPU; infinite where the shapes differ."""
    got, want = got.float().cpu(), want.float().cpu()
    if got.shape != want.shape:
        return Difference(subject, what, float("inf"), float("inf"), allowed)
    largest = (got - want).abs().max().item()
    return Difference(subject, what, largest, measure(got, want), allowed)


def names_and_shapes(
    subject: str, count: int, misfit: str = "", what: str = "names and shapes"
) -> Difference:
    """The outcome of the strict check of a checkpoint's tensors, as a row of the table."""
    off = float("inf") if misfit else 0.0
    return Difference(subject, what, off, off, 0.0, count, misfit)


def worst_of(rows: Iterable[Difference]) -> list[Difference]:
    """One row for each result of each subject: the worst, where there are several."""
    groups: dict[tuple[str, str], list[Difference]] = {}
    for row in rows:
        groups.setdefault((row.subject, row.what), []).append(row)
    return [
        replace(max(group, key=_badness), tensors=sum(row.tensors for row in group))
        for group in groups.values()
    ]


def _badness(row: Difference) -> tuple[bool, float]:
    # NaN compares as neither more nor less, and must win.
    return not row.ok, row.relative


def _cell(show: Callable[[Difference], str]) -> Callable[[Values], str]:
    """Nothing where a line of the table has no row: it names a subject."""
    return lambda line: show(line["row"]) if "row" in line else ""


def _short(value: float, form: str) -> str:
    return format(value, form) if value else "0"


COLUMNS = (
    Column("", lambda line: line["title"], figure=False),
    Column("n", _cell(lambda row: str(row.tensors))),
    Column("largest", _cell(lambda row: _short(row.largest, ".1e"))),
    Column("relative", _cell(lambda row: _short(row.relative, ".1e"))),
    Column("allowed", _cell(lambda row: _short(row.allowed, ".0e"))),
    Column("", _cell(lambda row: "ok" if row.ok else "DIFFERS"), figure=False),
)


def print_table(console: Console, rows: Sequence[Difference]) -> None:
    """The table of differences, each subject above its rows, then the details."""
    lines: list[Values] = []
    for subject, group in groupby(rows, key=lambda row: row.subject):
        lines += [{"title": subject}, *({"title": f"  {r.what}", "row": r} for r in group)]
    console.print(make_table(COLUMNS, lines))
    for detail in dict.fromkeys(row.detail for row in rows if row.detail and not row.ok):
        console.print(f"\n{detail}", soft_wrap=True)


def verdict(rows: Sequence[Difference]) -> str:
    """One sentence on all comparisons."""
    count = sum(row.tensors for row in rows)
    bad = [f"{row.subject} {row.what}" for row in rows if not row.ok]
    if bad:
        return f"Differs by more than is allowed: {', '.join(bad)}."
    return f"All {count} comparisons are within what is allowed."
