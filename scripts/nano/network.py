"""The FCDM network as a function of a state dict, in the form that trains fast on a CPU.

The same arithmetic and tensor names as `latentcli.models.fcdm_network`, on tokens
[positions, crops, channels] of one fixed square grid. Pointwise layers are plain matrix products.
The 7x7 depthwise convolution is a [positions, positions] matrix per channel, built from its taps:
on a CPU a batched bfloat16 product is many times faster than the convolution's backward pass.
Products are bfloat16, the residual stream and the norms float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from latentcli.models.fcdm import FCDMConfig

State = Mapping[str, Tensor]
KERNEL = 7
NORM_EPS = 1e-6


def tap_positions(side: int) -> Tensor:
    """One-hot [49, positions * positions], bfloat16: which tap links which two positions."""
    index = torch.arange(side * side)
    y, x = index // side, index % side
    dy, dx = y[None] - y[:, None], x[None] - x[:, None]
    reach = KERNEL // 2
    to, source = ((dy.abs() <= reach) & (dx.abs() <= reach)).nonzero(as_tuple=True)
    tap = (dy[to, source] + reach) * KERNEL + dx[to, source] + reach
    links = torch.zeros(KERNEL * KERNEL, side * side, side * side, dtype=torch.bfloat16)
    links[tap, to, source] = 1.0
    return links.flatten(1)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    """The layer in bfloat16; x is [..., in]."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16())


def depthwise(state: State, name: str, x: Tensor, links: Tensor) -> Tensor:
    """7x7 depthwise convolution, zero padded, float32."""
    positions, _, channels = x.shape
    taps = state[f"{name}.weight"].flatten(1).bfloat16()
    mix = (taps @ links).view(channels, positions, positions)
    mixed = torch.bmm(mix, x.bfloat16().permute(2, 0, 1)).permute(1, 2, 0)
    return mixed.float() + state[f"{name}.bias"]


def block(
    state: State, name: str, x: Tensor, links: Tensor, scale: Tensor | None, gate: Tensor
) -> Tensor:
    """One FCDM block; scale and gate are per crop [crops, D] in the decoder."""
    h = depthwise(state, f"{name}.dwconv", x, links)
    h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + NORM_EPS)
    if scale is not None:
        h = h * (1.0 + scale)
    h = F.gelu(linear(state, f"{name}.pwconv1", h))
    # The root has no gradient at zero, hence the small constant.
    energy = (h.float().square().sum(0) + 1e-8).sqrt()
    relative = energy / (energy.mean(-1, keepdim=True) + NORM_EPS)
    gamma, beta = state[f"{name}.grn.gamma"].flatten(), state[f"{name}.grn.beta"].flatten()
    h = h * (1.0 + gamma * relative).bfloat16() + beta.bfloat16()
    return x + gate * linear(state, f"{name}.pwconv2", h)


def modulations(state: State, t: Tensor, depth: int) -> list[tuple[Tensor, Tensor]]:
    """Per decoder block scale and gate, [crops, D] each, float32."""
    angle = (t * 1000.0)[:, None] * state["decoder.time_embed.freqs"]
    h = torch.cat([angle.sin(), angle.cos()], dim=1)
    for layer in ("proj_in", "proj_out"):
        name = f"decoder.time_embed.{layer}"
        h = F.silu(F.linear(h, state[f"{name}.weight"], state[f"{name}.bias"]))
    base = "decoder.adaln_base.proj"
    shared = F.linear(h, state[f"{base}.weight"], state[f"{base}.bias"])
    pairs = []
    for i in range(depth):
        name = f"decoder.adaln_deltas.{i}"
        delta = F.linear(F.linear(h, state[f"{name}.down.weight"]), state[f"{name}.up.weight"])
        scale, gate = (shared + delta).chunk(2, dim=-1)
        pairs.append((scale, gate))
    return pairs


def encode(state: State, config: FCDMConfig, pixels: Tensor, links: Tensor) -> Tensor:
    """Posterior mode [positions, crops, B] of pixel tokens, float32; not whitened."""
    x = linear(state, "encoder.patchify.proj", pixels).float()
    for i in range(config.encoder_depth):
        name = f"encoder.blocks.{i}"
        x = block(state, name, x, links, None, state[f"{name}.layer_scale"])
    mean, logsnr = linear(state, "encoder.to_bottleneck", x).float().chunk(2, dim=-1)
    return mean * torch.sigmoid(logsnr).sqrt()


def denoise(
    state: State,
    config: FCDMConfig,
    noisy: Tensor,
    t: Tensor,
    latents: Tensor,
    drop: Tensor,
    links: Tensor,
) -> Tensor:
    """Predicted pixel tokens from noisy ones; where `drop` [crops], without the middle blocks."""
    start, end = config.decoder_start_blocks, config.decoder_end_blocks
    names = [
        *(f"decoder.start_blocks.{i}" for i in range(start)),
        *(f"decoder.middle_blocks.{i}" for i in range(config.middle_blocks)),
        *(f"decoder.end_blocks.{i}" for i in range(end)),
    ]
    blocks = list(zip(names, modulations(state, t, len(names)), strict=True))
    features = linear(state, "decoder.patchify.proj", noisy)
    latent_features = linear(state, "decoder.latent_up", latents)
    x = linear(state, "decoder.fuse_in", torch.cat([features, latent_features], dim=-1)).float()
    for name, pair in blocks[:start]:
        x = block(state, name, x, links, *pair)
    middle = x
    for name, pair in blocks[start : len(blocks) - end]:
        middle = block(state, name, middle, links, *pair)
    mask = state["decoder.path_drop_mask_feature"].flatten()
    middle = torch.where(drop[None, :, None], mask, middle)
    x = linear(state, "decoder.fuse_skip", torch.cat([x, middle], dim=-1)).float()
    for name, pair in blocks[len(blocks) - end :]:
        x = block(state, name, x, links, *pair)
    return linear(state, "decoder.out_proj", x).float()
