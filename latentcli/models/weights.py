"""Reads weights files without running code, and fills networks with them, naming every misfit."""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from latentcli.core.errors import WeightsError
from latentcli.models.base import Autoencoder, Family
from latentcli.models.pretrained import HALVES, some

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that torch's own wrappers, DataParallel and compile, leave on every name."""
NESTS = ("module", "model", "state_dict")
"""Keys under which training code keeps the tensors, beside what else it saves."""
COUNTER = "num_batches_tracked"
"""A batch norm's count of training steps, which nothing here reads."""
LFS_POINTER = b"version https://git-lfs"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU: safetensors memory-mapped, .pth and .pt with weights_only.

    WeightsError names the file and what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_POINTER))
    except OSError as error:
        raise WeightsError(f"The weights file {path} cannot be read: {error.strerror}.") from error
    if head == LFS_POINTER:
        raise WeightsError(
            f"{path} is a Git LFS pointer, a text of about 130 bytes in place of the weights."
            " Fetch the file itself: `git lfs pull`, or `hf download`."
        )
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    return _unwrapped(read(path))


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            return _unwrapped({name.removeprefix(prefix): t for name, t in state.items()})
    return state


def read_checkpoint(paths: Sequence[Path]) -> dict[str, Tensor]:
    """`read_state_dict` of one file, or of an encoder's and a decoder's file under those prefixes.

    Of two files the encoder's comes first.
    """
    if len(paths) == 1:
        return read_state_dict(paths[0])
    halves = zip(HALVES, paths, strict=True)
    return {f"{half}.{k}": v for half, path in halves for k, v in read_state_dict(path).items()}


def checkpoint_sha256(paths: Sequence[Path]) -> str:
    """Digest of a checkpoint: its file's, or the digest of its files' digests in hexadecimal."""
    digests = [file_sha256(path) for path in paths]
    whole = hashlib.sha256("".join(digests).encode())
    return digests[0] if len(digests) == 1 else whole.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a complete safetensors file ({path.stat().st_size:,} bytes): {error}."
            " Fetch it again."
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    # Training code saves its options as a Namespace, which can do nothing but hold values.
    # Mapped, what else the file holds (an optimizer's state) is not read; older files cannot be.
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors (or is damaged), and reading it would run code from"
            " the file. It was not read; use a safetensors file."
        ) from error
    # torch's reader of older files meets damage with whatever its parser stumbles over.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is not a complete PyTorch file: {reason}") from error
    return _tensors_of(content, path)


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    inner = content
    for nest in NESTS:
        found = inner.get(nest) if isinstance(inner, dict) else None
        inner = found if isinstance(found, dict) else inner
    if not isinstance(inner, dict) or not inner:
        raise WeightsError(f"{path} holds {type(inner).__name__}; it must be a table of tensors.")
    strangers = [str(name) for name, value in inner.items() if not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError(
            f"{path} must hold tensors by name; these entries are not tensors: {some(strangers)}."
        )
    return inner


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file; a file that has not changed is read once per process."""
    stat = path.stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, name: str) -> None:
    """WeightsError where the file is not the one that preset `name` was made for."""
    found = file_sha256(path)
    if found != expected:
        raise WeightsError(
            f"{path} is not the file that preset {name} names: its sha256 is {found}, expected"
            f" {expected}. Fetch it again, or give it as --weights if it is meant to differ."
        )


def load_into(
    model: Autoencoder,
    state: dict[str, Tensor],
    *,
    family: Family,
    dtype: torch.dtype,
    device: torch.device | str,
    source: str,
) -> Autoencoder:
    """Fill a model that is on the meta device; it comes back on `device`, frozen, in eval mode.

    Ordinary weights are cast to `dtype`; the family's islands and all float buffers are float32.
    Names and shapes must fit exactly; WeightsError lists what does not. `source` names the file.
    """
    # A cast of the whole file has made floats of the counters too.
    state = {name: t.long() if name.endswith(COUNTER) else t for name, t in state.items()}
    state = family.adapt(state, model)
    expected = model.state_dict()
    _check_fit(expected, state, source)
    buffers = {name for name, _ in model.named_buffers()}
    ready = {}
    for name, tensor in state.items():
        island = name in buffers or family.fp32_islands(name)
        kind = torch.float32 if island else dtype
        ready[name] = tensor.to(device, kind if expected[name].is_floating_point() else None)
    model.load_state_dict(ready, strict=True, assign=True)
    stray = [n for n, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    assert not stray, f"{stray} are in no state dict, so no checkpoint can fill them"
    return model.requires_grad_(False).eval()


def random_state(build: Callable[[], Autoencoder], seed: int) -> dict[str, Tensor]:
    """The state dict of a new model with seeded weights of unit gain and whitening that is none.

    Biases and gates are small but not zero, so that every tensor moves the output.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        for name, parameter in model.named_parameters():
            is_matrix = parameter.ndim > 1 and len(parameter) > 1
            is_gain = parameter.ndim == 1 and name.endswith(".weight")
            std = parameter[0].numel() ** -0.5 if is_matrix else 0.02
            torch.nn.init.normal_(parameter, mean=float(is_gain), std=std)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.fill_(float(name.endswith("var")))
    return model.state_dict()


def _check_fit(expected: dict[str, Tensor], found: dict[str, Tensor], source: str) -> None:
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misfits = [
        f"{name} (expected {_form(expected[name])}, found {_form(found[name])})"
        for name in expected
        if name in found and _form(expected[name]) != _form(found[name])
    ]
    if not (missing or extra or misfits):
        return
    kinds = (("missing", missing), ("extra", extra), ("of another shape or kind", misfits))
    raise WeightsError(
        "\n".join(
            [
                f"The weights in {source} do not fit the network, which has {len(expected)}"
                f" tensors; the file has {len(found)}:",
                *(f"  {len(names)} {kind}: {some(names)}" for kind, names in kinds if names),
            ]
        )
    )


def _form(tensor: Tensor) -> str:
    return f"{'' if tensor.is_floating_point() else 'whole numbers '}{list(tensor.shape)}"
