"""Describes a checkpoint's files: sizes, digests, dtypes, how they fit the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentcli.models.base import Autoencoder
from latentcli.models.presets import Preset
from latentcli.models.pretrained import Checkpoint, Located, at_path, locate
from latentcli.models.registry import family, find_preset
from latentcli.models.weights import file_sha256, read_checkpoint

Line = tuple[str, str]
"""What, and its value."""

SIZES: dict[str, dict[int, str]] = {
    "semdisdiffae": {
        355_101_560: "140 tensors; the size of the published file",
        355_100_344: "138 tensors; the first upload, without latent statistics",
    },
    "semdisdiffae_p32_v2": {626_569_856: "176 tensors"},
    "full_capacitor": {458_783_216: "176 tensors, 8 encoder blocks"},
    "capacitor_decoder": {
        247_744_872: "100 tensors, decoder. prefix, latent_norm_running_* statistics",
        247_744_864: "100 tensors, decoder. prefix, flux2_bn_running_* statistics",
        247_744_832: "100 tensors, decoder. prefix, bn.running_* statistics",
        247_743_664: "98 tensors, decoder. prefix, no statistics",
        247_744_088: "100 tensors, no prefix, latent_norm_running_* statistics",
        247_744_080: "100 tensors, no prefix, flux2_bn_running_* statistics",
        247_744_064: "100 tensors, no prefix, bn.running_* statistics",
        247_742_880: "98 tensors, no prefix, no statistics",
    },
    "dinac_ae_d2": {
        616_889_568: "210 tensors, each under one name",
        736_167_248: "230 tensors, some under two names",
    },
    "dinac_ae": {
        539_787_320: "190 tensors, each under one name",
        633_374_472: "206 tensors, some under two names",
    },
}
"""Bytes of a preset's float32 file -> what is in it. All but semdisdiffae's are predictions from
tensor names, with no metadata in the file."""
ORIGINS = {
    "flag": "--weights",
    "folder": "the folder itself",
    "env": "the folder that LATENTCLI_WEIGHTS names",
    "bundled": "the package",
    "cached": "the Hugging Face cache",
    "hub": "the Hub",
}
LISTED = 4
LOW_BITS = 0xFFFF
"""Bits of a float32 that a bfloat16 value leaves zero."""


def find(name: str, weights: Path | None) -> Located:
    """The files that `load_model` would read; downloads them where they are only on the Hub."""
    preset = find_preset(name)
    if preset is None and Path(name).expanduser().is_dir():
        return at_path(weights or Path(name))
    wanted = Checkpoint.of_preset(preset) if preset else Checkpoint(name, repo=name)
    return locate(wanted, weights=weights)


def describe(located: Located, state: Mapping[str, Tensor], preset: Preset | None) -> list[Line]:
    """Files, sizes, digests, dtypes, and whether float32 tensors hold bfloat16 values."""
    lines = [line for path in _files(located) for line in _file(path, preset)]
    commit = f", {located.repo} at {located.revision}" if located.repo else ""
    kinds = Counter(_kind(tensor) for tensor in state.values())
    lines += [
        ("from", f"{ORIGINS[located.origin]}{commit}"),
        ("tensors", str(len(state))),
        ("storage", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())),
    ]
    return [*lines, *_precision(state)]


def read(located: Located) -> dict[str, Tensor]:
    """Tensors by their published names."""
    return read_checkpoint(_files(located))


def fit(model: Autoencoder, state: Mapping[str, Tensor]) -> list[Line]:
    """How the file's tensors became a loaded model's: all of them fit, under these names."""
    kind, own = family(model.info.family), model.state_dict()
    adapted = kind.adapt(dict(state), model)
    other = [name for name in state if name not in adapted]
    lines = [("names", f"all {len(own)} tensors of the network, and no others")]
    lines.append(("shapes", "all as the network's"))
    if len(adapted) < len(state):
        lines.append(("aliases", f"{_some(other)}: second names, equal values"))
    elif other:
        lines.append(("renamed", _some(other)))
    buffers = {name for name, _ in model.named_buffers()}
    narrow = [
        name
        for name, tensor in adapted.items()
        if (name in buffers or kind.fp32_islands(name)) and _is_narrow(tensor)
    ]
    if narrow:
        lines.append(("narrow", f"{_some(narrow)}: kept float32 here, stored in less"))
    return lines


def _files(located: Located) -> tuple[Path, ...]:
    return located.weights_path, *located.also


def _file(path: Path, preset: Preset | None) -> Iterator[Line]:
    size, digest = path.stat().st_size, file_sha256(path)
    yield "file", str(path)
    yield "size", f"{size:,} bytes"
    if expected := SIZES.get(preset.name if preset else ""):
        sizes = " or ".join(f"{size:,}" for size in expected)
        yield "expected", expected.get(size, f"none of the sizes it should have: {sizes}")
    yield "sha256", digest
    if preset and preset.sha256:
        agrees = "the preset's" if digest == preset.sha256 else f"not the preset's {preset.sha256}"
        yield "", agrees


def _precision(state: Mapping[str, Tensor]) -> Iterator[Line]:
    wide = [tensor for tensor in state.values() if tensor.dtype == torch.float32]
    if not wide:
        return
    rounded = sum(_holds_bfloat16(tensor) for tensor in wide)
    all_of_them = ": bf16 values in an fp32 file" if rounded == len(wide) else ""
    yield "low 16 bits", f"zero in {rounded} of {len(wide)} float32 tensors{all_of_them}"


def _holds_bfloat16(tensor: Tensor) -> bool:
    return not bool(tensor.contiguous().view(torch.int32).bitwise_and(LOW_BITS).any())


def _is_narrow(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize < torch.float32.itemsize


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)}: {', '.join(names[:LISTED])}{more}"
