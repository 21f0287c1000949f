"""Verifies that a store's files are what was written, and its latents what the inputs give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import SampleError, UsageError, WeightsError
from latentcli.core.store_dtype import rounded
from latentcli.core.types import QUANTISED_DTYPES, Row
from latentcli.images.buckets import described_buckets
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import Engine, load_engine
from latentcli.jobs.inference.split_on_oom import SplitOnOom
from latentcli.jobs.loader.batches import batches
from latentcli.jobs.loader.clip_frames import ClipRecipe, frame_key, open_frames, pixels_of
from latentcli.jobs.loader.packed_reader import clip_file
from latentcli.jobs.loader.prepare import Recipe, prepare_sample
from latentcli.jobs.loader.reader import Reader
from latentcli.jobs.loader.readers import READERS, is_lasting
from latentcli.jobs.loader.sizes import stored_gaps
from latentcli.jobs.runtime.meter import IMAGE_STAGES, Meter
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.jobs.store.sources import state_of_sources
from latentcli.latents.schema import store_dtype_of, stored_parts
from latentcli.shards.layout import record_path
from latentcli.shards.sources.digests import digest_of
from latentcli.shards.storage.hub import is_of_hub, pinned
from latentcli.shards.storage.paths import AnyPath, path_of, reading
from latentcli.shards.store.commit import drop_record
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.manifest import Manifest, read_manifest, write_manifest
from latentcli.shards.store.verify import Problem, verify_shards

TOLERANCES = {"fp32": 0.02, "bf16": 0.08}
"""Largest accepted RMS difference of a latent encoded again, relative to its RMS, by dtype.

