"""Measures what an input of an encode job costs in time and bytes, from a few of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from latentcli.core.types import FILTERED, InputRow, Member, Row
from latentcli.jobs.encode.plan import EncodePlan, jpegs_of
from latentcli.jobs.encode.sinks import unit_metadata
from latentcli.jobs.encode.unit import EncodedUnit, samples_of
from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.jpeg_decoder import outline
from latentcli.jobs.inference.split_on_oom import SplitOnOom
from latentcli.jobs.loader.batches import batches
from latentcli.jobs.loader.prepare import Prepared, RawSample
from latentcli.jobs.loader.readers import prepared_samples
from latentcli.jobs.runtime.meter import Meter, ignore
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.latents.pack import pack_stored
from latentcli.latents.schema import split_name
from latentcli.shards.store.roots import NO_ROOTS
from latentcli.shards.tar.write import END, sample_chunks
from latentcli.shards.tensors.spool import Spilling
from latentcli.shards.tensors.write import safetensors_parts

PROBED = 64
"""Inputs that are looked at, at most."""
PROBED_BYTES = 256 * 2**20
"""Pixels after which no further ones are."""
PROBE_SECONDS = 5.0
"""Seconds after which no further ones are prepared, or encoded."""


@dataclass(slots=True)
class Looked:
    """How many inputs a probe looked at."""

    count: int = 0
    filtered: int = 0
    """That the filters leave out."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What an input costs on average; one that fails costs less."""

    inputs: int
    """That were encoded."""
    prepare_seconds: float
    """Of one process."""
    encode_seconds: float
    """Of the device."""
    input_bytes: float
    """Of tars, what a sample takes in them; 0 for files."""
    stored_bytes: float
    shard_bytes: int
    """What a shard takes without any sample."""

    def rate(self, workers: int) -> float:
        """Inputs a second of one device, whose image stages have so many processes."""
        if workers == 0:
            return 1 / (self.prepare_seconds + self.encode_seconds)
        return 1 / max(self.prepare_seconds / workers, self.encode_seconds, 1e-9)


def probed(
    engine: Engine,
    plan: EncodePlan,
    rows: Iterable[InputRow],
    stop: StopRequest,
    looked: Looked,
    failed: Callable[[Row], object] = ignore,
) -> Probe | None:
    """Prepares and encodes the first of these inputs; None where none of them can be encoded.

    `looked` is told how many they are, and `failed` is shown the rows of those that cannot be
    read.
    """
    reader = plan.reader(Meter("plan", None), stop.check)
    samples = prepared_samples(reader, rows, plan.recipe)
    start = time.perf_counter()
    taken = list(some(samples, start + PROBE_SECONDS, stop))
    prepared = [ready for _, ready in taken]
    others = dict[str, tuple[Member, ...]]()
    if plan.manifest.format == "webdataset":
        others = {raw.row.key: raw.others for raw, _ in taken}
    preparing = time.perf_counter() - start
    looked.count = len(prepared)
    looked.filtered = sum(row.status == FILTERED for row, _ in prepared)
    pictures = [(row, pixels) for row, pixels in prepared if pixels is not None]
    for row, pixels in prepared:
        if pixels is None and row.status != FILTERED:
            failed(row)
    seconds, tensors = encode_probe(engine, plan, pictures, stop) if pictures else (0.0, {})
    done = {split_name(name)[0] for name in tensors}
    if not done:
        return None
    rows_done = [row for row, _ in pictures if row.key in done]
    stored, empty = stored_bytes(engine, plan, rows_done, tensors, others)
    share = len(pictures) / len(prepared) / len(done)
    return Probe(
        inputs=len(done),
        prepare_seconds=preparing / len(prepared),
        encode_seconds=seconds * share,
        input_bytes=reader.taken / len(prepared),
        stored_bytes=stored * share,
        shard_bytes=empty,
    )


def some(
    samples: Iterable[tuple[RawSample, Prepared]], end: float, stop: StopRequest
) -> Iterator[tuple[RawSample, Prepared]]:
    """Samples until there are enough of them, or a time is past; one at least."""
    held = 0
    for number, (raw, (row, pixels)) in enumerate(samples, 1):
        stop.check()
        yield replace(raw, data=None), (row, pixels)
        held += 0 if pixels is None else pixels.numel()
        if number == PROBED or held > PROBED_BYTES or time.perf_counter() > end:
            return


def encode_probe(
    engine: Engine, plan: EncodePlan, pictures: Sequence[tuple[Row, Tensor]], stop: StopRequest
) -> tuple[float, dict[str, Tensor]]:
    """(seconds to encode them, what is stored of them); the first batch is done twice, to warm up.

    Where time runs out, the seconds are those of the ones that were encoded.
    """
    latents = plan.manifest.spec["latents"]
    encode = partial(
        encode_batch,
        engine,
        state=plan.state,
        sample=latents["sample"],
        class_token=latents.get("class_token", False),
        flip=latents.get("flip", False),
        store_dtype=plan.store_dtype,
    )
    size = plan.batch_size
    groups = list(batches(pictures, lambda pair: outline(*pair), size, batch_elements(size)))
    jpegs = jpegs_of(engine, plan)
    split_on_oom = SplitOnOom(room=engine.rooms.get("encode"))
    seconds, tensors = 0.0, dict[str, Tensor]()
    end = time.perf_counter() + PROBE_SECONDS
    for number, group in enumerate([groups[0], *groups]):
        stop.check()
        rows = [row for row, _ in group]
        keys = [row.key for row in rows]
        start = time.perf_counter()
        try:
            pixels = [picture for _, picture in group]
            whole = jpegs.pixels(rows, pixels) if jpegs else torch.stack(pixels)
            parts = split_on_oom.encode(encode, whole, keys)
        except torch.OutOfMemoryError:  # rows that fail in the job
            continue
        if number:
            seconds += time.perf_counter() - start
            tensors |= pack_stored(keys, parts).tensors
            if time.perf_counter() > end:
                break
    return seconds, tensors


def stored_bytes(
    engine: Engine,
    plan: EncodePlan,
    rows: Sequence[Row],
    tensors: Mapping[str, Tensor],
    others: Mapping[str, tuple[Member, ...]],
) -> tuple[int, int]:
    """(bytes that a shard has for these samples, bytes that it has without any)."""
    metadata = unit_metadata(engine, plan, plan.manifest, 0)
    if plan.manifest.format != "webdataset":
        empty, _ = safetensors_parts({}, metadata)
        size, _ = safetensors_parts(tensors, metadata)
        return size - empty, empty
    shapes = {split_name(name)[0]: tuple(tensor.shape) for name, tensor in tensors.items()}
    unit = EncodedUnit(0, Spilling(None, "probe"), tensors=dict(tensors), others=dict(others))
    shaped = [replace(row, latent_shape=shapes[row.key]) for row in rows]
    samples = samples_of(unit, shaped, metadata, NO_ROOTS)
    chunks = (chunk for sample in samples for chunk in sample_chunks(sample))
    return sum(memoryview(chunk).nbytes for chunk in chunks), len(END)
