"""Shows a job's progress: live on a terminal, or as a plain line now and then.

Both write to the console of stderr, at most as often as their period says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Timer

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from latentcli.cli.words import digits, duration, rate
from latentcli.jobs.runtime.bottleneck import StageView
from latentcli.jobs.runtime.meter import Snapshot

LIVE_PERIOD = 0.125
PLAIN_PERIOD = 5.0
LIMIT_PERIOD = 60.0
"""Seconds before a log names what limits the job, and between two such lines."""
STATUS_PATIENCE = 10.0
"""Seconds that one step before the first figures takes before a log is told of it."""
SETTLED = 1.0
"""Seconds after which a rate says something."""


class Display:
    """What a job's notes and progress are shown on, between start and close: here, nothing."""

    def start(self) -> None: ...

    def close(self) -> None: ...

    def note(self, text: str) -> None:
        """Shows one sentence."""

    def status(self, text: str) -> None:
        """Shows what the job is at until the next status, or its first figures."""

    def progress(self, snapshot: Snapshot) -> None:
        """Shows where the job is, unless it did so a moment ago."""


def facts(snapshot: Snapshot) -> list[str]:
    """What is done of how much, rate, time to go, failures and ranks, in words."""
    parts = [counted(snapshot)]
    # The rate of the first moments is that of one batch, and may be wrong a hundredfold.
    if snapshot.finished or snapshot.done >= snapshot.rate * SETTLED:
        # How quickly inputs fail says nothing.
        if snapshot.rate > 0 and snapshot.done > snapshot.failed:
            parts.append(rate(snapshot.rate, snapshot.noun))
        if snapshot.eta is not None and not snapshot.finished:
            parts.append(f"{duration(snapshot.eta)} to go")
    if snapshot.failed:
        parts.append(f"{snapshot.failed:,} failed")
    if snapshot.ranks > 1:
        parts.append(f"{snapshot.ranks:,} ranks")
    return parts


def counted(snapshot: Snapshot) -> str:
    """12/50; 12/~50 where the total is a guess; 12 images where there is none, or it was wrong."""
    done, total = snapshot.done, snapshot.total
    if total is None or (snapshot.total_is_guess and done > total):
        return f"{done:,} {snapshot.noun}"
    return f"{done:,}/{'~' if snapshot.total_is_guess else ''}{total:,}"


def picture(snapshot: Snapshot, *, closing: bool = False) -> RenderableType:
    """The live display: a bar, its figures, a row for each stage, and what limits the job.

    Stages are those of the last seconds; of the whole job when `closing`, and the limit is left to
    the summary then.
    """
    interval = snapshot.whole if closing else snapshot.recent
    whole, stages = bars(40), bars(16)
    if snapshot.total is None:
        whole.add_row(snapshot.verb)
    else:
        share = min(snapshot.done / max(snapshot.total, 1), 1.0)
        about = "~" if snapshot.total_is_guess else ""
        bar = ProgressBar(total=1.0, completed=share)
        whole.add_row(snapshot.verb, bar, f"{about}{share:.0%}")
    for view in interval.views():
        bar = ProgressBar(total=1.0, completed=view.share, finished_style="bar.complete")
        stages.add_row(f"  {view.name}", bar, busy(view), pace(view))
    verdict = None if closing else interval.verdict()
    limit = [] if verdict is None else [Text(verdict.sentence, overflow="fold")]
    return Group(whole, Text(f"  {', '.join(facts(snapshot))}", overflow="fold"), stages, *limit)


def busy(view: StageView) -> str:
    """1.9 of 2, or a percentage where one thread does the stage."""
    return f"{view.share:.0%}" if view.threads == 1 else f"{view.busy:.1f} of {view.threads}"


def pace(view: StageView) -> str:
    """153/s, or nothing where no item came out in the interval."""
    return f"{digits(view.rate)}/s" if view.rate > 0 else ""


def bars(width: int) -> Table:
    """An empty grid for a name, a bar of at most `width` columns and figures."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(min_width=4, max_width=width)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, justify="right")
    return grid


class LiveDisplay(Display):
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
        self.live.update(Group() if self.last is None else picture(self.last, closing=True))
        self.live.stop()

    def note(self, text: str) -> None:
        self.console.print(Text(text, overflow="fold"))

    def status(self, text: str) -> None:
        if self.last is None:
            self.live.update(Text(f"{text} ...", overflow="ellipsis", no_wrap=True), refresh=True)

    def progress(self, snapshot: Snapshot) -> None:
        self.last = snapshot
        now = time.monotonic()
        if now - self.drawn >= LIVE_PERIOD:
            self.drawn = now
            self.live.update(picture(snapshot), refresh=True)


class PlainDisplay(Display):
    """Lines for a log: one every few seconds, the last, and now and then a new limit of the job."""

    def __init__(
        self,
        console: Console,
        period: float = PLAIN_PERIOD,
        clock: Callable[[], float] = time.monotonic,
        patience: float = STATUS_PATIENCE,
    ) -> None:
        self.console = console
        self.period = period
        self.clock = clock
        self.patience = patience
        self.waiting: Timer | None = None
        self.last: Snapshot | None = None
        self.printed: Snapshot | None = None
        self.limit: str | None = None
        self.began = self.judged = clock()

    def start(self) -> None:
        self.began = self.judged = self.clock()

    def close(self) -> None:
        self.wait_no_more()
        if self.last is not None and self.last is not self.printed:
            self.show(self.last)

    def note(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def status(self, text: str) -> None:
        """Only what takes long is told: of a quick job it would be noise."""
        self.wait_no_more()
        if self.last is None:
            self.waiting = Timer(self.patience, self.note, [f"{text} ..."])
            self.waiting.daemon = True
            self.waiting.start()

    def wait_no_more(self) -> None:
        """Forgets a status that was not told yet."""
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None

    def progress(self, snapshot: Snapshot) -> None:
        self.last = snapshot
        self.wait_no_more()
        if self.clock() - self.began >= self.period:
            self.show(snapshot)
            self.judge(snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Prints the snapshot's line; the next one waits for its period."""
        self.began = self.clock()
        self.printed = snapshot
        self.note(f"{snapshot.verb} {', '.join(facts(snapshot))}")

    def judge(self, snapshot: Snapshot) -> None:
        """Prints which stage is the limit, unless it is the one that was named last."""
        if self.clock() - self.judged < LIMIT_PERIOD:
            return
        verdict = snapshot.verdict()
        if verdict is not None and verdict.stage != self.limit:
            self.limit, self.judged = verdict.stage, self.clock()
            self.note(verdict.sentence)


def display_for(console: Console, quiet: bool) -> Display:
    """The display that suits what stderr is."""
    if quiet:
        return Display()
    # A forced colour setting makes rich call a file a terminal; a redrawn log file helps nobody.
    if console.file.isatty() and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(console)
