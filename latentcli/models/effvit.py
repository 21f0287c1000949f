"""Builds the decoder for SDXL and SVD latents that is named after EfficientViT.

It is the decoder half of DC-AE with no blocks in its attention stages, so a plain residual network:
convolutions, batch norm, pixel shuffle. Source: arXiv 2503.04871, the public code of
fast-latent-decoders and of EfficientViT's DC-AE; attribute names are the published tensor names.

In a bfloat16 network the norms (parameters, statistics and arithmetic) are float32; all else is
bfloat16.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentcli.core.errors import WeightsError
from latentcli.core.types import LatentSpec
from latentcli.models.base import Family
from latentcli.models.config_checks import misfit
from latentcli.models.scaled_decoder import DecoderConfig, ScaledDecoder, without_prefix

NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class EffViTConfig(DecoderConfig):
    """Keys of the config, as DC-AE names them; the defaults are the published decoder's."""

    width_list: tuple[int, ...] = (128, 128, 128, 256, 256, 256)
    """Channels of each stage, from the picture's side to the latents'."""
    depth_list: tuple[int, ...] = (0, 5, 10, 0, 0, 0)
    """Residual blocks of each stage; those at the two that upsample, 1 and 2, are the only ones."""

    def __post_init__(self) -> None:
        # The class is rebuilt for its slots, so a bare super() would not find itself.
        DecoderConfig.__post_init__(self)
        used = [stage for stage, depth in enumerate(self.depth_list) if depth]
        if len(self.depth_list) != 6 or used != [1, 2]:
            raise misfit(
                "depth_list",
                list(self.depth_list),
                "six numbers, of which the second and third alone are not 0, as in the published"
                " decoders",
            )
        if len(self.width_list) != 6 or 0 in self.width_list:
            raise misfit("width_list", list(self.width_list), "six positive numbers")
        _, low, high, *_, top = self.width_list
        # Shortcuts repeat channels, so every width must go into the next one's a whole time.
        if top % self.latent_channels or high * 4 % top or low * 4 % high:
            raise WeightsError(
                f"The config says width_list = {list(self.width_list)}; {top} must be a multiple of"
                f" the {self.latent_channels} latent channels, 4 x {high} of {top}, and 4 x {low}"
                f" of {high}."
            )


def conv(inputs: int, outputs: int, bias: bool = True) -> nn.Sequential:
    """3x3 convolution without change of size."""
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)))


def shuffled_conv(inputs: int, outputs: int) -> nn.Sequential:
    """[N, inputs, h, w] to [N, outputs, 2h, 2w]; channel c*4 + 2*dy + dx goes to (dy, dx)."""
    layers = OrderedDict(conv=conv(inputs, outputs * 4), shuffle=nn.PixelShuffle(2))
    return nn.Sequential(layers)


class Widen(nn.Module):
    """A convolution plus its input with every channel repeated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = conv(inputs, outputs)
        self.repeats = outputs // inputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x) + x.repeat_interleave(self.repeats, dim=1)
        return out


class Upsample(nn.Module):
    """Twice the size: a shuffled convolution plus the input, repeated and shuffled likewise."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = shuffled_conv(inputs, outputs)
        self.repeats = outputs * 4 // inputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x)
        return out + F.pixel_shuffle(x.repeat_interleave(self.repeats, dim=1), 2)


class Residual(nn.Module):
    """x plus convolution, ReLU, convolution without bias, batch norm; nothing after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = conv(width, width, bias=False)
        # It takes bfloat16 with float32 parameters and statistics, and computes in float32.
        last.add_module("norm", nn.BatchNorm2d(width, NORM_EPS))
        self.main = nn.Sequential(OrderedDict(conv1=conv(width, width), relu=nn.ReLU(), conv2=last))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.main(x)
        return out


class ChannelRMSNorm(nn.Module):
    """Each pixel's channels to unit RMS, times weight plus bias; in float32, result as x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + NORM_EPS)
        return (wide * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def stage(*layers: nn.Module) -> nn.Sequential:
    """Layers one after the other, under the published name; a stage may be empty."""
    return nn.Sequential(OrderedDict(op_list=nn.Sequential(*layers)))


def _upsampling_stage(inputs: int, width: int, depth: int) -> nn.Sequential:
    return stage(Upsample(inputs, width), *(Residual(width) for _ in range(depth)))


class EffViTDecoder(ScaledDecoder):
    """Latents [N, 4, h, w], scaled, to images [N, 3, 8h, 8w]; every image for itself."""

    def __init__(self, config: EffViTConfig, spec: LatentSpec | None = None) -> None:
        super().__init__(config, spec, "effvit")
        _, low, high, *_, top = config.width_list
        _, low_depth, high_depth, *_ = config.depth_list
        self.project_in = Widen(config.latent_channels, top)
        self.stages = nn.ModuleList(stage() for _ in config.depth_list)
        self.stages[1] = _upsampling_stage(high, low, low_depth)
        self.stages[2] = _upsampling_stage(top, high, high_depth)
        self.project_out = stage(ChannelRMSNorm(low), nn.ReLU(), shuffled_conv(low, 3))

    def network(self, latents: Tensor, frames: int) -> Tensor:
        """What the published forward gives, in the network's dtype; `frames` change nothing."""
        x: Tensor = self.project_in(latents.to(self.dtype))
        for layers in reversed(self.stages):
            x = layers(x)
        out: Tensor = self.project_out(x)
        return out


def is_fp32_island(name: str) -> bool:
    """Norm parameters stay float32 in a bfloat16 network; their statistics are buffers."""
    return ".norm." in name or name.startswith("project_out.op_list.0.")


FAMILY = Family(
    name="effvit",
    recognises=lambda config: {"width_list", "depth_list"} <= set(config),
    build=lambda config, spec: EffViTDecoder(EffViTConfig.from_mapping(config), spec),
    adapt=without_prefix,
    space_keys=("scaling_factor",),
    fp32_islands=is_fp32_island,
    tiny={"width_list": [16, 16, 16, 32, 32, 32], "depth_list": [0, 1, 1, 0, 0, 0]},
)
