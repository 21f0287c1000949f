"""Packs batches of latents into named tensors of single samples, and unpacks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latentcli.core.store_dtype import Arrived, arrived, as_stored, held
from latentcli.latents.schema import split_name, tensor_name


class Packed(NamedTuple):
    """A batch taken apart."""

    tensors: dict[str, Tensor]
    """By tensor name: the parts [C, h, w] of every sound sample, on the CPU."""
    bad: dict[str, str]
    """By key: why a sample is not among them."""


def pack(keys: Sequence[str], parts: Mapping[str, Tensor], store_dtype: str = "bf16") -> Packed:
    """`pack_stored` of parts [N, ...] with one sample per key."""
    return pack_stored(keys, as_stored(parts, store_dtype))


def pack_stored(keys: Sequence[str], stored: Mapping[str, Tensor]) -> Packed:
    """Samples of a batch, which `as_stored` gave and which is on the CPU.

    A sample with a value that is not finite, in any part and after rounding, is left out and
    reported. Each tensor owns its memory, so that keeping one does not keep the batch.
    ValueError as `not_finite`.
    """
    batch = arrived(stored)
    bad = not_finite(keys, batch)
    packed = {
        tensor_name(key, name): tensor[i].clone(memory_format=torch.contiguous_format)
        for i, key in enumerate(keys)
        if key not in bad
        for name, tensor in batch.tensors.items()
    }
    return Packed(packed, bad)


def not_finite(keys: Sequence[str], batch: Arrived) -> dict[str, str]:
    """What is wrong with samples of a batch that have values which are not finite, by key.

    ValueError where the numbers of keys and samples differ, or a key comes twice.
    """
    if len(set(keys)) != len(keys):
        raise ValueError("a key comes twice in one batch")
    bad: dict[str, str] = {}
    for part, counts in batch.unsound.items():
        if len(counts) != len(keys):
            raise ValueError(f"{part} has {len(counts)} samples, there are {len(keys)} keys")
        of = batch.checked(part)[0].numel()
        for key, count in zip(keys, counts, strict=True):
            if count:
                bad.setdefault(
                    key,
                    f"{count} of {of} values of the {part} are not finite in {batch.dtype(part)}",
                )
    return bad


def unpack(tensors: Mapping[str, Tensor], key: str) -> dict[str, Tensor]:
    """The parts of a key among named tensors, as `held`.

    ValueError where it has none, or a scale does not belong to its values.
    """
    names = {name: split_name(name) for name in tensors}
    own = {part: tensors[name] for name, (owner, part) in names.items() if owner == key}
    if not own:
        raise ValueError(f"there is no tensor of key {key!r}")
    return held(own)
