"""Takes the captions and other fields of samples along into their units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from latentcli.core.caption_counts import KINDS, CaptionCounts
from latentcli.core.fields import (
    AUTO,
    CaptionRule,
    Gathered,
    caption_rule,
    gather_members,
    members_of_fields,
)
from latentcli.core.types import Member, Row
from latentcli.jobs.encode.rewrite import Fields, Rewriting, fields_of, rewrite, rewriting_of
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.shards.sources.companions import Companions
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import replace_fields
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import Manifest

TOTAL = "captions_"
"""In front of a kind of caption, as a total of a team."""


def keep_others(run: EncodeRun, unit: EncodedUnit, key: str, others: tuple[Member, ...]) -> None:
    """Takes in what a sample of a packed input holds beside its picture or clip.

    In a tar shard all of it is passed on; what its texts say goes beside other shards.
    """
    rule = caption_rule(run.job.captions)
    passes_on = run.manifest.format == "webdataset"
    if passes_on and others:
        unit.others[key] = tuple(unit.spill.member(other) for other in others)
    if rule is None:
        return
    found = gather_members(others, rule)
    note(run, {key: found})
    # A reader of tars looks for captions in the usual members alone.
    if found.fields and not (passes_on and rule == AUTO):
        unit.fields[key] = found.fields


def add_companions(run: EncodeRun, unit: EncodedUnit, rows: Iterable[Row]) -> None:
    """Reads what belongs to the files of these samples of a unit, and takes it in."""
    rule = caption_rule(run.job.captions)
    if rule is None or run.reader.packed:
        return
    encoded = [row for row in rows if row.status == "ok"]
    found = read_companions(Companions(run.inputs.roots.paths, rule), encoded)
    note(run, found)
    fields = {key: gathered.fields for key, gathered in found.items() if gathered.fields}
    if run.manifest.format == "webdataset":
        unit.others |= {key: members_of_fields(values) for key, values in fields.items()}
    else:
        unit.fields |= fields


def read_companions(companions: Companions, rows: Sequence[Row]) -> dict[str, Gathered]:
    """What belongs to the files of some rows, by key."""
    found = companions.read([row.source for row in rows])
    return {row.key: gathered for row, gathered in zip(rows, found, strict=True)}


def note(run: EncodeRun, found: Mapping[str, Gathered]) -> None:
    """Counts captions, for this process and for the team."""
    counts = CaptionCounts()
    for key, gathered in found.items():
        counts.add(key, gathered)
    run.captions.merge(counts)
    for kind, number in counts.counts.items():
        if number:
            run.team.add(f"{TOTAL}{kind}", number)


def captions_document(run: EncodeRun) -> dict[str, Any] | None:
    """What the document says of captions: the counts of all processes; None without captions."""
    if caption_rule(run.job.captions) is None:
        return None
    counts = {kind: run.team.total(f"{TOTAL}{kind}") for kind in KINDS}
    return counts | {"examples": run.captions.to_json()["examples"]}


def refresh_texts(
    store: AnyPath,
    manifest: Manifest,
    inputs: InputList,
    units: Iterable[int],
    rule: CaptionRule | None,
) -> Iterator[dict[str, Gathered]]:
    """Gives the samples of some units the captions and fields that they have today.

    Nothing is encoded. What was read of each unit is yielded once it is written.
    """
    companions = None if rule is None else Companions(inputs.roots.paths, rule)
    for unit in units:
        task = rewriting_of(store, manifest, inputs, unit)
        rows = [row for row in task.rows if row.status == "ok"]
        found = {} if companions is None else read_companions(companions, rows)
        fields: dict[str, Fields] = {row.key: {} for row in rows}
        fields |= {key: gathered.fields for key, gathered in found.items()}
        write_texts(rewriting_of(store, manifest, inputs, unit, fields=fields))
        yield found


def write_texts(task: Rewriting) -> None:
    """Writes a unit with other fields: the file of these, or the tar that they are members of."""
    if task.manifest.format == "webdataset":
        rewrite(task)
    else:
        replace_fields(task.store, task.record, fields_of(task), task.inputs.roots)
