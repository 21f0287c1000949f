"""Reference files that the trainers' own writers wrote, as samples and as bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load, load_file
from torch import Tensor

from latentcli.exports.format import ExportFormat, ExportSample, Setting


def golden(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, bytes]]:
    """What is known of a set, the tensors that its writer was given, and its files by path."""
    root = shared / "golden" / "trainers" / name
    files = {
        path.relative_to(root / "files").as_posix(): path.read_bytes()
        for path in sorted((root / "files").rglob("*"))
        if path.is_file()
    }
    inputs = root / "inputs.safetensors"
    meta = json.loads((root / "meta.json").read_text())
    return meta, load_file(inputs) if inputs.exists() else {}, files


def headed(data: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, as the stock library reads them."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]).get("__metadata__", {}), load(data)


def sample(latent: Tensor, name: str, **more: Any) -> ExportSample:
    """A sample of a latent that is already in the format's state."""
    known = {"key": name, "name": name, "index": 0, "latent": latent.float()}
    return ExportSample(**(known | more))


def setting(format: ExportFormat, arch: str, **more: Any) -> Setting:
    """The setting of a variant; what is not given does not matter to the files."""
    variant = next(one for one in format.variants if one.name == arch)
    known = {
        "variant": variant,
        "space": variant.spaces[0] if variant.spaces else "lab/any",
        "state": variant.state,
        "downscale": 8,
        "channels": 4,
    }
    return Setting(**(known | more))
