"""Freezes the input list of a store, and finds the units that are left to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from latentcli.core.caption_counts import CaptionCounts
from latentcli.core.errors import UsageError
from latentcli.core.types import InputRow
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.findings import SHOWN, Ask, Survey
from latentcli.jobs.encode.survey import survey
from latentcli.jobs.runtime.meter import ignore
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.shards.layout import INPUTS
from latentcli.shards.sources.companions import Companions
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.sources.file_list import FoundInput, FoundInputs
from latentcli.shards.sources.find_inputs import unit_rows
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import CommitRecord, drop_record
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.store.roots import Roots, read_roots, write_roots


@dataclass(frozen=True, slots=True)
class Work:
    """The inputs of a store and what is left of them."""

    inputs: InputList
    todo: tuple[int, ...]
    """Units to encode."""
    parts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Of those, units that are done but for some inputs: the indices of these."""
    outdated: tuple[int, ...] = ()
    """Units to write anew from their own shards, as the list has other names for their inputs."""
    texts: tuple[int, ...] = ()
    """Units whose samples get other captions and fields."""
    companions: Companions | None = None
    """What reads the texts beside the inputs."""
    captions: CaptionCounts = field(default_factory=CaptionCounts)
    """Flaws of the files of metadata."""
    at_end: Mapping[str, InputRow] = field(default_factory=dict)
    """By source: rows of the list that change once all is encoded."""
    changed: int = 0
    """Inputs that are no longer what was encoded, and whose latents are kept all the same."""
    gone: int = 0
    """Inputs of the store that the sources do not give."""
    renamed: int = 0
    """Inputs that have another name now, and keep their latents."""
    failed: int = 0
    """Samples that failed before and are not tried again."""
    samples: int = 0
    """Samples, failed ones too, in the units that are not encoded again."""

    @property
    def inputs_to_encode(self) -> int:
        """Inputs of the units to encode that are to be encoded."""
        return sum(map(self.inputs_left, self.todo))

    def inputs_left(self, unit: int) -> int:
        """Inputs of a unit to encode that are to be encoded."""
        return len(self.parts[unit]) if unit in self.parts else self.inputs.count(unit)

    @property
    def touches(self) -> bool:
        """Whether anything of the store changes."""
        return bool(self.todo or self.outdated or self.texts or self.at_end)


def ask_of(job: EncodeJob) -> Ask:
    """What a job asks of the survey of its store."""
    return Ask(job.retry, job.compare, job.whole_shards, captions=job.captions)


def plan_work(
    store: AnyPath,
    spec_hash: str,
    found: Sequence[FoundInput],
    samples_per_shard: int,
    ask: Ask,
    reporter: Reporter,
    *,
    seen: Callable[[CommitRecord, Roots], object] = ignore,
) -> Work:
    """Freezes the list of a new store, or brings that of an old one up to date.

    New inputs are appended, and those that have other names or have moved are listed so. The
    errors are those of `survey`.
    """
    path = store / INPUTS
    now = survey(store, spec_hash, found, samples_per_shard, ask, seen=seen)
    if now.frozen is None:
        write_roots(store, now.roots)
        rows = unit_rows(found, samples_per_shard)
        if now.stamps is not None:
            rows = (replace(row, stamp=stamp) for row, stamp in zip(rows, now.stamps, strict=True))
        write_inputs(path, rows, now.roots)
        return Work(
            *(InputList.open(path), tuple(now.todo)),
            companions=now.companions,
            captions=now.captions,
        )
    for note in (*notes_of(now, store), *notes_of_rule(found, read_roots(store).captions, ask)):
        reporter.note(note)
    return Work(
        inputs=relisted(store, now.frozen, now, new=now.new),
        todo=tuple(now.todo),
        parts=now.parts,
        outdated=tuple(now.outdated),
        texts=tuple(now.texts),
        companions=now.companions,
        captions=now.captions,
        at_end=now.at_end,
        changed=len(now.kept),
        gone=len(now.gone),
        renamed=now.counts["renamed"],
        failed=now.failed,
        samples=now.samples,
    )


def relisted(
    store: AnyPath,
    frozen: InputList,
    now: Survey,
    *,
    new: Sequence[InputRow] = (),
    dropped: Collection[str] = (),
) -> InputList:
    """The list of a store as a survey found that it is to be, written where it is another one.

    `new` are rows for its end, and `dropped` the sources of rows that go.
    """
    if now.roots != read_roots(store):
        write_roots(store, now.roots)
    # What is encoded now is listed as it is now; but no record may stand beside a line that it
    # was not made from.
    for unit in sorted(now.again):
        drop_record(store, unit)
    if not new and not now.at_once and not dropped:
        return frozen
    kept = (row for row in frozen if row.source not in dropped)
    write_inputs(store / INPUTS, itertools.chain(updated(kept, now.at_once), new), now.roots)
    return InputList.open(store / INPUTS, now.roots)


def finish_list(store: AnyPath, work: Work) -> None:
    """Lists the inputs that were encoded again, or got other fields, as they are now.

    The list that the work has is of no use from then on: it is to be opened again.
    """
    if work.at_end:
        rows = updated(work.inputs, work.at_end)
        write_inputs(store / INPUTS, rows, work.inputs.roots)


def updated(frozen: Iterable[InputRow], changed: Mapping[str, InputRow]) -> Iterator[InputRow]:
    """The frozen rows, with the changed ones in their places."""
    return (changed.get(row.source, row) for row in frozen)


def notes_of(now: Survey, store: AnyPath) -> Iterator[str]:
    """What to say of a store whose inputs are not what they were."""
    if now.moved:
        yield f"The inputs have moved to {', '.join(now.roots.paths)}; they are the same ones."
    if now.copied:
        yield (
            "Their times have changed, as after a copy, so only their sizes were compared."
            " --compare digest also finds inputs that were edited."
        )
    if now.new:
        yield f"New since the store was made: {len(now.new):,}; appended."
    if count := now.counts["renamed"]:
        names = ", ".join(now.examples["renamed"])
        yield f"Under another name now: {count:,} ({names}); their latents are kept."
    if now.kept:
        yield (
            f"With other bytes than when they were encoded: {len(now.kept):,}"
            f" ({some(row.source for row in now.kept)}); their latents are kept (--retry none)."
        )
    if now.gone:
        yield (
            f"In the store, but no longer given by the sources: {len(now.gone):,}"
            f" ({some(row.source for row in now.gone)}); latentcli sync {store} drops those"
            " whose files are no longer there."
        )


def notes_of_rule(found: Sequence[FoundInput], taken: str | None, ask: Ask) -> Iterator[str]:
    """What to say where captions are to be others than the store has `taken` of packed inputs."""
    packed = isinstance(found, FoundInputs) and found.packed
    if packed and None not in (taken, ask.captions) and taken != ask.captions:
        yield (
            f"--captions {ask.captions} applies to tars and tables that are encoded from now on;"
            f" those that are done keep their texts (--captions {taken}). To apply it to all of"
            " them, use another output folder (-o)."
        )


def some(names: Iterable[str]) -> str:
    """The first few names, and how many there are besides."""
    shown = list(names)
    more = f" and {len(shown) - SHOWN:,} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more


def refuse_commands(rows: Iterable[InputRow]) -> None:
    """UsageError where a row of a store is a shell command, which nobody allowed this time."""
    for row in rows:
        if row.source.startswith(PIPE):
            raise UsageError(
                f"unit {row.unit} of the store is made from the shell command {row.source}, and"
                " must be encoded; --allow-pipe allows the command to run."
            )
