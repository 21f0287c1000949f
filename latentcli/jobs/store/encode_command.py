"""Reconstructs the encode command of a store from its manifest, without what only one machine has.

The command gives the same spec, and so the same shards, from the same inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from latentcli.jobs.config import EncodeJob
from latentcli.jobs.loader.sizes import reducing_gaps, stored_gaps
from latentcli.models.presets import load_preset, preset_names
from latentcli.shards.store.manifest import Manifest

BUCKETS_FILE = "buckets.txt"
"""Stands for the file of buckets that a store was made with; its sizes are in the manifest."""


def encode_words(
    manifest: Manifest, sources: Sequence[str], output: str, captions: str | None = None
) -> list[str]:
    """The words behind `latentcli` of the command that made a store.

    `sources` and `output` are taken as they are. What has its default is left out.
    """
    spec = manifest.spec
    return [
        "encode",
        *sources,
        *_model(manifest),
        *_intake(spec),
        *_preprocess(spec["preprocess"]),
        *_reduction(spec),
        *_encode(manifest),
        *_write(spec),
        *(["--captions", captions] if captions not in (None, "auto") else []),
        *("-o", output),
    ]


def model_name(manifest: Manifest) -> str:
    """The model's preset or repository; of a local folder the last part of its path alone."""
    name, repo = str(manifest.model.get("name", "")), manifest.model.get("repo")
    if name in preset_names():
        return name
    return str(repo) if repo else PurePath(name).name or name


def _default(name: str) -> Any:
    return next(item.default for item in fields(EncodeJob) if item.name == name)


def _given(spec: Mapping[str, Any], *names: str) -> Iterator[str]:
    """Options whose value is known and is not the default."""
    for name in names:
        value = spec.get(name)
        if value is not None and value != _default(name):
            text = f"{value:g}" if isinstance(value, float) else str(value)
            yield from (f"--{name.replace('_', '-')}", text)


def _model(manifest: Manifest) -> Iterator[str]:
    name, revision = model_name(manifest), manifest.model.get("revision")
    yield from ("--model", name)
    usual = load_preset(name).revision if name in preset_names() else None
    if revision and revision != usual:
        yield from ("--revision", str(revision))


def _intake(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from _given(spec, "image_field")
    yield from _given(spec["decode_image"], "alpha", "max_pixels")
    if spec["decode_image"].get("on") == "gpu":
        yield from ("--decode-on", "gpu")
    yield from _given(spec.get("size_filter", {}), "min_side", "min_megapixels", "max_aspect")
    if "clips" in spec:
        yield from ("--media", "clips")
        yield from _given(spec["clips"], "stride", "frames")


def _preprocess(spec: Mapping[str, Any]) -> Iterator[str]:
    if spec["resize"] == "crop":
        width, height = spec["size"]
        yield from ("--size", str(width) if width == height else f"{width}x{height}")
    elif spec["resize"] == "bucket":
        yield from _buckets(spec["buckets"])
    else:
        yield from ("--resize", "none")
    yield from _given(spec, "filter")


def _reduction(spec: Mapping[str, Any]) -> Iterator[str]:
    """Says that files are decoded whole, of a store where that is not so anyway."""
    done = spec["preprocess"]
    usual = done["resize"] != "none" and "clips" not in spec and reducing_gaps(done["filter"])
    if usual and stored_gaps(spec) is None:
        yield "--exact-resize"


def _buckets(spec: Mapping[str, Any]) -> Iterator[str]:
    side = math.isqrt(spec["area"])
    if spec["rule"] == "file" or side * side != spec["area"]:
        yield from ("--buckets", BUCKETS_FILE)
        return
    yield from ("--area", str(side))
    if spec["rule"] != _default("bucket_rule"):
        yield from ("--bucket-rule", spec["rule"])
    yield from ("--bucket-step", str(spec["step"]))
    for name, key in (("--bucket-min", "min_side"), ("--bucket-max", "max_side")):
        if spec.get(key) is not None:
            yield from (name, str(spec[key]))
    if spec.get("no_upscale"):
        yield "--no-upscale"


def _encode(manifest: Manifest) -> Iterator[str]:
    latents, encode = manifest.spec["latents"], manifest.spec["encode"]
    if latents["state"] != manifest.latent.get("state"):
        yield from ("--latents", str(latents["state"]))
    yield from _given(latents, "sample")
    if latents.get("flip"):
        yield from ("--flip", "both")
    if latents.get("class_token"):
        yield "--class-token"
    if latents.get("dtype", "bf16") != "bf16":
        yield from ("--store-dtype", str(latents["dtype"]))
    yield from ("--dtype", str(encode["dtype"]), "--batch-size", str(encode["batch_size"]))
    if encode.get("max_memory") is not None:
        yield from ("--max-memory", str(encode["max_memory"]))
    if encode.get("compile"):
        yield from ("--compile", "on")


def _write(spec: Mapping[str, Any]) -> Iterator[str]:
    write = spec["write"]
    if write["format"] != _default("shard_format"):
        yield from ("--format", str(write["format"]))
    if not spec.get("tars") and write["samples_per_shard"] not in (None, 1000):
        yield from ("--samples-per-shard", str(write["samples_per_shard"]))
