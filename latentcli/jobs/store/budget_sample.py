"""Samples pictures and their latents evenly, from a store or from sources to be encoded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.core.types import NORMAL_STATES, Row
from latentcli.images.codec import DecodePolicy
from latentcli.jobs.config import BUNDLED_MODEL
from latentcli.jobs.inference.capabilities import refuse_decoder, refuse_encoder
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import Engine, load_engine
from latentcli.jobs.loader.find_media import SUFFIXES, FoundMedia, media_of
from latentcli.jobs.loader.prepare import Recipe, prepare_sample
from latentcli.jobs.loader.readers import READERS, is_lasting
from latentcli.jobs.loader.sizes import preprocess_spec
from latentcli.jobs.loader.table_reader import absolute_root
from latentcli.jobs.runtime.meter import IMAGE_STAGES, Meter
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.budget_config import BudgetJob, intake_of
from latentcli.jobs.store.latent_store import LatentStore, latent_of
from latentcli.jobs.store.verify import check_weights, pictures, spread
from latentcli.shards.layout import INPUTS
from latentcli.shards.sources.find_inputs import unit_rows
from latentcli.shards.store.input_list import InputList


@dataclass(frozen=True, slots=True)
class Sampled:
    """One picture of the sample."""

    key: str
    parts: Mapping[str, Tensor]
    """What is stored of it, each [1, ...], before it is rounded."""
    pixels: Tensor | None
    """uint8 [1, 3, H, W]; None where the picture is not at hand."""
    source_bytes: int | None = None
    """Of its file, or of its member in a tar; None where that is not known."""


def store_engine(job: BudgetJob, store: LatentStore) -> Engine:
    """The model of a store, or another one of its latent space; else a UsageError."""
    manifest = store.manifest
    assert manifest is not None
    engine = load_engine(
        job.model or manifest.model["name"],
        weights=job.weights,
        revision=job.revision or (None if job.weights or job.model else manifest.model["revision"]),
        device=job.device,
        dtype=job.dtype,
    )
    if job.model is None:
        check_weights(engine, manifest)
    space = manifest.latent_space.partition("#")[0]
    if engine.model.spec.space != space:
        raise UsageError(
            f"{store.path} holds latents of {space}, but {engine.info.name} is for"
            f" {engine.model.spec.space}. Leave --model out, or give one of the store's space."
        )
    refuse_encoder(engine)
    return engine


def of_store(store: LatentStore, engine: Engine, count: int) -> Iterator[Sampled]:
    """Pictures of a store encoded again; where none is at hand, the latents that it holds."""
    assert store.manifest is not None
    spec, total = store.manifest.spec, len(store)
    encoded = (row for row in store.rows() if row.status == "ok")
    rows = spread(encoded, total, count)
    there = [row for row in rows if is_lasting(row.source)] if engine.model.can_encode else []
    found = 0
    for row, (now, pixels) in zip(there, pictures(there, spec), strict=True):
        if pixels is not None and now.sha256 in (None, row.sha256):
            found += 1
            yield encoded_again(engine, row.key, pixels, spec["latents"])
    if not found:
        yield from (as_stored(store, row) for row in rows)


def encoded_again(
    engine: Engine,
    key: str,
    pixels: Tensor,
    latents: Mapping[str, Any],
    source_bytes: int | None = None,
) -> Sampled:
    """A picture with what a spec's `latents` store of it."""
    parts = encode_batch(
        *(engine, pixels, [key], latents["state"], latents["sample"]),
        class_token=latents.get("class_token", False),
        flip=latents.get("flip", False),
    )
    return Sampled(key, parts, pixels, source_bytes)


def as_stored(store: LatentStore, row: Row) -> Sampled:
    """A latent of a store whose picture is gone."""
    return Sampled(row.key, {name: part[None] for name, part in store.parts(row.key).items()}, None)


def sources_engine(job: BudgetJob) -> Engine:
    """The model of pictures that are not encoded yet; UsageError where it lacks a half."""
    engine = load_engine(
        job.model or BUNDLED_MODEL,
        weights=job.weights,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
    )
    refuse_decoder(engine)
    refuse_encoder(engine)
    return engine


def of_sources(job: BudgetJob, engine: Engine, reporter: Reporter) -> Iterator[Sampled]:
    """Pictures from all over the sources, as encode would store them with its defaults."""
    intake = intake_of(job)
    found = media_of(intake, reporter)
    recipe = Recipe(
        DecodePolicy(job.alpha, job.max_pixels),
        preprocess_spec(intake, engine.model.spec.size_divisor),
    )
    latents = {"state": engine.model.spec.state, "sample": None}
    for row, pixels, size in chosen_pictures(job, found, recipe):
        yield encoded_again(engine, row.key, pixels, latents, size)


def chosen_pictures(
    job: BudgetJob, found: FoundMedia, recipe: Recipe
) -> Iterator[tuple[Row, Tensor, int]]:
    """(row, pixels [1, 3, H, W], bytes of the file) of up to so many pictures that can be read.

    Of tars and tables a few samples each, from the beginning of some.
    """
    reader = READERS[found.kind](
        *(SUFFIXES["images"], Meter("budget", job.samples)),
        image_field=job.image_field,
        image_root=absolute_root(job.image_root),
    )
    total = len(found.inputs)
    inputs = min(job.samples, total)
    each = -(-job.samples // inputs) if reader.packed else 1
    seconds = dict.fromkeys(IMAGE_STAGES, 0.0)
    for number in range(inputs):
        (row,) = unit_rows([found.inputs[number * total // inputs]], 1)
        if not is_lasting(row.source):
            continue
        for raw in itertools.islice(reader.samples(row), each):
            size = len(raw.data) if raw.data is not None and reader.packed else max(row.size, 0)
            now, pixels = prepare_sample(raw, recipe, seconds)
            if pixels is not None:
                yield now, pixels[None], size


def source_bytes(store: LatentStore) -> float | None:
    """Bytes of the inputs for each latent of a store; None where the list does not say them."""
    if not len(store) or not (store.path / INPUTS).exists():
        return None
    inputs = InputList.open(store.path / INPUTS)
    sizes = [row.size for unit in inputs.numbers for row in inputs.rows(unit)]
    return sum(sizes) / len(store) if sizes and min(sizes) >= 0 else None


@torch.inference_mode()
def own_latent(engine: Engine, parts: Mapping[str, Tensor], state: str) -> Tensor:
    """The latent [1, C, h, w] among parts, of moments the mode, as the model's decode takes it."""
    latent = latent_of(parts).float()
    return latent if state in NORMAL_STATES else engine.model.whiten(latent)
