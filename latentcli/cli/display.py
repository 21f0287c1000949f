"""Snapshots of a job in, a live display on a terminal or a plain line now and then out.

Both write to the console of stderr, at most as often as their period says.
"""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from latentcli.cli.words import duration, rate
from latentcli.jobs.meter import Snapshot

LIVE_PERIOD = 0.125
PLAIN_PERIOD = 5.0
SETTLED = 1.0
"""Seconds after which a rate says something."""


class Display(Protocol):
    """What a job's notes and progress are shown on, between start and close."""

    def start(self) -> None: ...

    def close(self) -> None: ...

    def note(self, text: str) -> None:
        """Shows one sentence."""

    def progress(self, snapshot: Snapshot) -> None:
        """Shows where the job is, unless it did so a moment ago."""


def facts(snapshot: Snapshot) -> list[str]:
    """done/total, rate, time to go and failures, in words."""
    parts = [f"{snapshot.done:,}/{snapshot.total:,}"]
    finished = snapshot.done >= snapshot.total
    # The rate of the first moments is that of one batch, and may be wrong a hundredfold.
    if finished or snapshot.done >= snapshot.rate * SETTLED:
        if snapshot.rate > 0:
            parts.append(rate(snapshot.rate, snapshot.noun))
        if snapshot.eta is not None and not finished:
            parts.append(f"{duration(snapshot.eta)} to go")
    if snapshot.failed:
        parts.append(f"{snapshot.failed:,} failed")
    return parts


def picture(snapshot: Snapshot) -> RenderableType:
    """The live display: a bar, its figures, and a small bar for each stage."""
    share = snapshot.done / max(snapshot.total, 1)
    whole = bars(40)
    whole.add_row(snapshot.verb, ProgressBar(total=1.0, completed=share), f"{share:.0%}")
    stages = bars(16)
    for stage, part in snapshot.shares.items():
        bar = ProgressBar(total=1.0, completed=part, finished_style="bar.complete")
        stages.add_row(f"  {stage}", bar, f"{part:.0%}")
    return Group(whole, Text(f"  {', '.join(facts(snapshot))}", overflow="fold"), stages)


def bars(width: int) -> Table:
    """An empty grid for a name, a bar of at most `width` columns and a percentage."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(min_width=4, max_width=width)
    grid.add_column(no_wrap=True, justify="right")
    return grid


class LiveDisplay:
    """A display that is redrawn in place; notes scroll by above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last: Snapshot | None = None
        self.drawn = 0.0
        # Without rich's refresh thread nothing is drawn between batches, so it costs nothing then.
        self.live = Live(console=console, auto_refresh=False, redirect_stdout=False)

    def start(self) -> None:
        self.live.start()

    def close(self) -> None:
        if self.last is not None:
            self.live.update(picture(self.last))
        self.live.stop()

    def note(self, text: str) -> None:
        self.console.print(Text(text, overflow="fold"))

    def progress(self, snapshot: Snapshot) -> None:
        self.last = snapshot
        now = time.monotonic()
        if now - self.drawn >= LIVE_PERIOD:
            self.drawn = now
            self.live.update(picture(snapshot), refresh=True)


class PlainDisplay:
    """Lines for a log: one every few seconds, and the last."""

    def __init__(self, console: Console, period: float = PLAIN_PERIOD) -> None:
        self.console = console
        self.period = period
        self.last: Snapshot | None = None
        self.printed: Snapshot | None = None
        self.began = time.monotonic()

    def start(self) -> None:
        self.began = time.monotonic()

    def close(self) -> None:
        if self.last is not None and self.last is not self.printed:
            self.show(self.last)

    def note(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def progress(self, snapshot: Snapshot) -> None:
        self.last = snapshot
        if time.monotonic() - self.began >= self.period:
            self.show(snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Prints the snapshot's line; the next one waits for its period."""
        self.began = time.monotonic()
        self.printed = snapshot
        self.note(f"{snapshot.verb} {', '.join(facts(snapshot))}")


class NoDisplay:
    """Shows nothing, for --quiet."""

    def start(self) -> None: ...

    def close(self) -> None: ...

    def note(self, text: str) -> None: ...

    def progress(self, snapshot: Snapshot) -> None: ...


def display_for(console: Console, quiet: bool) -> Display:
    """The display that suits what stderr is."""
    if quiet:
        return NoDisplay()
    # A forced colour setting makes rich call a file a terminal; a redrawn log file helps nobody.
    if console.file.isatty() and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(console)
