"""Defines `latentcli watch`, which shows how far the job is that writes to a store."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.core.byte_size import byte_words
from latentcli.jobs.runtime.process import UNREAD
from latentcli.jobs.store.watch_config import WatchJob

if TYPE_CHECKING:
    from rich.console import RenderableType

    from latentcli.jobs.store.watch import StoreState, StoreWatch


@command(WatchJob)
def watch(out: Output, job: WatchJob, given: frozenset[str]) -> None:
    """Show the progress of the job that writes to a store, until it has ended.

    It runs wherever the store can be read, and does not disturb the job. With --json or --once
    it shows the present state and ends.
    """
    from latentcli.jobs.store.watch import document, watch_of

    looking, period = watch_of(job)
    if job.once or out.as_json:
        state = settled(looking)
        out.show(document(state), data=lambda _: lines(state))
        return
    try:
        (live if out.stdout.is_terminal else plain)(out, looking, period)
    except KeyboardInterrupt as stopped:
        # Whoever watches has seen enough; other signals are what they are.
        if stopped.args and stopped.args[0] != signal.SIGINT.name:
            raise


def settled(looking: StoreWatch) -> StoreState:
    """A look; where the writer alone can say whether it lives, a few more, until it has."""
    state = looking.look()
    while state.writer is not None and state.writer.alive is None and state.writer.beats:
        time.sleep(state.writer.beats / 4)
        state = looking.look()
    return state


def plain(out: Output, looking: StoreWatch, period: float) -> None:
    """A line for each look, and at the end what has become of the store.

    Once nobody reads the lines (`| head -1`) there is nothing to wait for.
    """
    while (state := looking.look()).state == "running" and not UNREAD:
        for line in [", ".join(facts(state))]:
            out.stdout.out(line, highlight=False)
        time.sleep(period)
    for line in lines(state):
        out.stdout.out(line, highlight=False)


def live(out: Output, looking: StoreWatch, period: float) -> None:
    """A picture that is drawn again at each look, and at the end what has become of the store."""
    from rich.console import Group
    from rich.live import Live

    with Live(console=out.stdout, auto_refresh=False, transient=True) as shown:
        while (state := looking.look()).state == "running":
            shown.update(picture(state), refresh=True)
            time.sleep(period)
        shown.update(Group())
    for line in lines(state):
        out.stdout.out(line, highlight=False)


def picture(state: StoreState) -> RenderableType:
    """A bar, and the lines."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    from latentcli.cli.display import bars

    whole = bars(40)
    done, listed = len(state.written), state.listed
    if listed is None:
        whole.add_row("shards")
    else:
        share = min(done / max(listed.units, 1), 1.0)
        whole.add_row("shards", ProgressBar(total=1.0, completed=share), f"{share:.0%}")
    return Group(whole, *(Text(f"  {line}", overflow="fold") for line in lines(state)))


def lines(state: StoreState) -> Iterator[str]:
    """The figures, who writes, and what to do where nobody does."""
    yield ", ".join(facts(state))
    writer = state.writer
    if writer is not None:
        began = "" if writer.since is None else f", since {clock(writer.since)}"
        yield f"{writer.command}: process {writer.pid} on host {writer.host}{began}."
        if writer.alive is None:
            yield "It runs on another machine, so it is not known here whether it still runs."
        return
    if state.state == "complete":
        yield f"{state.store} is complete; no job is writing to it."
        return
    yield (
        f"No job is writing to {state.store}, which has {shards(state)}. Run the same encode"
        " command again to finish the rest."
    )


def facts(state: StoreState) -> Iterator[str]:
    """What is there of how much, rate, time to go, failures, and when the last shard was made."""
    yield shards(state)
    noun = "clips" if state.manifest is not None and "clips" in state.manifest.spec else "images"
    if state.packed or state.listed is None:
        yield f"{state.total('encoded'):,} {noun}"
    else:
        about = "" if state.listed.exact else "~"
        yield f"{state.total('inputs'):,}/{about}{state.listed.inputs:,} {noun}"
    if state.rate is not None:
        yield words.rate(state.rate, noun)
    if state.eta:
        yield f"{words.duration(state.eta)} to go"
    if failed := state.total("failed"):
        yield f"{failed:,} failed"
    yield byte_words(state.total("bytes"))
    if state.written and state.writer is not None:
        ago = max(time.time() - state.written[-1].time, 0.0)
        yield f"last shard {words.duration(ago)} ago"


def shards(state: StoreState) -> str:
    """12 of 40 shards; 12 shards where these are all, or nobody knows how many there will be."""
    done, listed = len(state.written), state.listed
    if listed is None or done == listed.units:
        return words.count(done, "shard")
    return f"{done:,} of {words.count(listed.units, 'shard')}"


def clock(seconds: float) -> str:
    """The time of day here, with the date unless that is today's."""
    moment, today = datetime.fromtimestamp(seconds), datetime.now().date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M:%S}"
