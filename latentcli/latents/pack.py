"""Packs batches of latents into named tensors of single samples, and unpacks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latentcli.latents.schema import split_name, tensor_name


class Packed(NamedTuple):
    """A batch taken apart."""

    tensors: dict[str, Tensor]
    """By tensor name: the parts [C, h, w] of every sound sample, on the CPU."""
    bad: dict[str, str]
    """By key: why a sample is not among them."""


DTYPES = {"class_token": torch.float32, "class_token_flip": torch.float32}
"""Parts that are not stored in bfloat16."""


def pack(
    keys: Sequence[str], parts: Mapping[str, Tensor], dtype: torch.dtype = torch.bfloat16
) -> Packed:
    """Samples of a batch, each part [N, ...] with one sample per key, rounded to `dtype`.

    The parts in DTYPES keep their own.

    A sample with a value that is not finite, in any part and after rounding, is left out and
    reported. Each tensor owns its memory, so that keeping one does not keep the batch.
    ValueError where the numbers of keys and samples differ, or a key comes twice.
    """
    if len(set(keys)) != len(keys):
        raise ValueError("a key comes twice in one batch")
    bad: dict[str, str] = {}
    batches: dict[str, Tensor] = {}
    for part, values in parts.items():
        if len(values) != len(keys):
            raise ValueError(f"{part} has {len(values)} samples, there are {len(keys)} keys")
        batches[part] = stored(part, values, dtype)
        for key, count in zip(keys, not_finite(batches[part]), strict=True):
            if count:
                bad.setdefault(
                    key,
                    f"{count} of {values[0].numel()} values of the {part} are"
                    f" not finite in {str(batches[part].dtype).removeprefix('torch.')}",
                )
    tensors = {
        tensor_name(key, part): batch[i].clone(memory_format=torch.contiguous_format)
        for i, key in enumerate(keys)
        if key not in bad
        for part, batch in batches.items()
    }
    return Packed(tensors, bad)


def stored(part: str, values: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """A part's values on the CPU, in the dtype that it is stored in."""
    return values.detach().to(DTYPES.get(part, dtype)).cpu()


def not_finite(batch: Tensor) -> list[int]:
    """Of each sample of a batch [N, ...], how many values are infinite or no number."""
    counts: list[int] = (~batch.isfinite()).flatten(1).sum(1).tolist()
    return counts


def unpack(tensors: Mapping[str, Tensor], key: str) -> dict[str, Tensor]:
    """The parts of a key among named tensors, as stored; ValueError where it has none."""
    names = {name: split_name(name) for name in tensors}
    parts = {part: tensors[name] for name, (owner, part) in names.items() if owner == key}
    if not parts:
        raise ValueError(f"there is no tensor of key {key!r}")
    return parts
