"""Says what an encode job would do, why, and what that costs; writes nothing."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

from latentcli.core.errors import LatentCliError, StoreError, TooManyFailures
from latentcli.core.types import InputRow, Row
from latentcli.jobs.cluster.launch import pick_devices
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.captions import with_captions
from latentcli.jobs.encode.cost_probe import PROBED, Looked, Probe, probed
from latentcli.jobs.encode.findings import REASONS, Reason, Survey
from latentcli.jobs.encode.plan import EncodePlan
from latentcli.jobs.encode.survey import survey
from latentcli.jobs.encode.worklist import ask_of, refuse_commands
from latentcli.jobs.inference.accelerator import devices_to_share
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.loader.find_media import FoundMedia
from latentcli.jobs.loader.loader import MANY, pick_workers
from latentcli.jobs.runtime.failures import check_failed
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.shards.sources.find_inputs import unit_rows
from latentcli.shards.store.manifest import differing_fields, read_manifest, spec_hash
from latentcli.shards.store.roots import read_roots
from latentcli.shards.store.writer import check_folder, is_new

SHOWN_FIELDS = 16
"""Differing fields of a spec that are listed."""
NO_REASONS = dict.fromkeys(REASONS, Reason(0, ()))
GOLDEN = 0.618034
"""Steps of this share of a list, round and round, hit it evenly however soon they end."""


def plan_document(
    job: EncodeJob, engine: Engine, plan: EncodePlan, found: FoundMedia, stop: StopRequest
) -> dict[str, Any]:
    """The --json document of `plan` and `encode --dry-run`.

    `error` and `exit_code` are what encode would end with, as far as is known. StoreError where the
    folder holds something else than a store, or one of other inputs; UsageError where there are no
    such devices, and for shell commands that are not allowed.
    """
    devices = devices_of(job)
    refused = differences(plan)
    bad: list[Row] = []
    seen, job = None, with_captions(job, read_roots(plan.store))
    if not refused:
        hashed = spec_hash(plan.manifest.spec)
        seen = survey(
            *(plan.store, hashed, found.inputs, plan.samples_per_shard),
            ask_of(job),
        )
    stop.check()
    probe, looked = None, Looked()
    if seen is not None and seen.todo and plan.clips is None:
        if plan.packed and not job.allow_pipe:
            refuse_commands(rows_to_do(seen, found, plan))
        rows = rows_to_do(seen, found, plan) if plan.packed else spread_rows(seen, found)
        probe = probed(engine, plan, rows, stop, looked, bad.append)
    samples = samples_to_do(seen, found, plan, probe) if seen is not None else 0
    shards = len(seen.todo) if seen else 0
    failed = len(bad) + (seen.failed if seen else 0)
    end = end_of(job, plan, failed, samples + (seen.samples if seen else 0))
    return {
        "dry_run": True,
        "store": str(plan.store),
        "model": plan.manifest.model["name"],
        "media": plan.media,
        "kind": plan.kind,
        "tars": len(found.inputs) if plan.packed else None,
        "inputs": sum(reason.count for reason in seen.reasons.values()) if seen else 0,
        "inputs_are_guess": plan.packed,
        "to_encode": samples,
        "already_encoded": seen.reasons["done"].count if seen else 0,
        "texts": len(seen.texts) if seen else 0,
        "shards": shards,
        "bytes": payload(plan, samples, shards, probe),
        "reasons": reasons_of(seen.reasons if seen else NO_REASONS),
        "refused": refused,
        "devices": devices,
        "probe": probe_document(probe, job, plan, samples, devices),
        "left_out": found.left_out,
        "looked_at": looked.count,
        "filtered": looked.filtered,
        "left_out_by": found.left_out_by,
        "failed": failed,
        "error": None if end is None else str(end),
        "exit_code": 0 if end is None else end.exit_code,
    }


def end_of(job: EncodeJob, plan: EncodePlan, failed: int, inputs: int) -> LatentCliError | None:
    """What encode would end with, as far as is known now; None where it would be well.

    `failed` inputs are known to fail, of `inputs` (of tars, samples).
    """
    try:
        check_folder(plan.store, plan.manifest)
        check_failed(failed, inputs, job.max_bad, "Encode would end so too.")
    except (StoreError, TooManyFailures) as error:
        return error
    return None


def differences(plan: EncodePlan) -> list[dict[str, Any]]:
    """The fields in which the store that is there was made otherwise; none where all agree."""
    if is_new(plan.store):
        return []
    there = read_manifest(plan.store).spec
    fields = differing_fields(there, plan.manifest.spec)
    return [{"field": name, "there": a, "now": b} for name, a, b in fields[:SHOWN_FIELDS]]


def reasons_of(reasons: Mapping[str, Reason]) -> dict[str, dict[str, Any]]:
    """Reasons as plain values."""
    return {
        name: {"inputs": reason.count, "why": REASONS[name], "examples": list(reason.examples)}
        for name, reason in reasons.items()
    }


def rows_to_do(seen: Survey, found: FoundMedia, plan: EncodePlan) -> Iterator[InputRow]:
    """Inputs that would be encoded."""
    if seen.frozen is None:
        yield from unit_rows(found.inputs, plan.samples_per_shard)
        return
    listed = (unit for unit in seen.todo if unit < seen.frozen.units)
    yield from itertools.chain.from_iterable(seen.frozen.rows(unit) for unit in listed)
    yield from seen.new


def spread_rows(seen: Survey, found: FoundMedia, count: int = PROBED) -> Iterator[InputRow]:
    """Up to `count` of the inputs that would be encoded, from all over the list.

    The first few of them are from all over it as well.
    """
    frozen = seen.frozen
    listed = [unit for unit in seen.todo if frozen is not None and unit < frozen.units]
    counts = (frozen.count(unit) if frozen is not None else 0 for unit in listed)
    starts = list(itertools.accumulate(counts, initial=0))
    total = starts[-1] + (len(found.inputs) if frozen is None else len(seen.new))
    count = min(count, total)
    for number in sorted(range(count), key=lambda number: number * GOLDEN % 1):
        place = number * total // count
        if frozen is None:
            yield from unit_rows([found.inputs[place]], 1)
        elif place < starts[-1]:
            at = bisect_right(starts, place) - 1
            yield from frozen.rows(listed[at], place - starts[at], 1)
        else:
            yield seen.new[place - starts[-1]]


def samples_to_do(seen: Survey, found: FoundMedia, plan: EncodePlan, probe: Probe | None) -> int:
    """How many pictures, clips or samples would be encoded; of tars a guess by their sizes."""
    if not plan.packed:
        return seen.to_encode
    if probe is None or not probe.input_bytes:
        return 0
    sizes = sum(max(row.size, 0) for row in rows_to_do(seen, found, plan))
    return round(sizes / probe.input_bytes)


def payload(plan: EncodePlan, samples: int, shards: int, probe: Probe | None) -> int | None:
    """Bytes that would be stored; None where nothing says how large the latents are."""
    if not shards:
        return 0
    if probe is None:
        return None
    return round(samples * probe.stored_bytes) + shards * probe.shard_bytes


def devices_of(job: EncodeJob) -> int:
    """Devices that the job would use; of a Ray cluster, those that were asked for by number."""
    if job.devices is None:
        return 1
    if job.engine == "ray":
        return max(int(job.devices), 1) if job.devices.isdecimal() else 1
    return pick_devices(job.devices, devices_to_share(job.device)[0], None)[0]


def probe_document(
    probe: Probe | None, job: EncodeJob, plan: EncodePlan, samples: int, devices: int
) -> dict[str, Any] | None:
    """What the probe found, for the whole job."""
    if probe is None:
        return None
    beside = devices if job.engine == "local" else 1
    rate = probe.rate(pick_workers(job.workers, MANY if plan.packed else samples, beside))
    return {
        "inputs": probe.inputs,
        "images_per_second": round(rate, 3),
        "seconds": round(samples / rate / devices, 1),
        "device_hours": round(samples / rate / 3600, 3),
        "prepare_ms": round(1000 * probe.prepare_seconds, 3),
        "encode_ms": round(1000 * probe.encode_seconds, 3),
    }
