"""Measures what latents take, and how well they decode, in each dtype that a store can have."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.core.json_values import rounded_value
from latentcli.core.store_dtype import held, stored_bytes, stored_tensors, unsound
from latentcli.core.types import STORE_DTYPES
from latentcli.jobs.inference.engine import Engine, decode_batch
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import stop_on_signals
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.jobs.store.budget_config import BudgetJob
from latentcli.jobs.store.budget_sample import (
    Sampled,
    of_sources,
    of_store,
    own_latent,
    source_bytes,
    sources_engine,
    store_engine,
)
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.latents.schema import store_dtype_of, tensor_name
from latentcli.metrics.psnr import psnr
from latentcli.shards.layout import MANIFEST
from latentcli.shards.storage.paths import path_of
from latentcli.shards.tensors.write import safetensors_parts

MILLION = 1_000_000
USUAL = "bf16"
"""What the others are compared with."""
Shape = tuple[int, ...]


@dataclass(slots=True)
class Choice:
    """What was measured of one dtype."""

    figures: list[float] = field(default_factory=list)
    """dB, picture by picture."""
    payload: list[int] = field(default_factory=list)
    """Bytes of the values and scales, picture by picture."""
    names: list[int] = field(default_factory=list)
    """Bytes of the list of tensors, picture by picture."""
    unfit: int = 0
    """Pictures with a value that the dtype cannot hold."""


@dataclass(slots=True)
class Measured:
    """What was measured of a sample."""

    choices: dict[str, Choice] = field(
        default_factory=lambda: {dtype: Choice() for dtype in STORE_DTYPES}
    )
    shapes: list[dict[str, Shape]] = field(default_factory=list)
    """Of the parts [...] of each picture."""
    sources: list[int] = field(default_factory=list)
    """Bytes of the files, where they are known."""
    against: set[str] = field(default_factory=set)
    """pictures or latents."""


def run_budget(job: BudgetJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """The --json document of `budget`.

    UsageError for clips, and for a model that cannot do it; LatentCliError where no picture can be
    read. Nothing is written.
    """
    path = path_of(job.sources[0])
    is_store = len(job.sources) == 1 and (path / MANIFEST).is_file()
    reporter.status("Loading the model")
    with stop_on_signals("Nothing was kept.") as stop:
        if is_store:
            store = LatentStore(path)
            refuse_clips(store)
            engine = store_engine(job, store)
            samples = of_store(store, engine, job.samples)
            found = measure(engine, samples, store.state, job, reporter, stop.check)
            bytes_of = bytes_in_store(store, found)
            source = source_bytes(store)
            return document(job, engine, found, bytes_of, source, store_dtype_of(spec_of(store)))
        engine = sources_engine(job)
        samples = of_sources(job, engine, reporter)
        found = measure(engine, samples, engine.model.spec.state, job, reporter, stop.check)
    known = found.sources and min(found.sources) > 0
    source = sum(found.sources) / len(found.sources) if known else None
    return document(job, engine, found, bytes_in_sample(found), source, None)


def spec_of(store: LatentStore) -> Mapping[str, Any]:
    """The resolved job that made a store."""
    assert store.manifest is not None
    return store.manifest.spec


def refuse_clips(store: LatentStore) -> None:
    """UsageError for a store of clips."""
    if "clips" in spec_of(store):
        raise UsageError(
            f"{store.path} holds clips, and budget measures only pictures. Save some frames of the"
            " clips as pictures, and give it their folder with --model."
        )


def measure(
    engine: Engine,
    samples: Iterable[Sampled],
    state: str,
    job: BudgetJob,
    reporter: Reporter,
    check: Any,
) -> Measured:
    """Rounds, decodes and compares each sample in every dtype; LatentCliError where there is none.

    `check` is called before each, and may raise.
    """
    found = Measured()
    meter = Meter("budget", job.samples, reporter.progress)
    meter.begin()
    for sample in samples:
        check()
        measure_one(engine, sample, state, found)
        meter.advance(1)
    if not found.shapes:
        raise LatentCliError(
            f"None of the pictures that were looked at in {', '.join(job.sources)} can be read."
        )
    return found


def measure_one(engine: Engine, sample: Sampled, state: str, found: Measured) -> None:
    """What one picture's latent takes in each dtype, and how near it decodes."""
    settings, key = DecodeSettings(), [sample.key]
    wanted = sample.pixels
    if wanted is None:
        wanted = decode_batch(engine, own_latent(engine, sample.parts, state), key, settings)
    found.against.add("latents" if sample.pixels is None else "pictures")
    found.shapes.append({part: tuple(values.shape[1:]) for part, values in sample.parts.items()})
    if sample.source_bytes is not None:
        found.sources.append(sample.source_bytes)
    for dtype, choice in found.choices.items():
        tensors = {
            part: stored_tensors(part, values, dtype) for part, values in sample.parts.items()
        }
        flat = {
            tensor_name(sample.key, name): tensor[0]
            for part in tensors.values()
            for name, tensor in part.items()
        }
        payload = sum(tensor.numel() * tensor.element_size() for tensor in flat.values())
        choice.payload.append(payload)
        choice.names.append(safetensors_parts(flat, {})[0] - payload)
        if any(unsound(p, sample.parts[p], tensors[p]).any() for p in tensors):
            choice.unfit += 1
            continue
        parts = {part: held(own)[part] for part, own in tensors.items()}
        decoded = decode_batch(engine, own_latent(engine, parts, state), key, settings)
        choice.figures.append(psnr(wanted, decoded).item())


