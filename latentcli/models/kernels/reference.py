"""Says in torch what each kernel computes: float32 inside, each result rounded once.

Layouts: features [N, h, w, D], rows and tokens [N, T, D]. A modulation is [N or 1, 2D]: the scale
of a norm, then the gate of a residual.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from latentcli.models.fcdm_network import NORM_EPS


def depthwise_norm(x: Tensor, taps: Tensor, bias: Tensor, modulation: Tensor | None) -> Tensor:
    """norm(conv(x) + bias) * (1 + scale) of features, each channel convolved by itself.

    `taps` is [k, k, D], k odd; pixels outside are 0. The norm is over channels.
    """
    kernel = wide(taps).permute(2, 0, 1)[:, None]
    padding, channels = len(taps) // 2, x.shape[-1]
    features = wide(x).permute(0, 3, 1, 2)
    out = F.conv2d(features, kernel, wide(bias), padding=padding, groups=channels)
    normed = _unit_rms(out.permute(0, 2, 3, 1))
    if modulation is not None:
        normed = normed * (1.0 + wide(modulation)[:, None, None, :channels])
    return normed.to(x.dtype).contiguous()


def gelu_product(rows: Tensor, weight: Tensor, bias: Tensor | None, part: int) -> list[Tensor]:
    """GELU(rows W^T + bias) [N, T, O], and sums of its squares over parts of T, float32 [N, P, O].

    `weight` is [O, I]. A part has so many tokens, the last one perhaps fewer; with 0 there are no
    sums: P is 0.
    """
    product = F.linear(wide(rows), wide(weight), None if bias is None else wide(bias))
    out = F.gelu(product).to(rows.dtype)
    if part == 0:
        return [out, wide(out.new_empty((len(out), 0, out.shape[-1])))]
    sums = [wide(piece).square().sum(dim=1) for piece in torch.split(out, part, dim=1)]
    return [out, torch.stack(sums, dim=1)]


def grn_factors(squares: Tensor, gamma: Tensor) -> Tensor:
    """What global response normalisation multiplies a bottleneck by, float32 [N, O].

    `squares` is [N, P, O], as `gelu_product` sums them.
    """
    energy = squares.sum(dim=1).sqrt()
    return 1.0 + gamma * energy / (energy.mean(dim=-1, keepdim=True) + NORM_EPS)


def residual_product(
    rows: Tensor,
    factors: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    modulation: Tensor | None,
) -> Tensor:
    """residual + gate * ((rows * factors) W^T + bias), [N, T, O]; without modulation no gate.

    `factors` is float32 [N, I], and what it gives is rounded before it is multiplied.
    """
    scaled = (wide(rows) * factors[:, None]).to(rows.dtype)
    out = F.linear(wide(scaled), wide(weight), wide(bias))
    if modulation is not None:
        out = out * wide(modulation)[:, None, weight.shape[0] :]
    return (wide(residual) + out).to(rows.dtype)


def token_norm(tokens: Tensor) -> Tensor:
    """Tokens of unit RMS."""
    return _unit_rms(wide(tokens)).to(tokens.dtype)


def token_norms(tokens: Tensor, update: Tensor, gain: Tensor) -> list[Tensor]:
    """tokens + norm(update) * gain, and that with unit RMS; `gain` is [D]."""
    total = (wide(tokens) + _unit_rms(wide(update)) * wide(gain)).to(tokens.dtype)
    return [total, token_norm(total)]


def turned_heads(qkv: Tensor, weight: Tensor, turns: Tensor) -> Tensor:
    """Queries and keys [N, T, 2, heads, d] of `qkv` [N, T, 3, heads, d], normed and turned.

    Each head has unit RMS, is multiplied by `weight` [2, d], float32, and its neighbouring pairs
    are turned by the cosines and sines `turns` [T, d / 2, 2], float32.
    """
    heads = _unit_rms(wide(qkv[:, :, :2])) * weight[:, None]
    pairs = torch.view_as_complex(torch.unflatten(heads, -1, (-1, 2)).contiguous())
    turned = pairs * torch.view_as_complex(turns)[:, None, None]
    return torch.view_as_real(turned).flatten(-2).to(qkv.dtype)


def _unit_rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + NORM_EPS)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32; in float64 it stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
