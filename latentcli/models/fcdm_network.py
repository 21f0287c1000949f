"""Defines the FCDM networks: encoder and diffusion decoder blocks that several families share.

Layouts: [N, C, h, w] throughout; D is the model width. Attribute names are the published tensor
names, so they do not change. Norms and GRN follow the reference's order of casts, which matters in
bfloat16. Source: the published fcdm_diffae and dinac_ae packages; GRN from ConvNeXt V2.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentcli.models.diffusion_config import DiffusionAEConfig

NORM_EPS = 1e-6


def channel_rms_norm(x: Tensor) -> Tensor:
    """Each pixel's channel vector to unit RMS, in x's dtype; no weights.

    The squares and the product stay in x's dtype, only the mean and the root are float32.
    """
    mean_square = torch.mean(torch.square(x), dim=1, keepdim=True, dtype=torch.float32)
    return x * torch.rsqrt(mean_square + NORM_EPS).to(x.dtype)


def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The layer in x's dtype, whatever dtype its weights are kept in."""
    if layer.weight.dtype == x.dtype:
        out: Tensor = layer(x)
        return out
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.conv2d(x, layer.weight.to(x.dtype), bias, layer.stride, layer.padding)


class Patchify(nn.Module):
    """Image [N, 3, H, W] to patch features [N, D, H/P, W/P]: one strided convolution."""

    def __init__(self, in_channels: int, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return conv(self.proj, images.to(self.proj.weight.dtype))


class GRN(nn.Module):
    """Global response normalisation over [N, C, h, w]; gamma and beta are kept in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        energy = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True).float()
        relative = (energy / (energy.mean(dim=1, keepdim=True) + NORM_EPS)).to(x.dtype)
        out: Tensor = self.gamma.to(x.dtype) * (x * relative) + self.beta.to(x.dtype) + x
        return out


class FCDMBlock(nn.Module):
    """Depthwise convolution, norm, GELU-GRN bottleneck, gated residual, all at [N, D, h, w].

    With modulation [N, 2D] the norm is scaled and the residual gated by it (decoder); without, the
    residual is gated by a learned layer scale (encoder). There is no shift and no tanh.
    """

    def __init__(self, dim: int, hidden: int, kernel: int, *, layer_scale: bool) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.pwconv1 = nn.Conv2d(dim, hidden, 1)
        self.grn = GRN(hidden)
        self.pwconv2 = nn.Conv2d(hidden, dim, 1)
        self.layer_scale = nn.Parameter(torch.full((dim,), 1e-3)) if layer_scale else None

    def forward(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        h = channel_rms_norm(self.dwconv(x))
        if modulation is None:
            assert self.layer_scale is not None
            gate = self.layer_scale.to(x.dtype)[None, :, None, None]
        else:
            scale, gate = modulation.to(x.dtype)[:, :, None, None].chunk(2, dim=1)
            h = h * (1.0 + scale)
        residual: Tensor = self.pwconv2(self.grn(F.gelu(self.pwconv1(h))))
        return x + gate * residual


class TimeEmbedding(nn.Module):
    """Times t [N] in [0, 1] to a conditioning vector [N, D]."""

    HALF = 128

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Models are built on the meta device, where arange loads torch's compiler: that takes a
        # second and 50 MiB.
        steps = torch.arange(self.HALF, dtype=torch.float32, device="cpu") / (self.HALF - 1)
        self.register_buffer("freqs", torch.exp(-math.log(10_000.0) * steps))
        self.freqs: Tensor
        self.proj_in = nn.Linear(2 * self.HALF, dim)
        self.proj_out = nn.Linear(dim, dim)

    def sinusoid(self, t: Tensor) -> Tensor:
        """[N] to sin | cos features [N, 256], float32. The order of products is the reference's."""
        angle = (t.float() * 1000.0)[:, None] * self.freqs
        return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)

    def forward(self, t: Tensor) -> Tensor:
        h: Tensor = self.proj_in(self.sinusoid(t).to(self.proj_in.weight.dtype))
        return self.proj_out(F.silu(h))  # type: ignore[no-any-return]


def adaln_base(dim: int) -> nn.Sequential:
    """The modulation that all decoder blocks share, [N, D] to [N, 2D]."""
    return nn.Sequential(OrderedDict(proj=nn.Linear(dim, 2 * dim)))