def bytes_in_sample(found: Measured) -> dict[str, float]:
    """Mean bytes of a picture of the sample in each dtype."""
    count = len(found.shapes)
    return {
        dtype: (sum(choice.payload) + sum(choice.names)) / count
        for dtype, choice in found.choices.items()
    }


def bytes_in_store(store: LatentStore, found: Measured) -> dict[str, float]:
    """Mean bytes of a sample of the store in each dtype, over the sizes of all that it holds.

    What is not latents, such as the names of tensors and of a tar its other members, is taken from
    the store's own shards.
    """
    assert store.manifest is not None
    totals, own = store.manifest.totals, store_dtype_of(store.manifest.spec)
    sizes = Counter(row.latent_shape for row in store.rows() if row.status == "ok")
    values = {d: mean_payload(sizes, found.shapes[0], d) for d in found.choices}
    names = {d: sum(choice.names) / len(choice.names) for d, choice in found.choices.items()}
    beside = totals.bytes / max(totals.encoded, 1) - values[own] - names[own]
    if totals.encoded != sizes.total():  # a job is at work, or some units are gone
        beside = 0.0
    return {d: values[d] + names[d] + beside for d in found.choices}


def mean_payload(sizes: Counter[Shape | None], shapes: Mapping[str, Shape], dtype: str) -> float:
    """Mean bytes of the values and scales of latents of these sizes, with `shapes` of a sample."""
    like_latent = next(iter(shapes.values()))
    total = 0
    for size, count in sizes.items():
        total += count * sum(
            stored_bytes(part, size or shape if shape == like_latent else shape, dtype)
            for part, shape in shapes.items()
        )
    return total / max(sizes.total(), 1)


def document(
    job: BudgetJob,
    engine: Engine,
    found: Measured,
    bytes_of: Mapping[str, float],
    source: float | None,
    stored_in: str | None,
) -> dict[str, Any]:
    """The figures as plain values; of infinite ones, None."""
    usual = found.choices[USUAL].figures
    rows = []
    for dtype, choice in found.choices.items():
        rows.append(
            {
                "store_dtype": dtype,
                "bytes": round(bytes_of[dtype]),
                "share": round(bytes_of[dtype] / bytes_of[USUAL], 4),
                "million_bytes": round(bytes_of[dtype] * MILLION),
                "unfit": choice.unfit,
                **figures_of(choice, usual),
            }
        )
    return {
        "sources": list(job.sources),
        "stored_in": stored_in,
        "model": engine.info.name,
        "samples": len(found.shapes),
        "against": sorted(found.against)[-1],
        "source_bytes": None if source is None else round(source),
        "source_million_bytes": None if source is None else round(source * MILLION),
        "latent_sizes": dict(Counter("x".join(map(str, first(s))) for s in found.shapes)),
        "rows": rows,
    }


def first(shapes: Mapping[str, Shape]) -> Shape:
    """The latent's own shape."""
    return next(iter(shapes.values()))


def figures_of(choice: Choice, usual: Sequence[float]) -> dict[str, Any]:
    """PSNR of a dtype, and what it loses; None where a picture does not fit into it."""
    if choice.unfit or not choice.figures:
        return {"psnr": {"mean": None, "min": None}, "delta": None, "worst_delta": None}
    values = choice.figures
    pairs = zip(values, usual, strict=len(values) == len(usual))
    lost = [a - b for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    return {
        "psnr": {
            "mean": rounded_value(sum(values) / len(values), 4),
            "min": rounded_value(min(values), 4),
        },
        "delta": round(sum(lost) / len(lost), 4) if lost else None,
        "worst_delta": round(min(lost), 4) if lost else None,
    }
