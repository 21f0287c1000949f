"""Runs the FCDM networks with channels last, 1x1 convolutions as products, and constants folded.

Layouts: [N, h, w, D] throughout. The modules are derived from the plain ones of `fcdm_network`,
which say what is computed; what is linear after one another is one product here. Constants are
folded in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentcli.models.fast.kept import kept
from latentcli.models.fast.products import NORM_EPS, Product, frozen, unit_rms
from latentcli.models.fcdm_network import FCDMBlock, FCDMDecoder, FCDMEncoder, modulations
from latentcli.models.kernels.ops import operators, part_of, serves


def matrix(layer: nn.Conv2d) -> Tensor:
    """The weights of a 1x1 convolution or a patch embedding, float32 [O, I] or [O, 3PP]."""
    return layer.weight.detach().flatten(1).float()


def offset(layer: nn.Conv2d) -> Tensor:
    """Its bias, float32 [O]."""
    assert layer.bias is not None
    return layer.bias.detach().float()


def patches(images: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """[N, C, h*P, w*P] to rows of patches [N, h, w, C*P*P], in the order of a kernel's weights."""
    columns = torch.unflatten(images.to(dtype), 3, (-1, size))
    cells = torch.unflatten(columns, 2, (-1, size))
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3)


def pictures(rows: Tensor, size: int) -> Tensor:
    """Inverse of `patches`: [N, h, w, C*P*P] to [N, C, h*P, w*P]."""
    cells = torch.unflatten(rows, 3, (-1, size, size)).permute(0, 3, 1, 4, 2, 5)
    return cells.flatten(4).flatten(2, 3)


