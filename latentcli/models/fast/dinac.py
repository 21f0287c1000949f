"""Runs the DINAC encoder on tokens that stay contiguous, with norm weights folded into products.

Layouts: tokens [N, T, D] throughout; heads [N, T, heads, d]. The modules are derived from the plain
ones of `dinac_network`, which say what is computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentcli.models.dinac_network import (
    AxialRope,
    DinacEncoder,
    DitBlock,
    RMSNorm,
    SelfAttention,
)
from latentcli.models.fast.fcdm import features_of, matrix, offset, patches
from latentcli.models.fast.kept import kept
from latentcli.models.fast.products import NORM_EPS, Product, frozen, unit_rms
from latentcli.models.kernels.ops import operators, serves


def rotation(rope: AxialRope, height: int, width: int) -> Tensor:
    """The turns of a grid's tokens as complex numbers [T, 1, 1, d/2]."""
    cos, sin = rope(height, width)
    # Two neighbouring dimensions have one angle.
    return torch.complex(cos[:, ::2], sin[:, ::2])[:, None, None]


def turned(heads: Tensor, weight: Tensor, turns: Tensor) -> Tensor:
    """Heads [N, T, 2, heads, d] normed, weighted and turned in float32; the same dtype out.

    `weight` is [2, 1, d], float32.
    """
    x = heads.float()
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    x = (x * torch.rsqrt(norm.square() / x.shape[-1] + NORM_EPS)).mul_(weight)
    pairs = torch.view_as_complex(torch.unflatten(x, -1, (-1, 2))).mul_(turns)
    return torch.view_as_real(pairs).flatten(-2).to(heads.dtype)


def gain(norm: RMSNorm) -> Tensor:
    """A norm's weight, float32 [D]."""
    return norm._impl.weight.detach().float()


def normed_in(norm: RMSNorm, weight: Tensor, dtype: torch.dtype) -> Product:
    """The product of what has unit RMS, the norm's gain being in the weight [O, D]."""
    return Product(weight.detach().float() * gain(norm), None, dtype)


class FastAttention(nn.Module):
    """`SelfAttention` of tokens of unit RMS."""

    def __init__(self, norm: RMSNorm, core: SelfAttention, dtype: torch.dtype) -> None:
        super().__init__()
        self.qkv = normed_in(norm, core.qkv.weight, dtype)
        weight = torch.stack([gain(core.q_norm), gain(core.k_norm)])[:, None]
        self.qk_weight = frozen(weight, torch.float32)
        self.proj_out = Product(core.proj_out.weight, None, dtype)
        self.head_dim = core.head_dim

    def forward(self, tokens: Tensor, turns: Tensor) -> Tensor:
        heads = torch.unflatten(self.qkv(tokens), -1, (3, -1, self.head_dim))
        if serves(heads):
            pairs = torch.view_as_real(turns[:, 0, 0])
            both = operators.turned_heads(heads, self.qk_weight[:, 0], pairs)
        else:
            both = turned(heads[:, :, :2], self.qk_weight, turns)
        q, k = both.transpose(1, 3).unbind(2)
        v = heads[:, :, 2].transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj_out(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FastDitBlock(nn.Module):
    """`DitBlock`; the norms before a product are in it, those after it are gains."""

    def __init__(self, block: DitBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.attention = FastAttention(block.attn_norm1, block.attn_core, dtype)
        self.attention_gain = frozen(gain(block.attn_norm2), dtype)
        self.up = normed_in(block.mlp_norm1, block.mlp.get_parameter("up.weight"), dtype)
        self.down = Product(block.mlp.get_parameter("down.weight"), None, dtype)
        self.mlp_gain = frozen(gain(block.mlp_norm2), dtype)

    def forward(self, tokens: Tensor, turns: Tensor) -> Tensor:
        attended = self.attention(unit_rms(tokens), turns)
        tokens = torch.addcmul(tokens, unit_rms(attended), self.attention_gain)
        out = self.down(self.up.gelu(unit_rms(tokens)))
        return torch.addcmul(tokens, unit_rms(out), self.mlp_gain)

    def fused(self, tokens: Tensor, normed: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        """The block in kernels, which take and give tokens and the same at unit RMS."""
        attended = self.attention(normed, turns)
        tokens, normed = operators.token_norms(tokens, attended, self.attention_gain)
        hidden, _ = operators.gelu_product(normed, self.up.weight, None, 0)
        tokens, normed = operators.token_norms(tokens, self.down(hidden), self.mlp_gain)
        return tokens, normed


def plain_through(blocks: nn.ModuleList, tokens: Tensor, turns: Tensor) -> Tensor:
    """Tokens after all blocks, in torch's operators."""
    for block in blocks:
        tokens = block(tokens, turns)
    return tokens


def fused_through(blocks: Iterable[Any], tokens: Tensor, turns: Tensor) -> Tensor:
    """Tokens after all blocks, in kernels."""
    normed = operators.token_norm(tokens)
    for block in blocks:
        tokens, normed = block.fused(tokens, normed, turns)
    return tokens


class FastDinacEncoder(nn.Module):
    """`DinacEncoder`: images [N, 3, H, W] to mean, then logsnr, [N, 2B, H/P, W/P], or the mean."""

    def __init__(self, encoder: DinacEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        patchify, last = encoder.patchify.proj, encoder.to_bottleneck
        self.patch = patchify.kernel_size[0]
        self.patchify = Product(matrix(patchify), offset(patchify), dtype)
        plain: Iterable[Any] = encoder.blocks
        self.blocks = nn.ModuleList(FastDitBlock(block, dtype) for block in plain)
        self._rotations: dict[tuple[int, int, torch.device], Tensor] = {}
        self.rope = encoder.rope
        self.to_bottleneck = Product(matrix(last), offset(last), dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        features = self.patchify(patches(images, self.patch, self.dtype))
        height, width = features.shape[1:3]
        grid = (height, width, features.device)
        turns = kept(self._rotations, grid, lambda: rotation(self.rope, height, width))
        through = fused_through if serves(features) else plain_through
        tokens = through(self.blocks, features.flatten(1, 2), turns)
        return features_of(self.to_bottleneck(tokens).unflatten(1, (height, width)))
