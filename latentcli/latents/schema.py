"""Builds and reads the tensor names and metadata strings of a shard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentcli.core.store_dtype import FLOAT32, QUANTISED, SCALE, stored_names
from latentcli.core.types import QUANTISED_DTYPES, STATES, LatentSpec

FORMAT = "latentcli"
FORMAT_VERSION = "1"
QUANTISED_VERSION = "2"
"""Of shards whose latents are stored over scales."""

MOMENTS = ("mean", "logsnr")
"""What a store of moments holds where its spec names no parts."""
CLIP_PARTS = ("times", "clock")
"""What is stored of a clip besides: its frames' times, and the units of those."""

_OF_PICTURES = ("latent", *MOMENTS, "logvar", "class_token")
_VALUES = (*_OF_PICTURES, *(f"{part}_flip" for part in _OF_PICTURES))
_SCALED = (part + end for part in _VALUES if part not in FLOAT32 for end in (QUANTISED, SCALE))
PARTS = (*_VALUES, *_SCALED, *CLIP_PARTS)
"""Every tensor that a sample can have; `latent_flip` is the latent of the mirrored picture, and
`latent_quantised` and `latent_scale` are what a latent in int8 or fp8 is stored as."""


def parts_of(
    state: str,
    moments: tuple[str, ...] = MOMENTS,
    *,
    class_token: bool = False,
    flip: bool = False,
    clips: bool = False,
) -> tuple[str, ...]:
    """Parts stored of every sample, from how a job stores latents; ValueError for another state.

    `moments` are the tensors that describe the model's posterior; with `flip` there are those of
    the mirrored picture too.
    """
    if state not in STATES:
        raise ValueError(f"latents are {state!r}, allowed are {', '.join(STATES)}")
    latents = moments if state == "moments" else ("latent",)
    parts = (*latents, *(("class_token",) if class_token else ()))
    mirrored = tuple(f"{part}_flip" for part in parts) if flip else ()
    return (*parts, *mirrored, *(CLIP_PARTS if clips else ()))


def tensor_name(key: str, part: str) -> str:
    """`<key>/<part>`; ValueError for an unknown part or an empty key."""
    if part not in PARTS or not key:
        raise ValueError(f"part {part!r} of key {key!r}: allowed parts are {', '.join(PARTS)}")
    return f"{key}/{part}"


def split_name(name: str) -> tuple[str, str]:
    """(key, part) of a tensor name; the key may hold slashes. ValueError for any other name."""
    key, _, part = name.rpartition("/")
    if part not in PARTS or not key:
        raise ValueError(f"tensor {name!r} is not named <key>/<part>, parts are {', '.join(PARTS)}")
    return key, part


def posterior_text(state: str, sample_seed: int | None = None) -> str:
    """What of the posterior is stored: mode, moments, or a sample and its seed."""
    if state == "moments":
        return "moments"
    return "mode" if sample_seed is None else f"sample seed={sample_seed}"


def shard_metadata(
    spec: LatentSpec,
    *,
    state: str,
    posterior: str,
    model: str,
    model_revision: str,
    weights_sha256: str,
    spec_hash: str,
    unit: int,
    clips: bool = False,
    store_dtype: str = "bf16",
) -> dict[str, str]:
    """The strings that let a shard be decoded without its store.

    `posterior` is as `posterior_text` gives it; ValueError for an unknown state. What is usual
    goes without saying.
    """
    unusual = {"media": "clips"} if clips else {}
    unusual |= {} if store_dtype == "bf16" else {"store_dtype": store_dtype}
    version = QUANTISED_VERSION if store_dtype in QUANTISED_DTYPES else FORMAT_VERSION
    return unusual | {
        "format": FORMAT,
        "format_version": version,
        "latent_space": spec.space_id(state),
        "state": state,
        "posterior": posterior,
        "model": model,
        "model_revision": model_revision,
        "weights_sha256": weights_sha256,
        "downscale": str(spec.downscale),
        "channels": str(spec.channels),
        "size_divisor": str(spec.size_divisor),
        "image_range": "-1,1",
        "spec_hash": spec_hash,
        "unit": str(unit),
    }


def store_dtype_of(spec: Mapping[str, Any]) -> str:
    """What the latents of a store of this spec are stored in."""
    return str(spec["latents"].get("dtype", "bf16"))


def stored_parts(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The tensors that a store of this spec has of every sample."""
    dtype = store_dtype_of(spec)
    return tuple(name for part in held_parts(spec) for name in stored_names(part, dtype))


def first_tensors(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Of `stored_parts` those of the part that statistics are of: the latent, or the mean."""
    return stored_names(held_parts(spec)[0], store_dtype_of(spec))


def held_parts(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that readers of a store of this spec get of every sample."""
    latents = spec["latents"]
    return parts_of(
        latents["state"],
        tuple(latents.get("moments", MOMENTS)),
        class_token=latents.get("class_token", False),
        flip=latents.get("flip", False),
        clips="clips" in spec,
    )
