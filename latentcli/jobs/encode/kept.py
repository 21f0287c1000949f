"""Says what is kept of an encode job that a signal ends: whole shards, and nothing of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from latentcli.core.errors import Interrupted
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.worklist import Work


@contextmanager
def telling_kept(run: EncodeRun, work: Work) -> Iterator[None]:
    """Has a signal that ends the block told with what is kept."""
    try:
        yield
    except Interrupted:
        stop = run.stop
        if stop.signal is not None:  # not that another process heard of one
            stop.advice = f"{kept_words(run, work)} {stop.advice}"
            stop.check()
        raise


def kept_words(run: EncodeRun, work: Work) -> str:
    """How many of the store's inputs are kept, and how many of this run are encoded again."""
    total, written = len(work.inputs), sum(map(work.inputs_left, run.written))
    packed, clips = run.plan.packed, run.plan.clips is not None
    exact = run.team.rank.world == 1 and run.job.engine == "local"
    # Of clips the frames are counted, of tars the samples, and of other processes what is heard.
    counted = exact and not packed and not clips
    return sentence(
        total - work.inputs_to_encode + written,
        total,
        "inputs" if packed else "clips" if clips else "images",
        again=run.meter.done - written if counted else None,
        per_shard=None if packed else run.plan.samples_per_shard,
        exact=exact,
    )


def sentence(
    kept: int,
    total: int,
    noun: str,
    *,
    again: int | None = None,
    per_shard: int | None = None,
    exact: bool = True,
) -> str:
    """The same of counts; `again` and `per_shard` are None where unknown, or of no use.

    Where nothing is kept smaller shards would have helped, so their option is named.
    """
    if kept >= total:
        return f"All of {total:,} {noun} are kept."
    text = f"{'' if exact else 'So far '}{kept:,} of {total:,} {noun} are kept"
    if not kept and exact and again != 0:
        option = "" if per_shard is None else f" (--samples-per-shard {per_shard})"
        text += f": a shard is written whole{option}"
    if not again:
        return f"{text}."
    return (
        f"{text}; {again:,} more {'was' if again == 1 else 'were'} done and will be encoded again."
    )