Storing in bfloat16 rounds by up to 0.4%; another batch size, device or thread count adds the
network's own rounding. Pictures that a GPU decoded are decoded here by the CPU, and get the larger
one."""

CHECKED_FRAMES = 8
"""Frames at the start of a clip that are encoded again; fewer where they are large."""


def run_verify(job: VerifyJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """The --json document of `verify`; StoreError where there is no store.

    With `repair` it is the store's only writer meanwhile, and takes damaged units back.
    """
    store = path_of(job.store)
    if job.repair and is_of_hub(store):
        raise UsageError(
            "--repair cannot change a store on the Hub: repair the store that was pushed, and"
            " push it again."
        )
    with reading(store):
        store = pinned(store)
    manifest = read_manifest(store)
    repaired: list[int] = []
    reporter.status("Reading the shards")
    with StoreLock(store) if job.repair else nullcontext():
        found = list(verify_shards(store, stored_parts(manifest.spec)))
        if job.repair:
            repaired = take_back(store, found)
    problems: list[dict[str, Any]] = [
        {"unit": p.unit, "key": p.key, "kind": p.kind, "problem": p.what}
        | {"repairable": is_repairable(p)}
        for p in found
    ]
    again = None
    sources = state_of_sources(store, manifest, changes=True) if not problems else None
    if job.samples and not problems:
        try:
            again = encode_again(job, manifest, reporter)
        except WeightsError as error:
            raise WeightsError(
                f"The files are sound, but no input was encoded again. {error} Or skip this check"
                " with --samples 0."
            ) from error
        problems += again["problems"]
    return {
        "store": str(store),
        "shards": manifest.totals.shards,
        "inputs": manifest.totals.inputs,
        "encoded": manifest.totals.encoded,
        "failed": manifest.totals.failed,
        "filtered": manifest.totals.filtered,
        "problems": problems,
        "repaired": repaired,
        "reencoded": again,
        "sources": None if sources is None else sources.to_json(),
        "ok": not problems,
    }


def is_repairable(problem: Problem) -> bool:
    """Whether encoding the unit again helps: a key that two units have is in the list itself."""
    return problem.unit is not None and problem.kind != "duplicate"


def take_back(store: AnyPath, problems: Iterable[Problem]) -> list[int]:
    """Drops the commit records of damaged units; these units, ascending.

    From then on the store is unfinished, and says so. Call it under the store's lock.
    """
    damaged = {p.unit for p in problems if p.unit is not None and is_repairable(p)}
    units = sorted(unit for unit in damaged if record_path(store, unit).exists())
    if units:
        # Read anew: before the lock was taken, a job may have been at work.
        write_manifest(store, replace(read_manifest(store), status="running"))
    for unit in units:
        drop_record(store, unit)
    return units


def encode_again(job: VerifyJob, manifest: Manifest, reporter: Reporter) -> dict[str, Any]:
    """Encodes inputs spread over the store once more and compares them with what is stored.

    Inputs that are gone or changed say nothing of the store, and are only counted.
    """
    spec = manifest.spec
    reporter.status("Loading the model")
    engine = load_engine(
        manifest.model["name"],
        weights=job.weights,
        revision=None if job.weights else manifest.model["revision"],
        device=job.device,
        dtype=spec["encode"]["dtype"],
        max_memory=spec["encode"].get("max_memory"),
    )
    check_weights(engine, manifest)
    store = LatentStore(job.store)
    encoded = (row for row in store.rows() if row.status == "ok")
    rows = [row for row in spread(encoded, len(store), job.samples) if is_lasting(row.source)]
    is_clips = "clips" in spec
    meter = Meter("verify", len(rows), reporter.progress, noun="clips" if is_clips else "images")
    meter.begin()
    tolerance = tolerance_of(spec, engine.dtype)
    worst, problems, gone, changed = 0.0, [], 0, 0
    prepared = (clips if is_clips else pictures)(rows, spec)
    for row, (now, pixels) in zip(rows, prepared, strict=True):
        if pixels is None:
            gone += 1
            meter.advance(1, 1)
            continue
        if now.sha256 not in (None, row.sha256):
            changed += 1
            meter.advance(1, 1)
            continue
        difference = compare(engine, spec, row.key, pixels, store)
        worst = max(worst, difference)
        if difference > tolerance:
            problems.append(
                problem(row, f"encoded again, it differs by {difference:.1%} of its RMS")
            )
        meter.advance(1)
    return {
        "samples": len(rows),
        "unreadable": gone,
        "changed": changed,
        "max_relative_rms": round(worst, 6),
        "tolerance": tolerance,
        "problems": problems,
    }


def tolerance_of(spec: Any, dtype: str) -> float:
    """The largest difference that says nothing bad of a store."""
    return max(TOLERANCES.values()) if "on" in spec["decode_image"] else TOLERANCES[dtype]


def check_weights(engine: Engine, manifest: Manifest) -> None:
    """WeightsError where the weights at hand are not those that made the store."""
    made, here = manifest.model["weights_sha256"], engine.info.weights_sha256
    if made != here:
        raise WeightsError(
            f"The store was made with {manifest.model['name']} weights {made}, but the weights"
            f" found here are {here}. Give the same file with --weights."
        )


def spread(rows: Iterable[Row], total: int, count: int) -> list[Row]:
    """`count` of the `total` rows, evenly over them, the first and the last among them."""
    step = max(total - 1, 0) / max(count - 1, 1)
    chosen = {round(i * step) for i in range(count)}
    return [row for index, row in enumerate(rows) if index in chosen]


def preprocessing(spec: Any) -> PreprocessSpec:
    """How the store's pictures were brought to size."""
    fields = spec["preprocess"]
    size = tuple(fields["size"]) if fields["size"] else None
    buckets = described_buckets(fields["buckets"]) if "buckets" in fields else None
    filter = fields["filter"] or "lanczos"
    return PreprocessSpec(size, fields["divisor"], filter, buckets, stored_gaps(spec))


