"""Computes the FCDM networks strip by strip, of rows, with the same global norms as the whole.

GRN needs a channel's energy over the whole picture before it changes a single value, so a block
goes over its strips twice: once for the energies, and once more to apply them. The wide features
[h, w, 4D] exist for one strip at a time and are computed twice; those of width D are held whole.
Layouts as in `fast.fcdm`: [1, h, w, D].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from latentcli.models.fast.fcdm import (
    FastBlock,
    FastFCDMDecoder,
    FastFCDMEncoder,
    cells_of,
    features_of,
    patches,
    pictures,
)
from latentcli.models.fast.products import NORM_EPS, unit_rms
from latentcli.models.tiled.room import Room, no_part_fits, spans

Strips = list[tuple[int, int]]
"""First and one past the last row of each strip."""
BESIDE_HIDDEN = 5
"""Features of a strip's width D that are alive beside its hidden ones: the convolution's input and
output, the norm, the product and its sum."""


def in_strips(block: FastBlock, x: Tensor, modulation: Tensor | None, strips: Strips) -> None:
    """`FastBlock.forward` of one picture [1, h, w, D], which is changed in place.

    `modulation` is [1, 2D].
    """
    scale = gate = None
    if modulation is not None:
        scale, gate = modulation.to(x.dtype)[:, None, None, :].chunk(2, dim=-1)
    normed = torch.empty_like(x)
    energy = torch.zeros((), device=x.device)
    for top, bottom in strips:
        rows = normed[:, top:bottom]
        rows.copy_(normed_rows(block, x, top, bottom))
        if scale is not None:
            rows.mul_(1.0 + scale)
        energy = energy + block.up.gelu(rows).square_().sum(dim=(1, 2), keepdim=True).float()
    energy = energy.sqrt()
    relative = energy / (energy.mean(dim=-1, keepdim=True) + NORM_EPS)
    gain = (1.0 + block.gamma * relative).to(x.dtype)
    for top, bottom in strips:
        hidden = block.up.gelu(normed[:, top:bottom]).mul_(gain)
        rows = x[:, top:bottom]
        if gate is None:
            rows.copy_(block.down.plus(hidden, rows))
        else:
            rows.addcmul_(gate, block.down(hidden))


def normed_rows(block: FastBlock, x: Tensor, top: int, bottom: int) -> Tensor:
    """The normed depthwise convolution of some rows, which looks into the rows beside them."""
    reach = block.kernel.shape[-2] // 2
    first = max(0, top - reach)
    rows = block.depthwise(x[:, first : bottom + reach])
    return unit_rms(rows[:, top - first : bottom - first])


class Stripped(nn.Module):
    """A network of FCDM blocks in strips as high as the room that is left takes."""

    def __init__(self, network: Any, width: int, hidden: int, held: int, room: Room) -> None:
        """`held` is how many values per patch are alive beside those of a strip."""
        super().__init__()
        self.network, self.room = network, room
        self.patch: int = network.patch
        self.width, self.hidden, self.held = width, hidden, held

    def strips(self, height: int, width: int) -> Strips:
        """Of a picture's rows of patches; AboveLimit where not even one row fits."""
        h, w = height // self.patch, width // self.patch
        size = torch.finfo(self.network.dtype).bits // 8
        pixels = 3 * self.patch**2
        left = self.room.left(height, width) - size * h * w * self.held
        # The square of the hidden features, or what the last product becomes: pictures twice.
        row = size * w * (BESIDE_HIDDEN * self.width + 2 * max(self.hidden, pixels))
        rows = min(h, left // row)
        if rows < 1:
            raise no_part_fits()
        return spans(h, -(-h // rows))


class StrippedEncoder(Stripped):
    """`FastFCDMEncoder`, whole where that fits, else picture by picture."""

    def __init__(self, encoder: FastFCDMEncoder, width: int, hidden: int, room: Room) -> None:
        results = 2 * encoder.to_bottleneck.weight.shape[0]
        super().__init__(encoder, width, hidden, width + max(width, results), room)

    def forward(self, images: Tensor) -> Tensor:
        if self.room.fits(len(images), *images.shape[-2:]):
            return self.network(images)  # type: ignore[no-any-return]
        return torch.cat([self._one(image) for image in images[:, None]])

    def _one(self, image: Tensor) -> Tensor:
        net, height, width = self.network, *image.shape[-2:]
        h, w = height // net.patch, width // net.patch
        strips = self.strips(height, width)
        x = torch.empty((1, h, w, self.width), dtype=net.dtype, device=image.device)
        for top, bottom in strips:
            rows = image[:, :, top * net.patch : bottom * net.patch]
            x[:, top:bottom] = net.patchify(patches(rows, net.patch, net.dtype))
        for block in net.blocks:
            in_strips(block, x, None, strips)
        return features_of(net.to_bottleneck(x))


class StrippedDecoder(Stripped):
    """`FastFCDMDecoder`, whole where that fits, else picture by picture."""

    def __init__(self, decoder: FastFCDMDecoder, width: int, hidden: int, room: Room) -> None:
        super().__init__(decoder, width, hidden, 3 * width + 3 * decoder.patch**2, room)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its ordinary weights."""
        return self.network.dtype  # type: ignore[no-any-return]

    def forward(
        self, x_t: Tensor, t: Tensor, latents: Tensor, *, drop_middle_blocks: bool = False
    ) -> Tensor:
        if self.room.fits(len(x_t), *x_t.shape[-2:]):
            return self.network(  # type: ignore[no-any-return]
                x_t, t, latents, drop_middle_blocks=drop_middle_blocks
            )
        each = zip(x_t[:, None], t[:, None], latents[:, None], strict=True)
        return torch.cat([self._one(*one, drop_middle=drop_middle_blocks) for one in each])

    def _one(self, x_t: Tensor, t: Tensor, latents: Tensor, *, drop_middle: bool) -> Tensor:
        net, patch = self.network, self.patch
        strips = self.strips(*x_t.shape[-2:])
        modulation = net.modulations(t)
        start, end = len(net.start_blocks), len(net.end_blocks)
        shape = (1, *latents.shape[-2:], self.width)
        x = torch.empty(shape, dtype=net.dtype, device=x_t.device)
        for top, bottom in strips:
            features = net.latents_in(cells_of(latents[:, :, top:bottom], net.dtype))
            rows = patches(x_t[:, :, top * patch : bottom * patch], patch, net.dtype)
            x[:, top:bottom] = net.patches_in.plus(rows, features)
        self._through(net.start_blocks, x, modulation[:start], strips)
        if drop_middle:
            for top, bottom in strips:
                x[:, top:bottom] = net.skip_start(x[:, top:bottom]).add_(net.dropped)
        else:
            middle = x.clone()
            self._through(net.middle_blocks, middle, modulation[start:-end], strips)
            for top, bottom in strips:
                features = net.skip_middle(middle[:, top:bottom])
                x[:, top:bottom] = net.skip_start.plus(x[:, top:bottom], features)
            del middle
        self._through(net.end_blocks, x, modulation[-end:], strips)
        out = torch.empty_like(x_t, dtype=net.dtype)
        for top, bottom in strips:
            rows = net.out_proj(x[:, top:bottom])
            out[:, :, top * patch : bottom * patch] = pictures(rows, patch)
        return out

    @staticmethod
    def _through(
        blocks: Iterable[Any], x: Tensor, modulation: list[Tensor], strips: Strips
    ) -> None:
        for block, scale_and_gate in zip(blocks, modulation, strict=True):
            in_strips(block, x, scale_and_gate, strips)
