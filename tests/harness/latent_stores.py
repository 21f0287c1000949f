"""Writes whole stores of given latents, of any latent space, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.types import LatentSpec, Row
from latentcli.latents.schema import posterior_text, shard_metadata
from latentcli.latents.stats import ChannelSums
from latentcli.shards.store.commit import Contents, commit_unit
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.writer import finish, open_for_writing

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
    fields = {"state": state, "sample": None, "dtype": "bf16", **(latents or {})}
    sizing = dict(preprocess or {"resize": "none", "size": None, "divisor": of_space.size_divisor})
    manifest = Manifest(
        tool="latentcli tests",
        spec={
            "latents": fields,
            "preprocess": sizing,
            "write": {"format": "safetensors", "samples_per_shard": per_shard},
            **(spec or {}),
        },
        model={"name": "made", "weights_sha256": "0" * 64, "revision": None},
        latent_space=of_space.space_id(state),
        latent={
            "channels": of_space.channels,
            "downscale": of_space.downscale,
            "size_divisor": of_space.size_divisor,
            "state": of_space.state,
            "whitening": {"mean": [mean] * of_space.channels, "std": [std] * of_space.channels},
        },
        preprocessing=sizing,
    )
    open_for_writing(path, manifest)
    units = range(-(-len(samples) // per_shard))
    for unit in units:
        write_unit(
            path, unit, samples[unit * per_shard : (unit + 1) * per_shard], of_space, manifest
        )
    finish(path, manifest, units, ChannelSums())
    return path


def write_unit(
    path: Path, unit: int, samples: Sequence[Made], spec: LatentSpec, manifest: Manifest
) -> None:
    """One shard, its fields and its record."""
    sums = ChannelSums()
    tensors, rows = {}, []
    state = manifest.spec["latents"]["state"]
    for one in samples:
        ok = one.status == "ok"
        first = next(iter(one.parts.values())) if ok else None
        if ok and first is not None:
            tensors |= {f"{one.key}/{part}": tensor for part, tensor in one.parts.items()}
            sums.add(first[None])
        rows.append(
            Row(
                key=one.key,
                source=one.source or f"/pictures/{one.key}.png",
                status=one.status,
                stage=None if ok else "decode_image",
                error=None if ok else "it is cut short",
                original_size=one.original_size,
                resized_size=one.resized_size,
                crop=one.crop,
                latent_shape=None if first is None else tuple(first.shape),
            )
        )
    metadata = shard_metadata(
        spec,
        state=state,
        posterior=posterior_text(state),
        model="made",
        model_revision="",
        weights_sha256="0" * 64,
        spec_hash=manifest.spec_hash,
        unit=unit,
    )
    contents = Contents(
        spec_hash=manifest.spec_hash,
        rows=rows,
        channels=sums.to_json() if sums.count else None,
        fields={one.key: one.fields for one in samples if one.fields and one.status == "ok"},
    )
    commit_unit(path, unit, tensors, metadata, contents)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