def pictures(rows: Sequence[Row], spec: Any) -> Iterator[tuple[Row, Tensor | None]]:
    """The rows' inputs [1, 3, H, W], prepared as the store's spec says; None where they fail."""
    policy = DecodePolicy(spec["decode_image"]["alpha"], spec["decode_image"]["max_pixels"])
    recipe = Recipe(policy, preprocessing(spec))
    reader = reader_of(spec, len(rows))
    for row in rows:
        sample = reader.again(row)
        now, pixels = prepare_sample(sample, recipe, dict.fromkeys(IMAGE_STAGES, 0.0))
        yield now, None if pixels is None else pixels[None]


def clips(rows: Sequence[Row], spec: Any) -> Iterator[tuple[Row, Tensor | None]]:
    """The first frames of the rows' clips, [n, 3, H, W]."""
    fields = spec["clips"]
    most = min(fields["frames"] or CHECKED_FRAMES, CHECKED_FRAMES)
    limit = spec["decode_image"]["max_pixels"]
    recipe = ClipRecipe(limit, preprocessing(spec), fields["stride"], most)
    reader = reader_of(spec, len(rows))
    for row in rows:
        try:
            with (
                file_of(reader, row) as path,
                open_frames(path, recipe, Meter("verify", most)) as clip,
            ):
                groups = batches(clip.frames, pixels_of, most, batch_elements(most))
                frames = [frame.pixels for frame in next(groups, [])]
                row = replace(row, sha256=digest_of(path))
        except SampleError as error:
            yield replace(row, error=error.reason), None
            continue
        if frames:
            yield row, torch.stack(frames)
        else:
            yield replace(row, error="it has no frame"), None


@contextmanager
def file_of(reader: Reader, row: Row) -> Iterator[str]:
    """The path of a clip; one in a packed input lies in a temporary file for the block."""
    if not reader.packed:
        yield row.source
        return
    sample = reader.again(row)
    if sample.data is None:
        raise SampleError(sample.row.stage or "read", sample.row.error or "")
    with clip_file(sample.data, row.source) as path:
        yield path


def reader_of(spec: Any, samples: int) -> Reader:
    """What reads the inputs of a store."""
    kind = spec.get("kind", "tars" if spec.get("tars") else "files")
    return READERS[kind](frozenset(), Meter("verify", samples))


def compare(engine: Engine, spec: Any, key: str, pixels: Tensor, store: LatentStore) -> float:
    """Largest RMS difference of a part, relative to the stored part's RMS."""
    latents, is_clip = spec["latents"], "clips" in spec
    keys = [frame_key(key, i) for i in range(len(pixels))] if is_clip else [key]
    encode = partial(
        encode_batch,
        engine,
        state=latents["state"],
        sample=latents["sample"],
        class_token=latents.get("class_token", False),
        flip=latents.get("flip", False),
    )
    # A clip comes with all the frames that the store has of it.
    fresh = SplitOnOom(room=engine.rooms.get("encode")).encode(encode, pixels, keys)
    if is_clip:
        held = {name: store.frames(key, 0, len(pixels), name) for name in fresh}
    else:
        held = {name: part[None] for name, part in store.parts(key).items()}
    if (dtype := store_dtype_of(spec)) in QUANTISED_DTYPES:
        # Both sides are rounded, so that a coarse dtype leaves no more than the network's own.
        fresh = {name: rounded(name, part, dtype) for name, part in fresh.items()}
    return max(relative_rms(part, held[name].float()) for name, part in fresh.items())


def relative_rms(fresh: Tensor, stored: Tensor) -> float:
    """RMS of the difference over RMS of `stored`; 1 where shapes differ."""
    if fresh.shape != stored.shape:
        return 1.0
    scale = stored.double().square().mean().clamp_min(1e-12)
    return float(torch.sqrt((fresh.double() - stored.double()).square().mean() / scale))


def problem(row: Row, what: str) -> dict[str, Any]:
    """One entry of the problems list."""
    text = f"{row.key}: {what}"
    return {"unit": None, "key": row.key, "kind": "latent", "problem": text, "repairable": False}
