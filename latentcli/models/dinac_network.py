"""Defines the DINAC networks: the transformer encoder, and the head that predicts class tokens.

Layouts: images and latents [N, C, h, w]; tokens [N, T, D], row-major (y, then x); attention heads
[N, heads, T, d]. Attribute names are the published tensor names, so they do not change. Source: the
published dinac_ae package.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentcli.models.diffusion_config import DiffusionAEConfig
from latentcli.models.fcdm_network import Patchify, conv

NORM_EPS = 1e-6
ENCODER_HEAD_DIM = 64
REGISTERS = 4
LONGEST_PERIOD = 10_000.0

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines [T, d] of the angles that tokens are turned by, float32."""


def rms_norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """The last dimension to unit RMS, in x's dtype; the weight is rounded to that dtype first."""
    weight = None if weight is None else weight.to(x.dtype)
    return F.rms_norm(x, x.shape[-1:], weight, NORM_EPS)


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Neighbouring pairs of [N, heads, T, d] turned by `rotation`, in float32; same dtype out."""
    cos, sin = rotation
    x = heads.float()
    even, odd = torch.unflatten(x, -1, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return (x * cos + turned * sin).to(heads.dtype)


def split_heads(tokens: Tensor, head_dim: int) -> Tensor:
    """[N, T, D] to [N, D / head_dim, T, head_dim]."""
    return torch.unflatten(tokens, -1, (-1, head_dim)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of heads [N, heads, T, d], back to tokens [N, T, D]."""
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class RMSNorm(nn.Module):
    """`rms_norm` with a weight, which is published one level down."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self._impl = nn.RMSNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self._impl.weight)


class AxialRope(nn.Module):
    """Rotary positions of a grid: the first half of a head turns with y, the second with x.

    `periods` [d / 4] is read from the checkpoint. Each angle, index / period, serves two
    neighbouring dimensions.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        quarter = head_dim // 4
        # As in TimeEmbedding: not on the meta device.
        exponents = torch.arange(quarter, dtype=torch.float32, device="cpu") / quarter
        self.register_buffer("periods", LONGEST_PERIOD**exponents)
        self.periods: Tensor

    def forward(self, height: int, width: int, prefix: int = 0) -> Rotation:
        """Rotation of `prefix` tokens that stay as they are, then of a height x width grid."""
        y, x = (
            torch.arange(size, device=self.periods.device, dtype=torch.float32)[:, None]
            / self.periods
            for size in (height, width)
        )
        grid = torch.cat([y.repeat_interleave(width, dim=0), x.repeat(height, 1)], dim=1)
        angles = F.pad(grid.repeat_interleave(2, dim=1), (0, 0, prefix, 0))
        return torch.cos(angles), torch.sin(angles)


