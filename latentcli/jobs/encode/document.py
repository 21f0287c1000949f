"""Makes the --json document of an encode job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentcli.core.reasons import Reasons
from latentcli.core.types import FILTERED
from latentcli.jobs.encode.field_counts import FieldCounts
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.texts import captions_document
from latentcli.jobs.encode.worklist import Work
from latentcli.shards.layout import FAILURES
from latentcli.shards.store.commit import CommitRecord
from latentcli.shards.store.manifest import Manifest

SHOWN_REASONS = 100
"""Groups of reasons of failure that the document counts."""


@dataclass(slots=True)
class Counts:
    """What the units hold that this job encoded, whoever of its processes did."""

    todo: frozenset[int]
    parts: Mapping[int, Sequence[int]]
    """Units of which only some inputs were encoded: the indices of these."""
    encoded: int = 0
    frames: int = 0
    reasons: Reasons = field(default_factory=Reasons)
    """Why inputs failed, of all units."""
    filters: Counter[str] = field(default_factory=Counter)
    """Why inputs were left out by the filters, of all units."""
    fields: FieldCounts = field(default_factory=FieldCounts)
    """Of tars, what was taken of their samples."""

    def add(self, record: CommitRecord) -> None:
        """Takes in a unit of the store."""
        for row in record.rows:
            if row.status == FILTERED:
                self.filters[row.error or ""] += 1
            elif row.status != "ok":
                self.reasons.add(f"{row.stage}: {row.error}", row.key, row.source)
        self.fields.add(record)
        if record.unit in self.todo:
            chosen = self.parts.get(record.unit)
            rows = record.rows if chosen is None else [record.rows[i] for i in chosen]
            shapes = [row.latent_shape or () for row in rows if row.status == "ok"]
            self.encoded += len(shapes)
            self.frames += sum(shape[0] for shape in shapes if len(shape) == 4)


def document(
    run: EncodeRun, work: Work, final: Manifest, counts: Counts, seconds: float
) -> dict[str, Any]:
    """The --json document of a job that wrote a store."""
    store, totals = run.plan.store, final.totals
    encoded_now, clips = counts.encoded, run.plan.clips is not None
    return {
        "store": str(store),
        "model": final.model["name"],
        "encoded": encoded_now,
        "skipped": totals.encoded - encoded_now,
        "failed": totals.failed,
        "seconds": round(seconds, 3),
        **paces(run),
        "media": run.plan.media,
        "kind": run.plan.kind,
        "tars": len(run.inputs) if run.plan.packed else None,
        "frames": counts.frames if clips else None,
        "inputs": totals.inputs,
        "changed": work.changed,
        "renamed": work.renamed,
        "gone": work.gone,
        "captions": captions_document(run),
        "texts": len(work.texts),
        "shards": totals.shards,
        "bytes": totals.bytes,
        "shard_format": final.format,
        "latent_space": final.latent_space,
        "geometry": run.engine.model.spec.geometry,
        "self_check": final.self_check,
        "failures": str(store / FAILURES) if totals.failed else None,
        "reasons": counts.reasons.counts(SHOWN_REASONS),
        "reason_examples": counts.reasons.examples(SHOWN_REASONS),
        "filtered": totals.filtered,
        "filter_reasons": dict(counts.filters.most_common()),
        "ranks": run.team.rank.world,
        **counts.fields.to_json(run.inputs.roots),
    }


def paces(run: EncodeRun) -> dict[str, Any]:
    """How fast the job was, and why not faster."""
    meter = run.meter
    return {
        **meter.paces(),
        "device": run.engine.device_name,
        "dtype": run.plan.manifest.spec["encode"]["dtype"],
        "compiled": run.job.compile == "on",
        "batch_size": run.plan.batch_size,
        "workers": run.workers,
        "startup_seconds": round(meter.startup, 3),
        "waited_seconds": round(meter.waited, 3),
    }