def adaln_delta(dim: int, rank: int) -> nn.Sequential:
    """One block's low-rank correction of the shared modulation, [N, D] to [N, 2D]."""
    down, up = nn.Linear(dim, rank, bias=False), nn.Linear(rank, 2 * dim, bias=False)
    return nn.Sequential(OrderedDict(down=down, up=up))


def modulations(
    time_embed: nn.Module, base: nn.Module, deltas: Iterable[nn.Module], t: Tensor
) -> list[Tensor]:
    """Per block, the packed scale | gate [N, 2D] for times t [N]."""
    activated = F.silu(time_embed(t))
    shared = base(activated)
    return [shared + delta(activated) for delta in deltas]


def _blocks(config: DiffusionAEConfig, count: int, *, layer_scale: bool = False) -> nn.ModuleList:
    dim, kernel = config.model_dim, config.depthwise_kernel_size
    return nn.ModuleList(
        FCDMBlock(dim, config.hidden, kernel, layer_scale=layer_scale) for _ in range(count)
    )


class FCDMEncoder(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] to mean, then logsnr, [N, 2B, H/P, W/P]."""

    def __init__(self, config: DiffusionAEConfig) -> None:
        super().__init__()
        self.patchify = Patchify(config.in_channels, config.patch_size, config.model_dim)
        self.blocks = _blocks(config, config.encoder_depth, layer_scale=True)
        self.to_bottleneck = nn.Conv2d(config.model_dim, 2 * config.bottleneck_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patchify(images)
        for block in self.blocks:
            x = block(x)
        return conv(self.to_bottleneck, x)


class FCDMDecoder(nn.Module):
    """x-prediction network of the diffusion decoder: (x_t, t, latents) to x_0 [N, 3, H, W].

    Start blocks, middle blocks, end blocks, with a skip around the middle ones; path-drop replaces
    the middle ones as a whole by a learned feature.
    """

    def __init__(self, config: DiffusionAEConfig) -> None:
        super().__init__()
        dim = config.model_dim
        self.patchify = Patchify(config.in_channels, config.patch_size, dim)
        self.latent_up = nn.Conv2d(config.bottleneck_dim, dim, 1)
        self.fuse_in = nn.Conv2d(2 * dim, dim, 1)
        self.time_embed = TimeEmbedding(dim)
        self.adaln_base = adaln_base(dim)
        self.adaln_deltas = nn.ModuleList(
            adaln_delta(dim, config.adaln_low_rank_rank) for _ in range(config.decoder_depth)
        )
        self.start_blocks = _blocks(config, config.decoder_start_blocks)
        self.middle_blocks = _blocks(config, config.middle_blocks)
        self.end_blocks = _blocks(config, config.decoder_end_blocks)
        self.fuse_skip = nn.Conv2d(2 * dim, dim, 1)
        self.path_drop_mask_feature = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.out_proj = nn.Conv2d(dim, config.in_channels * config.patch_size**2, 1)
        self.patch = config.patch_size

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its ordinary weights."""
        return self.fuse_in.weight.dtype

    def modulations(self, t: Tensor) -> list[Tensor]:
        """Per block, the packed scale | gate [N, 2D] for times t [N]."""
        return modulations(self.time_embed, self.adaln_base, self.adaln_deltas, t)

    def forward(
        self, x_t: Tensor, t: Tensor, latents: Tensor, *, drop_middle_blocks: bool = False
    ) -> Tensor:
        """`x_t` [N, 3, H, W], `t` [N] in [0, 1], dewhitened `latents` [N, B, H/P, W/P]."""
        features = self.patchify(x_t)
        latent_features = conv(self.latent_up, latents.to(features.dtype))
        x = conv(self.fuse_in, torch.cat([features, latent_features], dim=1))
        modulation = iter(self.modulations(t))
        for block in self.start_blocks:
            x = block(x, next(modulation))
        middle = x
        for block in self.middle_blocks:
            m = next(modulation)
            middle = middle if drop_middle_blocks else block(middle, m)
        if drop_middle_blocks:
            middle = self.path_drop_mask_feature.to(x.dtype).expand_as(x)
        x = conv(self.fuse_skip, torch.cat([x, middle], dim=1))
        for block in self.end_blocks:
            x = block(x, next(modulation))
        return F.pixel_shuffle(conv(self.out_proj, x), self.patch)
