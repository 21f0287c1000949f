"""Every family's toy models for the contract tests: built from FAMILY.tiny, with seeded weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from paritykit import seeded
from torch import Tensor

from latentcli.models import registry
from latentcli.models.base import Autoencoder, Family
from latentcli.models.weights import load_into

# Family -> name -> what differs from its tiny config; None takes a key out. A family whose one toy
# model shows everything that it can do needs no line here.
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "fcdm": {"decoder": {"encoder_depth": 0}},
    "dinac": {
        "deterministic": {"bottleneck_posterior_kind": "deterministic"},
        "headless": {"has_class_head": False},
    },
    "kl": {
        "decoder": {"parts": "decoder"},
        "encoder": {"parts": "encoder"},
        "sdxl": {
            "autoencoder": "AutoencoderKL",
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "scaling_factor": 0.13025,
        },
        "svd": {
            "autoencoder": "AutoencoderKLTemporalDecoder",
            "block_out_channels": [64, 64],
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "norm_num_groups": None,
        },
    },
    "tiny": {
        "decoder": {"has_encoder": False},
        "encoder": {"has_decoder": False},
        "scaled": {"latents_mean": [], "latents_std": [], "raw_scale": 0.36, "raw_shift": 0.12},
    },
}
# Family -> the package of an extra that it is built with.
NEEDS = {"kl": "diffusers"}


@dataclass(frozen=True, eq=False)
class Case:
    """One toy model of one family; compared and hashed by identity."""

    name: str
    family: Family
    config: Mapping[str, Any]


def cases() -> list[Case]:
    """The tiny model of every family, and its variants; builds nothing."""
    found = []
    for name in registry.families():
        family = registry.family(name)
        found.append(Case(name, family, family.tiny))
        for variant, change in VARIANTS.get(name, {}).items():
            config = {k: v for k, v in {**family.tiny, **change}.items() if v is not None}
            found.append(Case(f"{name}-{variant}", family, config))
    return found


def on_meta(case: Case) -> Autoencoder:
    """The model without weights, as a checkpoint finds it."""
    if case.family.name in NEEDS:
        pytest.importorskip(NEEDS[case.family.name])
    with torch.device("meta"):
        return case.family.build(case.config, None)


@cache
def state_of(case: Case) -> dict[str, Tensor]:
    """Name-seeded weights and statistics; other buffers keep what the network made them."""
    on_meta(case)
    model = case.family.build(case.config, None)
    fixed = {name for name, _ in model.named_buffers() if "running_" not in name}
    return {
        name: (tensor if name in fixed else seeded(name, tuple(tensor.shape))).clone().contiguous()
        for name, tensor in model.state_dict().items()
    }


@cache
def model_of(case: Case, dtype: torch.dtype = torch.float32) -> Autoencoder:
    """The toy model with its weights, as the registry loads it."""
    model = on_meta(case)
    return load_into(
        model, state_of(case), family=case.family, dtype=dtype, device="cpu", source=case.name
    )


def normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(model: Autoencoder, count: int = 1, cells: tuple[int, int] = (2, 3)) -> Tensor:
    """Noise in [-1, 1] whose sides are `cells` times the model's size divisor."""
    height, width = (n * model.spec.size_divisor for n in cells)
    draw = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, height, width, generator=draw) * 2 - 1


def latents(model: Autoencoder, count: int = 1, cells: tuple[int, int] = (2, 3)) -> Tensor:
    """Standard normal latents for images of that size."""
    height, width = (n * model.spec.size_divisor for n in cells)
    return normal(count, model.spec.channels, *model.spec.latent_size(height, width))


def noise_for(model: Autoencoder, z: Tensor) -> Tensor:
    """What a diffusion decoder starts from; the other decoders ignore it."""
    count, _, height, width = z.shape
    return normal(count, 3, height * model.spec.downscale, width * model.spec.downscale, seed=4)


def psnr(got: Tensor, want: Tensor) -> float:
    """dB, with the reference's range as the peak."""
    error = (got - want).square().mean().item()
    peak = (want.max() - want.min()).item()
    return 10 * math.log10(peak**2 / error) if error else math.inf


def worst(got: Tensor, want: Tensor) -> float:
    """Largest difference, relative to the reference's standard deviation."""
    return ((got - want).abs().max() / want.std()).item()
