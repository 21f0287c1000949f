"""Builds the tiny decoder of SVD latents with temporal layers across the frames.

A 192-wide TAESD decoder with one spatio-temporal block at a quarter of the picture's size. Only
that block's 3-frame convolutions and norms mix frames; its attention is within a frame. Source:
arXiv 2503.04871 and the public code of fast-latent-decoders; attribute names are its tensor names.

In a bfloat16 network norms (parameters and arithmetic), the mix of space and time, the latents'
soft clamp and the output's range are float32; all else is bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentcli.core.types import LatentSpec
from latentcli.models.base import Family
from latentcli.models.config_checks import misfit
from latentcli.models.scaled_decoder import DecoderConfig, ScaledDecoder, without_prefix
from latentcli.models.tiny_network import TinyBlock, soft_clamp

GROUPS = 32
SPATIAL_EPS = 1e-6
TEMPORAL_EPS = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalConfig(DecoderConfig):
    """Keys of the config; the defaults are those of the published code."""

    width: int = 192
    """Channels of every layer inside."""
    num_blocks: tuple[int, ...] = (3, 2, 2, 1)
    """Residual blocks at 1/8, 1/4, 1/2 and the whole of the picture's size."""
    attention_head_dim: int = 96

    def __post_init__(self) -> None:
        # The class is rebuilt for its slots, so a bare super() would not find itself.
        DecoderConfig.__post_init__(self)
        if self.width % GROUPS or self.width % self.attention_head_dim:
            both = f"{GROUPS} (the norms' groups) and of attention_head_dim"
            raise misfit("width", self.width, f"a multiple of {both} = {self.attention_head_dim}")
        if len(self.num_blocks) != 4:
            wanted = "four numbers, for a picture eight times as large as its latents"
            raise misfit("num_blocks", list(self.num_blocks), wanted)


class GroupNorm(nn.GroupNorm):
    """Group norm in float32, result in x's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class ResBlock(nn.Module):
    """x plus norm, SiLU and convolution, twice; over [N, D, h, w] or, temporal, [B, D, T, h, w].

    A temporal block's convolutions span three frames and one pixel, its norms all T frames.
    """

    def __init__(self, width: int, temporal: bool) -> None:
        super().__init__()
        eps = TEMPORAL_EPS if temporal else SPATIAL_EPS
        self.norm1 = GroupNorm(GROUPS, width, eps)
        self.conv1 = _res_conv(width, temporal)
        self.norm2 = GroupNorm(GROUPS, width, eps)
        self.conv2 = _res_conv(width, temporal)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.silu(self.norm2(hidden)))
        return out


def _res_conv(width: int, temporal: bool) -> nn.Conv2d | nn.Conv3d:
    if temporal:
        return nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))
    return nn.Conv2d(width, width, 3, padding=1)


class TimeMixer(nn.Module):
    """One learned share s of the temporal branch: (1 - s) * spatial + s * temporal."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        share = torch.sigmoid(self.mix_factor.float())
        return ((1 - share) * spatial + share * temporal).to(spatial.dtype)


class SpatioTemporalBlock(nn.Module):
    """A residual block within each frame, then one across frames, mixed; [B*T, D, h, w]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial_res_block = ResBlock(width, temporal=False)
        self.temporal_res_block = ResBlock(width, temporal=True)
        self.time_mixer = TimeMixer()

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = self.spatial_res_block(x)
        clips = x.reshape(-1, frames, *x.shape[1:]).transpose(1, 2)
        mixed: Tensor = self.time_mixer(clips, self.temporal_res_block(clips))
        return mixed.transpose(1, 2).flatten(0, 1)


class SpatialAttention(nn.Module):
    """Multi-head attention among the pixels of each frame, residual, [N, D, h, w]."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.heads = width // head_dim
        self.group_norm = GroupNorm(GROUPS, width, SPATIAL_EPS)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (self._split(to(tokens)) for to in (self.to_q, self.to_k, self.to_v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out[0](attended)
        return x + out.transpose(1, 2).reshape(x.shape)

    def _split(self, tokens: Tensor) -> Tensor:
        n, length, width = tokens.shape
        return tokens.view(n, length, self.heads, width // self.heads).transpose(1, 2)


class MidBlock(nn.Module):
    """Spatio-temporal block, attention, spatio-temporal block, [B*T, D, h, w]."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([SpatialAttention(width, head_dim)])
        self.resnets = nn.ModuleList([SpatioTemporalBlock(width) for _ in range(2)])

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, frames))
        out: Tensor = self.resnets[1](x, frames)
        return out


def _layers(config: TemporalConfig) -> nn.ModuleList:
    width = config.width
    found: list[nn.Module] = [nn.Conv2d(config.latent_channels, width, 3, padding=1), nn.ReLU()]
    for stage, count in enumerate(config.num_blocks):
        if stage:
            found.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            found.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
        found += [TinyBlock(width) for _ in range(count)]
    return nn.ModuleList([*found, nn.Conv2d(width, 3, 3, padding=1)])


class TemporalTinyDecoder(ScaledDecoder):
    """Latents [T, 4, h, w], SVD's scaled by 0.18215, to frames [T, 3, 8h, 8w].

    `decode_frames` takes all T as one clip, whatever T; `decode` takes each as a clip of one.
    """

    is_video = True
    frames_per_chunk = 8

    def __init__(self, config: TemporalConfig, spec: LatentSpec | None = None) -> None:
        super().__init__(config, spec, "tiny_temporal")
        self.mid_block = MidBlock(config.width, config.attention_head_dim)
        self.layers = _layers(config)
        # The convolution after the first upsampling: index 6 of the published decoder.
        self.mid_after = config.num_blocks[0] + 3

    @property
    def dtype(self) -> torch.dtype:
        """The network's dtype: that of its ordinary weights."""
        return next(self.layers.parameters()).dtype

    def network(self, latents: Tensor, frames: int) -> Tensor:
        """What the published forward gives, float32; its own last step maps [0, 1] to [-1, 1]."""
        x = soft_clamp(latents).to(self.dtype)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index == self.mid_after:
                x = self.mid_block(x, frames)
        return x.float() * 2 - 1


def is_fp32_island(name: str) -> bool:
    """Norm parameters and the mix of space and time stay float32 in a bfloat16 network."""
    return "norm" in name or name.endswith("mix_factor")


FAMILY = Family(
    name="tiny_temporal",
    # No published config.json has the three.
    recognises=lambda config: {"width", "num_blocks", "attention_head_dim"} <= set(config),
    build=lambda config, spec: TemporalTinyDecoder(TemporalConfig.from_mapping(config), spec),
    adapt=without_prefix,
    space_keys=("scaling_factor",),
    fp32_islands=is_fp32_island,
    tiny={"width": 32, "num_blocks": [1, 1, 1, 1], "attention_head_dim": 16},
)
