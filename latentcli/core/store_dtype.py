"""Rounds latents to the dtype that they are stored in, and gives their values back.

int8 and fp8 have a scale for each channel of each picture, float32: the largest absolute value of
the channel over the largest that the dtype holds. So a sample needs no other to be read, and none
to be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentcli.core.channel_moments import Array, channel_moments

PLAIN = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Torch dtype by name, of values that are stored as they are."""
SCALED = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
"""Torch dtype by name, of values that are stored over a scale."""
MOST = {"fp8": 448.0, "int8": 127.0}
"""What the largest absolute value of a channel is stored as."""

QUANTISED, SCALE = "_quantised", "_scale"
"""How the two tensors that a part is stored as are named. A reader that knows only the part's own
name finds nothing under it, and so takes no scaled number for a value."""
FLOAT32 = ("class_token", "class_token_flip")
"""Parts that are stored in float32, whatever the latents are."""
EXPONENTS = {torch.bfloat16: 0x7F80, torch.float16: 0x7C00, torch.float32: 0x7F800000}
"""The bits of the exponent, which are all set in what is infinite or no number."""
INTEGERS = {2: torch.int16, 4: torch.int32}
"""By size in bytes."""
UNSOUND = "_unsound"
"""What is appended to a part's name where its values are counted that are not finite."""
MEANS, SQUARES = "channel_means", "channel_squares"
"""What the `channel_moments` of a batch are called beside its tensors."""
UNSCALED = (*FLOAT32, "times", "clock")
"""Parts that have no scale."""


def stored_names(part: str, store_dtype: str = "bf16") -> tuple[str, ...]:
    """What the tensors are called that a part is stored as; the one of its shape comes first."""
    if store_dtype in SCALED and part not in UNSCALED:
        return part + QUANTISED, part + SCALE
    return (part,)


def part_of(name: str) -> str:
    """The part that a stored tensor of its shape is of."""
    return name.removesuffix(QUANTISED)


def stored_tensors(part: str, values: Tensor, store_dtype: str = "bf16") -> dict[str, Tensor]:
    """The tensors by name that values [..., C, h, w] of a part are stored as, where these are.

    A scale is float32 [..., C]. Values that are not finite give no sound scale: see `unsound`.
    """
    names = stored_names(part, store_dtype)
    values = values.detach()
    if len(names) == 1:
        dtype = torch.float32 if part in FLOAT32 else PLAIN[store_dtype]
        return {part: values.to(dtype)}
    most = MOST[store_dtype]
    values = values.float()
    scale = values.abs().amax((-2, -1)) / most
    # A channel of zeros has scale 0, and is zeros whatever it is divided by.
    scaled = values / torch.where(scale > 0, scale, 1.0)[..., None, None]
    scaled = (scaled.round() if store_dtype == "int8" else scaled).clamp(-most, most)
    return {names[0]: scaled.to(SCALED[store_dtype]), names[1]: scale}


