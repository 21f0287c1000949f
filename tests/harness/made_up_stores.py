"""Writes whole stores of made-up latents in no time: real shards and records, and no model.

`write_store` takes samples with all that is known of them, of any latent space; `make_store` makes
up the samples themselves, from their sizes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.types import InputRow, LatentSpec, Member, Row
from latentcli.latents.schema import posterior_text, shard_metadata
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import INPUTS
from latentcli.shards.store.commit import Contents, commit_tar, commit_unit
from latentcli.shards.store.input_list import write_inputs
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.writer import finish, open_for_writing
from latentcli.shards.tar.write import TarSample

SPACES = {
    "sd1": (LatentSpec(4, 8, 8, "sd1", "scaled"), (0.0, 1 / 0.18215)),
    "sdxl": (LatentSpec(4, 8, 8, "sdxl", "scaled"), (0.0, 1 / 0.13025)),
    "svd": (LatentSpec(4, 8, 8, "svd", "scaled"), (0.0, 1 / 0.18215)),
    "sd3": (LatentSpec(16, 8, 8, "sd3", "scaled"), (0.0609, 1 / 1.5305)),
    "flux1": (LatentSpec(16, 8, 8, "flux1", "scaled"), (0.1159, 1 / 0.3611)),
    "flux2": (LatentSpec(128, 16, 16, "flux2", "whitened"), (0.5, 1.5)),
    "wan2.1": (LatentSpec(16, 8, 16, "wan2.1", "whitened"), (-0.1, 2.5)),
    "toy": (LatentSpec(8, 16, 16, "lab/toy", "whitened"), (-0.25, 0.5)),
}
"""Latent spaces, and the mean and deviation that all their channels have here."""

CHANNELS = 4
MEAN = (0.5, -1.0, 0.25, 2.0)
STD = (2.0, 0.5, 1.5, 3.0)
"""Of the space that `make_store` has, where channels differ."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """One sample to write."""

    key: str
    parts: Mapping[str, Tensor]
    """By name: latent, or mean and logvar; and latent_flip, ..."""
    original_size: tuple[int, int] | None = None
    resized_size: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    """Of the picture; made of the key where it is not given."""
    status: str = "ok"


def made(key: str, latent: Tensor, downscale: int = 8, **more: Any) -> Made:
    """A sample [C, h, w] of a picture that had the latent's size."""
    size = latent.shape[-1] * downscale, latent.shape[-2] * downscale
    known = {"original_size": size, "resized_size": size, "crop": (0, 0, *size)}
    return Made(key=key, parts={"latent": latent}, **(known | more))


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def write_store(
    path: Path,
    samples: Sequence[Made],
    space: str = "sdxl",
    state: str | None = None,
    *,
    per_shard: int = 4,
    preprocess: Mapping[str, Any] | None = None,
    latents: Mapping[str, Any] | None = None,
    whitening: tuple[float, float] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Path:
    """A finished store; `space` is one of SPACES, `latents` goes into that part of its spec.

    `whitening` takes the place of the mean and the deviation that all channels of the space have;
    `spec` has more of the store's spec.
    """
    of_space, known = SPACES[space]
    mean, std = whitening or known
    state = state or of_space.state
    written = Written(
        of_space,
        state,
        mean=(mean,) * of_space.channels,
        std=(std,) * of_space.channels,
        latents=latents or {},
        preprocess=preprocess or {"resize": "none", "size": None, "divisor": of_space.size_divisor},
        spec={"write": {"format": "safetensors", "samples_per_shard": per_shard}, **(spec or {})},
    )
    units = [samples[begin : begin + per_shard] for begin in range(0, len(samples), per_shard)]
    return write_units(path, units, written)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a store is to hold."""

    state: str = "whitened"
    tars: bool = False
    flip: bool = False
    captions: bool = True
    channels: int = CHANNELS

    @property
    def parts(self) -> tuple[str, ...]:
        """The tensors of each sample."""
        parts = ("mean", "logvar") if self.state == "moments" else ("latent",)
        return (*parts, *(f"{part}_flip" for part in parts if self.flip))


def make_store(
    store: Path,
    units: Sequence[Sequence[tuple[int, int] | None]],
    kind: Kind = Kind(),
    spec: Mapping[str, Any] | None = None,
) -> Path:
    """A store of these units, each the (h, w) of its latents; None is an input that failed.

    It has a list of its inputs, and latents in bfloat16.
    """
    written = Written(
        LatentSpec(kind.channels, 8, 8, "toy", "whitened"),
        kind.state,
        mean=tuple(MEAN[i % 4] for i in range(kind.channels)),
        std=tuple(STD[i % 4] for i in range(kind.channels)),
        latents={"moments": ["mean", "logvar"], "flip": kind.flip},
        preprocess={"resize": "bucket"},
        spec={"write": {"format": "webdataset" if kind.tars else "safetensors"}, **(spec or {})},
        is_listed=True,
    )
    # Made when they are written: stores whose rates are measured are larger than memory.
    samples = (
        [made_up(kind, unit, index, size) for index, size in enumerate(sizes)]
        for unit, sizes in enumerate(units)
    )
    return write_units(store, samples, written)


def made_up(kind: Kind, unit: int, index: int, size: tuple[int, int] | None) -> Made:
    """The sample of a place in a unit, whose latent is [channels, h, w]."""
    key = key_of(unit, index)
    source = f"/data/{key}.jpg"
    if size is None:
        return Made(key=key, parts={}, source=source, status="failed")
    h, w = size
    return Made(
        key=key,
        parts={part: value(key, part, (kind.channels, h, w)) for part in kind.parts},
        original_size=(16 * w + index, 16 * h + unit),
        resized_size=(8 * w + 6, 8 * h),
        crop=(4, 0, 8 * w + 4, 8 * h),
        fields={"caption": caption_of(key)} if kind.captions else {},
        source=source,
    )


def key_of(unit: int, index: int) -> str:
    """The key of a sample; some are within folders."""
    return f"{unit:04d}/{index:04d}" if unit % 2 else f"{unit:04d}-{index:04d}"


def caption_of(key: str) -> str:
    """Its caption."""
    return f"caption of {key}"


def value(key: str, part: str, shape: Sequence[int]) -> Tensor:
    """A part of a sample, bfloat16, from its name alone."""
    return noise(*shape, seed=zlib.crc32(f"{key}/{part}".encode()), dtype=torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Written:
    """What a store says of all its samples."""

    of_space: LatentSpec
    state: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    latents: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    spec: Mapping[str, Any]
    is_listed: bool = False
    """Whether there is a list of inputs."""

    def manifest(self) -> Manifest:
        """The store's own description."""
        of = self.of_space
        latents = {"state": self.state, "sample": None, "dtype": "bf16", **self.latents}
        sizing = dict(self.preprocess)
        return Manifest(
            tool="latentcli tests",
            spec={"latents": latents, "preprocess": sizing, **self.spec},
            model={"name": "made", "weights_sha256": "0" * 64, "revision": None},
            latent_space=of.space_id(self.state),
            latent={
                "channels": of.channels,
                "downscale": of.downscale,
                "size_divisor": of.size_divisor,
                "state": of.state,
                "whitening": {"mean": list(self.mean), "std": list(self.std)},
            },
            preprocessing=sizing,
        )


def write_units(path: Path, units: Iterable[Sequence[Made]], written: Written) -> Path:
    """A finished store of these units."""
    manifest = written.manifest()
    with no_waiting_for_disks():
        open_for_writing(path, manifest)
        rows = [write_unit(path, unit, own, written, manifest) for unit, own in enumerate(units)]
        if written.is_listed:
            inputs = (
                InputRow(row.key, row.source, unit, 100, 7)
                for unit, own in enumerate(rows)
                for row in own
            )
            write_inputs(path / INPUTS, inputs)
        finish(path, manifest, range(len(rows)), ChannelSums())
    return path


def write_unit(
    path: Path, unit: int, samples: Sequence[Made], written: Written, manifest: Manifest
) -> list[Row]:
    """One shard, its fields and its record; the rows of its inputs."""
    sums, rows = ChannelSums(), [row_of(one) for one in samples]
    ok = [one for one in samples if one.status == "ok"]
    for one in ok:
        sums.add(next(iter(one.parts.values()))[None])
    metadata = shard_metadata(
        written.of_space,
        state=written.state,
        posterior=posterior_text(written.state),
        model="made",
        model_revision="",
        weights_sha256="0" * 64,
        spec_hash=manifest.spec_hash,
        unit=unit,
    )
    contents = Contents(
        spec_hash=manifest.spec_hash, rows=rows, channels=sums.to_json() if sums.count else None
    )
    if manifest.format == "webdataset":
        commit_tar(path, unit, [packed(one, metadata) for one in ok], contents)
        return rows
    named = {f"{one.key}/{part}": tensor for one in ok for part, tensor in one.parts.items()}
    contents = replace(contents, fields={one.key: one.fields for one in ok if one.fields})
    commit_unit(path, unit, named, metadata, contents)
    return rows


def row_of(one: Made) -> Row:
    """What the record says of a sample, or of an input that has no latent."""
    is_ok = one.status == "ok"
    return Row(
        key=one.key,
        source=one.source or f"/pictures/{one.key}.png",
        status=one.status,
        stage=None if is_ok else "decode_image",
        error=None if is_ok else "it is cut short",
        original_size=one.original_size,
        resized_size=one.resized_size,
        crop=one.crop,
        latent_shape=tuple(next(iter(one.parts.values())).shape) if is_ok else None,
    )


def packed(one: Made, metadata: Mapping[str, str]) -> TarSample:
    """A sample of a tar, with its caption as a text."""
    members = [Member("txt", one.fields["caption"].encode())] if one.fields else []
    return TarSample(one.key, one.parts, {**metadata, "key": one.key}, {"key": one.key}, members)


@contextmanager
def no_waiting_for_disks() -> Iterator[None]:
    """Takes os.fsync away, which a store that lives for one test can do without."""
    before, os.fsync = os.fsync, lambda _: None
    try:
        yield
    finally:
        os.fsync = before
