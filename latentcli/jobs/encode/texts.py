"""Takes the captions and other fields of samples along into their units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from latentcli.core.caption_counts import KINDS, CaptionCounts
from latentcli.core.fields import (
    AUTO,
    Gathered,
    caption_rule,
    fields_of_members,
    gather_members,
    is_of_fields,
    members_of_fields,
)
from latentcli.core.types import Member, Row
from latentcli.jobs.encode.captions import USUAL
from latentcli.jobs.encode.rewrite import Fields, Rewriting, fields_of, rewrite, rewriting_of
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.shards.layout import SHARDS
from latentcli.shards.sources.companions import Companions
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import replace_fields
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.shard_file import open_shard
from latentcli.shards.tar.shard import TarShard

TOTAL = "captions_"
"""In front of a kind of caption, as a total of a team."""


def keep_others(run: EncodeRun, unit: EncodedUnit, key: str, others: tuple[Member, ...]) -> None:
    """Takes in what a sample of a packed input holds beside its picture or clip.

    In a tar shard all of it is passed on; what its texts say goes beside other shards.
    """
    rule = caption_rule(run.job.captions or USUAL)
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
    if run.companions is None:
        return
    encoded = [row for row in rows if row.status == "ok"]
    found = read_companions(run.companions, encoded)
    note(run, found)
    fields = {key: gathered.fields for key, gathered in found.items() if gathered.fields}
    if run.manifest.format == "webdataset":
        unit.others |= {key: members_of_fields(values) for key, values in fields.items()}
    else:
        unit.fields |= fields


def read_companions(companions: Companions, rows: Sequence[Row]) -> dict[str, Gathered]:
    """What belongs to the files of some rows, by key; StoreError where it cannot be read."""
    found = companions.read([row.source for row in rows])
    return {row.key: gathered for row, gathered in zip(rows, found, strict=True)}


def note(run: EncodeRun, found: Mapping[str, Gathered]) -> None:
    """Counts captions, for this process and for the team."""
    counts = CaptionCounts()
    for key, gathered in found.items():
        counts.add(key, gathered)
    note_counts(run, counts)


def note_counts(run: EncodeRun, counts: CaptionCounts) -> None:
    """Adds counts to those of this process and of the team."""
    run.captions.merge(counts)
    for kind, number in counts.counts.items():
        if number:
            run.team.add(f"{TOTAL}{kind}", number)


def captions_document(run: EncodeRun) -> dict[str, Any] | None:
    """What the document says of captions: the counts of all processes; None without captions."""
    if run.job.captions is None or caption_rule(run.job.captions) is None:
        return None
    counts = {kind: run.team.total(f"{TOTAL}{kind}") for kind in KINDS}
    examples = run.captions.to_json()["examples"]
    return {"mode": run.job.captions, **counts, "examples": examples}


def refresh_texts(
    store: AnyPath,
    manifest: Manifest,
    inputs: InputList,
    units: Iterable[int],
    companions: Companions | None,
) -> Iterator[dict[str, Gathered]]:
    """Gives the samples of some units the captions and fields that they have today.

    Nothing is encoded, and a unit whose fields are what they were is not written. What was read
    of each unit is yielded then.
    """
    for unit in units:
        task = rewriting_of(store, manifest, inputs, unit)
        rows = [row for row in task.rows if row.status == "ok"]
        found = {} if companions is None else read_companions(companions, rows)
        there = fields_there(task)
        fields: dict[str, Fields] = {row.key: {} for row in rows}
        fields |= {key: gathered.fields for key, gathered in found.items()}
        if any(values != there.get(key, {}) for key, values in fields.items()):
            write_texts(replace(task, fields=fields))
        yield found


def fields_there(task: Rewriting) -> Mapping[str, Fields]:
    """The fields of a unit's samples as they are in the store."""
    if task.manifest.format != "webdataset":
        return fields_of(task)
    with open_shard(task.store / SHARDS / task.record.shard) as shard:
        assert isinstance(shard, TarShard)
        return {
            row.key: fields_of_members(shard.others(key, is_of_fields)) for key, row in task.kept()
        }


def write_texts(task: Rewriting) -> None:
    """Writes a unit with other fields: the file of these, or the tar that they are members of."""
    if task.manifest.format == "webdataset":
        rewrite(task)
    else:
        replace_fields(task.store, task.record, fields_of(task), task.inputs.roots)