def unsound(part: str, values: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Of each sample [N, ...], how many values are infinite or no number when stored; int64 [N].

    `tensors` are what `stored_tensors` gave of the values.
    """
    checked = tensors.get(part, values)
    if checked.device.type == "cpu" and checked.dtype in EXPONENTS:
        return _unsound_by_bits(checked.contiguous())
    return (~checked.isfinite()).flatten(1).sum(1)


def _unsound_by_bits(values: Tensor) -> Tensor:
    """The same of a CPU's values, in a quarter of the time: all bits of the exponent are set."""
    exponent = EXPONENTS[values.dtype]
    bits = values.flatten(1).view(INTEGERS[values.element_size()]).numpy()
    return torch.from_numpy(np.count_nonzero(bits & exponent == exponent, axis=1))


def as_stored(parts: Mapping[str, Tensor], store_dtype: str = "bf16") -> dict[str, Tensor]:
    """All that a batch of parts [N, ...] becomes: the tensors that they are stored as, by
    <part>_unsound the counts of `unsound`, and the `channel_moments` of what the first part holds.

    It is on their device and contiguous: all that is left to do with it is to copy it from there.
    """
    stored: dict[str, Tensor] = {}
    for part, values in parts.items():
        tensors = stored_tensors(part, values, store_dtype)
        stored |= {name: tensor.contiguous() for name, tensor in tensors.items()}
        stored[part + UNSOUND] = unsound(part, values, tensors)
    first = next(iter(parts))
    latents = held({name: stored[name] for name in stored_names(first, store_dtype)})[first]
    means, sums = channel_moments(latents)
    return stored | {MEANS: means, SQUARES: sums}


class Arrived(NamedTuple):
    """What `as_stored` gave, on the CPU."""

    tensors: dict[str, Tensor]
    """By name of the stored tensor, each [N, ...]."""
    unsound: dict[str, list[int]]
    """By part, of each sample."""
    means: Array
    """[N, C], of the first part, as is what comes next."""
    squares: Array
    """[N, C], sums of squared deviations from the means."""

    def checked(self, part: str) -> Tensor:
        """The stored tensor that has a part's shape."""
        return self.tensors[part if part in self.tensors else part + QUANTISED]

    @property
    def latents(self) -> Tensor:
        """The stored tensor that has the first part's shape."""
        return next(iter(self.tensors.values()))

    def dtype(self, part: str) -> str:
        """What the values of a part were not finite in."""
        tensor = self.tensors.get(part)
        return "float32" if tensor is None else str(tensor.dtype).removeprefix("torch.")


def arrived(stored: Mapping[str, Tensor]) -> Arrived:
    """Takes apart what `as_stored` gave; it is on the CPU."""
    tensors = dict(stored)
    means, sums = (tensors.pop(name).numpy() for name in (MEANS, SQUARES))
    parts = [name.removesuffix(UNSOUND) for name in tensors if name.endswith(UNSOUND)]
    counts = {part: tensors.pop(part + UNSOUND).tolist() for part in parts}
    return Arrived(tensors, counts, means, sums)


def held(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parts that tensors of one sample, or of a batch, stand for; float32 where scaled.

    ValueError where a part and its scale do not belong together.
    """
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        part = part_of(name)
        if part != name:
            parts[part] = _restored(name, tensor, tensors.get(part + SCALE))
        elif name.removesuffix(SCALE) + QUANTISED not in tensors:
            parts[name] = tensor
    return parts


def _restored(name: str, tensor: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None or scale.shape != tensor.shape[:-2]:
        found = "none" if scale is None else list(scale.shape)
        raise ValueError(f"{name} {list(tensor.shape)} needs a scale per channel, there is {found}")
    by_table = tensor.dtype == torch.float8_e4m3fn and tensor.device.type == "cpu"
    values = _of_fp8(tensor) if by_table else tensor.float()
    return values.mul_(scale[..., None, None])


def _of_fp8(tensor: Tensor) -> Tensor:
    """`float()`, by a table of the 256 values: four times as quick on a CPU, to the same bits."""
    codes = tensor.contiguous().view(torch.uint8).numpy()
    return torch.from_numpy(np.take(_fp8_values(), codes))


@cache
def _fp8_values() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    codes = torch.arange(256, dtype=torch.uint8)
    return codes.view(torch.float8_e4m3fn).float().numpy()


def rounded(part: str, values: Tensor, store_dtype: str = "bf16") -> Tensor:
    """The values of a part as a store of this dtype gives them back."""
    return held(stored_tensors(part, values, store_dtype))[part]


def stored_bytes(part: str, shape: Sequence[int], store_dtype: str) -> int:
    """Bytes that values [..., C, h, w] of a part are stored in, without their names."""
    empty = torch.empty(tuple(shape), device="meta")
    if len(stored_names(part, store_dtype)) == 2:
        return empty.numel() * SCALED[store_dtype].itemsize + 4 * empty[..., 0, 0].numel()
    return empty.numel() * (4 if part in FLOAT32 else PLAIN[store_dtype].itemsize)