class SelfAttention(nn.Module):
    """Attention of all tokens to all, queries and keys normalised per head and turned."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj_out = nn.Linear(dim, dim, bias=False)
        self.q_norm = RMSNorm(head_dim)
        self.k_norm = RMSNorm(head_dim)
        self.head_dim = head_dim

    def forward(self, tokens: Tensor, rotation: Rotation) -> Tensor:
        q, k, v = (split_heads(x, self.head_dim) for x in self.qkv(tokens).chunk(3, dim=-1))
        q, k = rotate(self.q_norm(q), rotation), rotate(self.k_norm(k), rotation)
        return self.proj_out(attend(q, k, v))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Attention of projected queries [N, Q, D] to a context [N, T, D], without positions."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.kv_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.q_norm_heads = RMSNorm(head_dim)
        self.k_norm_heads = RMSNorm(head_dim)
        self.head_dim = head_dim

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        q = split_heads(queries, self.head_dim)
        k, v = (split_heads(x, self.head_dim) for x in self.kv_proj(context).chunk(2, dim=-1))
        out = attend(self.q_norm_heads(q), self.k_norm_heads(k), v)
        return self.out_proj(out)  # type: ignore[no-any-return]


def mlp(dim: int, hidden: int) -> nn.Sequential:
    """Two linear layers around an exact GELU, on tokens [N, T, D]."""
    up, down = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim, bias=False)
    return nn.Sequential(OrderedDict(up=up, gelu=nn.GELU(), down=down))


class DitBlock(nn.Module):
    """Self-attention, then MLP, each between two norms inside its residual; tokens [N, T, D]."""

    def __init__(self, dim: int, hidden: int, head_dim: int) -> None:
        super().__init__()
        self.attn_norm1 = RMSNorm(dim)
        self.attn_norm2 = RMSNorm(dim)
        self.mlp_norm1 = RMSNorm(dim)
        self.mlp_norm2 = RMSNorm(dim)
        self.attn_core = SelfAttention(dim, head_dim)
        self.mlp = mlp(dim, hidden)

    def forward(self, tokens: Tensor, rotation: Rotation) -> Tensor:
        tokens = tokens + self.attn_norm2(self.attn_core(self.attn_norm1(tokens), rotation))
        out: Tensor = tokens + self.mlp_norm2(self.mlp(self.mlp_norm1(tokens)))
        return out


class ClassReadout(nn.Module):
    """A query token [N, 1, D] gathers from a context [N, T, D]: cross-attention, then MLP."""

    def __init__(self, dim: int, hidden: int, head_dim: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(dim)
        self.context_norm = RMSNorm(dim)
        self.mlp_norm = RMSNorm(dim)
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.attn_core = CrossAttention(dim, head_dim)
        self.mlp = mlp(dim, hidden)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        q = self.q_proj(self.query_norm(query))
        query = query + self.attn_core(q, self.context_norm(context))
        out: Tensor = query + self.mlp(self.mlp_norm(query))
        return out


class DinacEncoder(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] to mean, then logsnr, [N, 2B, H/P, W/P]; or the mean alone."""

    def __init__(self, config: DiffusionAEConfig) -> None:
        super().__init__()
        dim, moments = config.model_dim, 1 if config.is_deterministic else 2
        self.patchify = Patchify(config.in_channels, config.patch_size, dim)
        self.blocks = nn.ModuleList(
            DitBlock(dim, config.hidden, ENCODER_HEAD_DIM) for _ in range(config.encoder_depth)
        )
        self.rope = AxialRope(ENCODER_HEAD_DIM)
        self.to_bottleneck = nn.Conv2d(dim, moments * config.bottleneck_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.patchify(images)
        height, width = features.shape[-2:]
        rotation = self.rope(height, width)
        tokens = features.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        features = torch.unflatten(tokens.transpose(1, 2), 2, (height, width))
        return conv(self.to_bottleneck, features)


class AlignmentHead(nn.Module):
    """Dewhitened latents [N, B, h, w] to DINO's class token [N, D] and patch tokens [N, h*w, D].

    A class token and four registers go before the patches through one block; the class token then
    reads from all the others.
    """

    def __init__(self, channels: int, dim: int, hidden: int, head_dim: int) -> None:
        super().__init__()
        self.initial_class_token = nn.Parameter(torch.zeros(1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(REGISTERS, dim))
        self.in_proj = nn.Conv2d(channels, dim, 1)
        self.block = DitBlock(dim, hidden, head_dim)
        self.class_readout = ClassReadout(dim, hidden, head_dim)
        self._axial_rope2d = AxialRope(head_dim)

    def tokens(self, latents: Tensor) -> Tensor:
        """The block's output [N, 5 + h*w, D]: class token, registers, patches."""
        patches = self.in_proj(latents).flatten(2).transpose(1, 2)
        first = torch.cat([self.initial_class_token, self.register_tokens]).to(patches.dtype)
        tokens = torch.cat([first.expand(len(patches), -1, -1), patches], dim=1)
        rotation = self._axial_rope2d(*latents.shape[-2:], prefix=len(first))
        return self.block(tokens, rotation)  # type: ignore[no-any-return]

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.tokens(latents)
        read = self.class_readout(tokens[:, :1], tokens[:, 1:])
        return rms_norm(read[:, 0]), rms_norm(tokens[:, 1 + REGISTERS :])
