"""Writes stores of made-up latents in no time: real shards and records, and no model."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.types import InputRow, Member, Row
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import INPUTS, SHARDS
from latentcli.shards.store.commit import Contents, commit_tar, commit_unit
from latentcli.shards.store.input_list import write_inputs
from latentcli.shards.store.manifest import Manifest, write_manifest
from latentcli.shards.store.writer import finish
from latentcli.shards.tar.write import TarSample

CHANNELS = 4
MEAN = (0.5, -1.0, 0.25, 2.0)
STD = (2.0, 0.5, 1.5, 3.0)


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


def key_of(unit: int, index: int) -> str:
    """The key of a sample; some are within folders."""
    return f"{unit:04d}/{index:04d}" if unit % 2 else f"{unit:04d}-{index:04d}"


def caption_of(key: str) -> str:
    """Its caption."""
    return f"caption of {key}"


def value(key: str, part: str, shape: Sequence[int]) -> Tensor:
    """A part of a sample, bfloat16, from its name alone."""
    seed = zlib.crc32(f"{key}/{part}".encode())
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)).bfloat16()


def make_store(
    store: Path,
    units: Sequence[Sequence[tuple[int, int] | None]],
    kind: Kind = Kind(),
    spec: Mapping[str, Any] | None = None,
) -> Path:
    """A store of these units, each the (h, w) of its latents; None is an input that failed."""
    description = _manifest(kind, spec or {})
    (store / SHARDS).mkdir(parents=True)
    inputs: list[InputRow] = []
    with no_waiting_for_disks():
        for unit, sizes in enumerate(units):
            rows = [_row(kind, unit, index, size) for index, size in enumerate(sizes)]
            inputs += [InputRow(row.key, row.source, unit, 100, 7) for row in rows]
            _commit(store, unit, rows, kind, description)
        write_inputs(store / INPUTS, inputs)
        write_manifest(store, description)
        finish(store, description, range(len(units)), ChannelSums())
    return store


@contextmanager
def no_waiting_for_disks() -> Iterator[None]:
    """Takes os.fsync away, which a store that lives for one test can do without."""
    before, os.fsync = os.fsync, lambda _: None
    try:
        yield
    finally:
        os.fsync = before


def _manifest(kind: Kind, spec: Mapping[str, Any]) -> Manifest:
    form = "webdataset" if kind.tars else "safetensors"
    latents = {"state": kind.state, "moments": ["mean", "logvar"], "flip": kind.flip}
    return Manifest(
        tool="latentcli 0.0",
        spec={"write": {"format": form}, "latents": latents, "model": {"name": "toy"}, **spec},
        model={"name": "toy"},
        latent_space=f"toy#{kind.state}",
        latent={
            "channels": kind.channels,
            "downscale": 8,
            "size_divisor": 8,
            "state": "whitened",
            "whitening": {
                "mean": [MEAN[i % 4] for i in range(kind.channels)],
                "std": [STD[i % 4] for i in range(kind.channels)],
            },
        },
        preprocessing={"resize": "bucket"},
    )


def _row(kind: Kind, unit: int, index: int, size: tuple[int, int] | None) -> Row:
    key = key_of(unit, index)
    source = f"/data/{key}.jpg"
    if size is None:
        return Row(key, source, "failed", stage="decode_image", error="truncated")
    h, w = size
    return Row(
        key,
        source,
        "ok",
        original_size=(16 * w + index, 16 * h + unit),
        resized_size=(8 * w + 6, 8 * h),
        crop=(4, 0, 8 * w + 4, 8 * h),
        latent_shape=(kind.channels, h, w),
    )


def _commit(store: Path, unit: int, rows: Sequence[Row], kind: Kind, manifest: Manifest) -> None:
    ok = [row for row in rows if row.status == "ok"]
    metadata = {
        "format": "latentcli",
        "latent_space": f"toy#{kind.state}",
        "state": kind.state,
        "unit": str(unit),
    }
    tensors = {
        row.key: {part: value(row.key, part, row.latent_shape or ()) for part in kind.parts}
        for row in ok
    }
    captions = {row.key: {"caption": caption_of(row.key)} for row in ok} if kind.captions else {}
    if kind.tars:
        samples = [
            TarSample(
                row.key,
                tensors[row.key],
                metadata | {"key": row.key},
                {"key": row.key},
                [Member("txt", caption_of(row.key).encode())] * kind.captions,
            )
            for row in ok
        ]
        commit_tar(store, unit, samples, Contents(spec_hash=manifest.spec_hash, rows=rows))
        return
    named = {f"{key}/{part}": t for key, parts in tensors.items() for part, t in parts.items()}
    contents = Contents(spec_hash=manifest.spec_hash, rows=rows, fields=captions)
    commit_unit(store, unit, named, metadata, contents)
