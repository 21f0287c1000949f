"""The starting point: a network that is exactly the PCA code, with every weight in fair units.

The residual streams carry PCA coefficients times GAIN, the encoder's first 128 of them become the
latent, the decoder spreads those over the PCA basis, and every block starts as zero. So step 0 has
the PCA's quality, and all that is learned comes on top of it: lapped encoding, context, and the
coefficients after the 128th, which the decoder guesses from the neighbourhood.

The coefficients' scales span more than two orders of magnitude, so the optimiser works on weights
in units of unit-variance inputs and equal output errors; `Parameters.state` folds the units in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentcli.models.fcdm import FCDMConfig
from nano.crops import PIXELS

GAIN = 10.0
"""Stream units per pixel unit: makes the errors that remain about 1."""
SCRATCH = 32
"""Stream channels that start empty, after those of the leading PCA coefficients."""
LEAST_DEVIATION = 0.04
"""Pixel components weaker than this are not amplified further."""
LOGSNR = 9.0
"""Constant posterior log-SNR: the mode is 0.99994 times the mean."""


@dataclass
class Parameters:
    """What the optimiser sees, and how it becomes the published tensors."""

    trained: dict[str, Tensor]
    units: dict[str, Tensor]
    """Fixed factors, broadcast over the trained tensors."""
    bases: dict[str, Tensor]
    """Fixed matrices that a trained [D, 768] kernel is expressed in."""
    fixed: dict[str, Tensor]

    def state(self, trained: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors under their published names; pointwise weights are [out, in]."""
        state = dict(self.fixed)
        for name, tensor in trained.items():
            if name in self.units:
                state[name] = tensor * self.units[name]
            elif name in self.bases:
                state[name] = tensor @ self.bases[name]
            else:
                state[name] = tensor
        half = state["encoder.to_bottleneck.weight"]
        state["encoder.to_bottleneck.weight"] = torch.cat([half, torch.zeros_like(half)])
        bias = state["encoder.to_bottleneck.bias"]
        state["encoder.to_bottleneck.bias"] = torch.cat([bias, torch.full_like(bias, LOGSNR)])
        return state

    def to(self, device: torch.device) -> Parameters:
        """On `device`, with the trained tensors as leaves that take gradients."""
        trained = {k: v.to(device).contiguous().requires_grad_() for k, v in self.trained.items()}
        rest = (
            {k: v.to(device) for k, v in table.items()}
            for table in (self.units, self.bases, self.fixed)
        )
        return Parameters(trained, *rest)


def pca_start(
    config: FCDMConfig, mean: Tensor, components: Tensor, deviations: Tensor, seed: int
) -> Parameters:
    """Parameters at which the autoencoder is the PCA code of `nano.crops.principal_components`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    dim, latent = config.model_dim, config.bottleneck_dim
    hidden, rank = int(dim * config.mlp_ratio), config.adaln_low_rank_rank
    kept = dim - SCRATCH
    scale = torch.cat([deviations[:kept] * GAIN, torch.ones(SCRATCH)])
    per_scale = 1.0 / scale
    trained: dict[str, Tensor] = {}
    units: dict[str, Tensor] = {}

    def add_layer(name: str, weight: Tensor, bias: Tensor | None = None) -> None:
        trained[f"{name}.weight"] = weight
        trained[f"{name}.bias"] = torch.zeros(weight.shape[0]) if bias is None else bias

    def add_block(name: str) -> None:
        taps = 0.05 * normal(dim, 1, 7, 7)
        taps[:, :, 2:5, 2:5] += 0.15 * normal(dim, 1, 3, 3)
        taps[:, :, 3, 3] += 1.0
        # One constant channel keeps the norm from blowing flat patches up to full size.
        constant = torch.zeros(dim)
        constant[-1] = 0.7 * math.sqrt(dim)
        add_layer(f"{name}.dwconv", taps, constant)
        units[f"{name}.dwconv.weight"] = per_scale.view(-1, 1, 1, 1)
        add_layer(f"{name}.pwconv1", normal(hidden, dim) / math.sqrt(dim))
        trained[f"{name}.grn.gamma"] = torch.zeros(1, hidden, 1, 1)
        trained[f"{name}.grn.beta"] = torch.zeros(1, hidden, 1, 1)
        add_layer(f"{name}.pwconv2", torch.zeros(dim, hidden))

    # Encoder: pixels to scaled coefficients; the latents are the first ones, at unit variance.
    patchify = torch.zeros(dim, PIXELS)
    patchify[:kept, :kept] = torch.diag(scale[:kept])
    offset = torch.cat([-(components.T @ mean)[:kept] * GAIN, torch.zeros(SCRATCH)])
    add_layer("encoder.patchify.proj", patchify, offset)
    amplified = torch.cat([deviations[:kept], deviations[kept:].clamp_min(LEAST_DEVIATION)])
    bases = {"encoder.patchify.proj.weight": (components / amplified).T}
    for i in range(config.encoder_depth):
        add_block(f"encoder.blocks.{i}")
        trained[f"encoder.blocks.{i}.layer_scale"] = torch.ones(dim)
    add_layer("encoder.to_bottleneck", torch.diag(scale)[:latent])
    units["encoder.to_bottleneck.weight"] = per_scale[None] * per_scale[:latent, None]

    # Decoder: the noisy picture enters its own features, which nothing reads at the start.
    add_layer("decoder.patchify.proj", components.T[:dim])
    add_layer("decoder.latent_up", torch.diag(scale)[:, :latent])
    add_layer("decoder.fuse_in", torch.cat([torch.zeros(dim, dim), torch.diag(scale)], dim=1))
    units["decoder.fuse_in.weight"] = torch.cat([torch.ones(dim), per_scale])[None]
    add_layer("decoder.time_embed.proj_in", normal(dim, 256) / 16.0)
    add_layer("decoder.time_embed.proj_out", normal(dim, dim) / math.sqrt(dim))
    gates_open = torch.cat([torch.zeros(dim), torch.ones(dim)])
    add_layer("decoder.adaln_base.proj", torch.zeros(2 * dim, dim), gates_open)
    for i in range(config.decoder_depth):
        trained[f"decoder.adaln_deltas.{i}.down.weight"] = 0.02 * normal(rank, dim)
        trained[f"decoder.adaln_deltas.{i}.up.weight"] = torch.zeros(2 * dim, rank)
    for part, depth in (
        ("start", config.decoder_start_blocks),
        ("middle", config.middle_blocks),
        ("end", config.decoder_end_blocks),
    ):
        for i in range(depth):
            add_block(f"decoder.{part}_blocks.{i}")
    # The skip carries everything, so that dropping the middle blocks leaves a picture.
    add_layer("decoder.fuse_skip", torch.cat([torch.diag(scale), torch.zeros(dim, dim)], dim=1))
    units["decoder.fuse_skip.weight"] = torch.cat([per_scale, per_scale])[None]
    trained["decoder.path_drop_mask_feature"] = torch.zeros(1, dim, 1, 1)
    basis = torch.zeros(PIXELS, dim)
    basis[:, :kept] = components[:, :kept] * scale[:kept]
    add_layer("decoder.out_proj", basis, mean * GAIN)
    units["decoder.out_proj.weight"] = per_scale[None] / GAIN
    units["decoder.out_proj.bias"] = torch.tensor(1.0 / GAIN)

    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(128) / 127)
    return Parameters(trained, units, bases, {"decoder.time_embed.freqs": frequencies})
