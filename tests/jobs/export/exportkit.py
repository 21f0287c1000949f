"""Stores that a format can and cannot hold, for what all formats have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.made_up_stores import SPACES, Made, made, noise, write_store

from latentcli.exports.format import ExportFormat
from latentcli.exports.formats import NAMES, export_format
from latentcli.images.buckets import make_buckets
from latentcli.jobs.export.options import ExportJob

COUNT = 7


def cases() -> list[Any]:
    """(format, variant, space) of each space that each variant may hold; "toy" stands for any."""
    return [
        (name, variant.name, space)
        for name in NAMES
        for variant in export_format(name).variants
        for space in (variant.spaces or ("toy",))
        if space in SPACES
    ]


def strangers() -> list[Any]:
    """(format, space) of each pair that is not allowed."""
    return [
        (name, space)
        for name in NAMES
        for space in SPACES
        if all(one.spaces and space not in one.spaces for one in export_format(name).variants)
    ]


def samples_for(format: ExportFormat, space: str, side: int = 64, count: int = COUNT) -> list[Made]:
    """Samples with all that any format needs: square, of one size, in folders, with a class."""
    spec = SPACES[space][0]
    cells = side // spec.downscale
    found = []
    for i in range(count):
        latent = noise(spec.channels, cells, cells, seed=i)
        fields = {"caption": f"number {i}", "cls": i % 3}
        one = made(f"class{i % 3}/picture{i}", latent, spec.downscale, fields=fields)
        if "moments" in format.needs:
            spread = noise(spec.channels, cells, cells, seed=100 + i)
            one = Made(**(vars_of(one) | {"parts": {"mean": latent, "logvar": spread}}))
        found.append(one)
    return found


def vars_of(one: Made) -> dict[str, Any]:
    """The fields of a sample."""
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def store_for(
    path: Path,
    format: ExportFormat,
    space: str,
    samples: list[Made] | None = None,
    arch: str | None = None,
) -> Path:
    """A store that the format takes as it is, for a variant of it or for the first one."""
    samples = samples_for(format, space) if samples is None else samples
    more: dict[str, Any] = {}
    if "moments" in format.needs:
        more = {"state": "moments", "latents": {"moments": ["mean", "logvar"]}}
    size = {"resize": "crop", "size": [64, 64], "divisor": SPACES[space][0].size_divisor}
    return write_store(path, samples, space, preprocess=sizing(format, arch) or size, **more)


def job_for(format: ExportFormat, store: Path, output: Path | str, **more: Any) -> ExportJob:
    """An export of such a store, forced where the format wants what no store has."""
    forced = "text" in format.needs
    return ExportJob(store=str(store), to=format.name, output=str(output), force=forced, **more)


def sizing(format: ExportFormat, arch: str | None = None) -> dict[str, Any] | None:
    """A preprocessing by the format's own bucket rule, where it takes no other."""
    if not format.rule or format.unbucketed:
        return None
    step = next((one.step for one in format.variants if arch in (None, one.name)), None)
    buckets = make_buckets(format.rule, 64, step, 8)
    return {"resize": "bucket", "size": None, "divisor": 8, "buckets": buckets.described()}