def cells_of(features: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, C, h, w] to rows [N, h, w, C]."""
    return features.to(dtype).permute(0, 2, 3, 1).contiguous()


def features_of(rows: Tensor) -> Tensor:
    """Rows [N, h, w, C] to [N, C, h, w]."""
    return rows.permute(0, 3, 1, 2).contiguous()


class FastBlock(nn.Module):
    """`FCDMBlock` on [N, h, w, D]: two products, with GRN's beta and the layer scale in them."""

    def __init__(self, block: FCDMBlock, dtype: torch.dtype) -> None:
        super().__init__()
        depthwise, up, down = block.dwconv, block.pwconv1, block.pwconv2
        kernel = depthwise.weight.contiguous(memory_format=torch.channels_last)
        self.kernel = frozen(kernel, dtype)
        taps = self.kernel.detach()[:, 0].permute(1, 2, 0).contiguous()
        self.register_buffer("taps", taps, persistent=False)
        self.taps: Tensor
        self.bias = frozen(offset(depthwise), dtype)
        self.up = Product(matrix(up), offset(up), dtype)
        weight, bias = matrix(down), offset(down)
        bias = bias + weight @ block.grn.beta.detach().flatten().float()
        if block.layer_scale is not None:
            gain = block.layer_scale.detach().float()
            weight, bias = gain[:, None] * weight, gain * bias
        self.down = Product(weight, bias, dtype)
        self.gamma = frozen(block.grn.gamma.flatten(), torch.float32)

    def forward(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        """`modulation` is [N or 1, 2D]; without it the gate is the layer scale in the weights."""
        return (self.fused if serves(x) else self.plain)(x, modulation)

    def fused(self, x: Tensor, modulation: Tensor | None) -> Tensor:
        """The block in four kernels."""
        normed = operators.depthwise_norm(x, self.taps, self.bias, modulation).flatten(1, 2)
        up, down, part = self.up, self.down, part_of(normed)
        hidden, squares = operators.gelu_product(normed, up.weight, up.bias, part)
        factors = operators.grn_factors(squares, self.gamma)
        rows = operators.residual_product(
            hidden, factors, down.weight, down.bias, x.flatten(1, 2), modulation
        )
        out: Tensor = rows.view(x.shape)
        return out

    def plain(self, x: Tensor, modulation: Tensor | None) -> Tensor:
        """The block in torch's operators."""
        normed = unit_rms(self.depthwise(x))
        if modulation is None:
            return self.down.plus(self.responses(normed), x)
        scale, gate = modulation.to(x.dtype)[:, None, None, :].chunk(2, dim=-1)
        return torch.addcmul(x, gate, self.down(self.responses(normed.mul_(1.0 + scale))))

    def depthwise(self, x: Tensor) -> Tensor:
        """The depthwise convolution of [N, h, w, D]."""
        features = x.permute(0, 3, 1, 2)
        padding = self.kernel.shape[-1] // 2
        out = F.conv2d(features, self.kernel, self.bias, padding=padding, groups=x.shape[-1])
        return out.permute(0, 2, 3, 1)

    def responses(self, normed: Tensor) -> Tensor:
        """The bottleneck [N, h, w, 4D] after GELU and GRN, less GRN's beta."""
        hidden = self.up.gelu(normed)
        energy = hidden.square().sum(dim=(1, 2), keepdim=True).float().sqrt()
        relative = energy / (energy.mean(dim=-1, keepdim=True) + NORM_EPS)
        return hidden.mul_((1.0 + self.gamma * relative).to(hidden.dtype))


def _blocks(plain: Iterable[Any], dtype: torch.dtype) -> nn.ModuleList:
    return nn.ModuleList(FastBlock(block, dtype) for block in plain)


class FastFCDMEncoder(nn.Module):
    """`FCDMEncoder`: images [N, 3, H, W] to mean, then logsnr, [N, 2B, H/P, W/P]."""

    def __init__(self, encoder: FCDMEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        patchify, last = encoder.patchify.proj, encoder.to_bottleneck
        self.patch = patchify.kernel_size[0]
        self.patchify = Product(matrix(patchify), offset(patchify), dtype)
        self.blocks = _blocks(encoder.blocks, dtype)
        self.to_bottleneck = Product(matrix(last), offset(last), dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        x = self.patchify(patches(images, self.patch, self.dtype))
        for block in self.blocks:
            x = block(x)
        return features_of(self.to_bottleneck(x))


class FastFCDMDecoder(nn.Module):
    """`FCDMDecoder`: (x_t, t, latents) to x_0 [N, 3, H, W].

    Patches and latents are each multiplied once on their way into the blocks, and concatenations
    are sums of two products.
    """

    def __init__(self, decoder: FCDMDecoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.patch = decoder.patch
        self.dtype = dtype
        patchify, latent_up = decoder.patchify.proj, decoder.latent_up
        of_patches, of_latents = matrix(decoder.fuse_in).chunk(2, dim=1)
        bias = of_patches @ offset(patchify) + of_latents @ offset(latent_up)
        bias = bias + offset(decoder.fuse_in)
        self.patches_in = Product(of_patches @ matrix(patchify), bias, dtype)
        self.latents_in = Product(of_latents @ matrix(latent_up), None, dtype)
        self._modulations: dict[float, list[Tensor]] = {}
        self.time_embed = decoder.time_embed
        self.adaln_base = decoder.adaln_base
        self.adaln_deltas = decoder.adaln_deltas
        self.start_blocks = _blocks(decoder.start_blocks, dtype)
        self.middle_blocks = _blocks(decoder.middle_blocks, dtype)
        self.end_blocks = _blocks(decoder.end_blocks, dtype)
        of_start, of_middle = matrix(decoder.fuse_skip).chunk(2, dim=1)
        self.skip_start = Product(of_start, offset(decoder.fuse_skip), dtype)
        self.skip_middle = Product(of_middle, None, dtype)
        dropped = decoder.path_drop_mask_feature.detach().flatten().float()
        self.dropped = frozen(of_middle @ dropped, dtype)
        self.out_proj = Product(matrix(decoder.out_proj), offset(decoder.out_proj), dtype)

    def forward(
        self, x_t: Tensor, t: Tensor, latents: Tensor, *, drop_middle_blocks: bool = False
    ) -> Tensor:
        """As `FCDMDecoder.forward`."""
        modulation = self.modulations(t)
        start, end = len(self.start_blocks), len(self.end_blocks)
        latent_features = self.latents_in(cells_of(latents, self.dtype))
        x = self.patches_in.plus(patches(x_t, self.patch, self.dtype), latent_features)
        x = _through(self.start_blocks, x, modulation[:start])
        if drop_middle_blocks:
            x = self.skip_start(x).add_(self.dropped)
        else:
            middle = _through(self.middle_blocks, x, modulation[start:-end])
            x = self.skip_start.plus(x, self.skip_middle(middle))
        x = _through(self.end_blocks, x, modulation[-end:])
        return pictures(self.out_proj(x), self.patch)

    def modulations(self, t: Tensor) -> list[Tensor]:
        """As `FCDMDecoder.modulations`, [1, 2D] where a sampler expanded one time to the batch.

        Those of one time are kept, as each batch of a job has the same times; but not on a GPU,
        where the host would have to wait for the time's value.
        """
        layers = (self.time_embed, self.adaln_base, self.adaln_deltas)
        if len(t) > 1 and t.stride(0) != 0:
            return modulations(*layers, t)
        if t.device.type != "cpu" or torch.compiler.is_compiling():
            return modulations(*layers, t[:1])
        return kept(self._modulations, t[0].item(), lambda: modulations(*layers, t[:1]))


def _through(blocks: nn.ModuleList, x: Tensor, modulation: list[Tensor]) -> Tensor:
    for block, scale_and_gate in zip(blocks, modulation, strict=True):
        x = block(x, scale_and_gate)
    return x
