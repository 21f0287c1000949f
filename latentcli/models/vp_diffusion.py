"""Samples the FCDM decoders' diffusion: noise schedule, time grids, samplers, guidance.

Time t runs from 0 (clean) to 1 (noise); x_t = alpha x_0 + sigma s eps with eps standard normal and
s the pixel noise std (0.558 in every published config). A denoiser predicts x_0. All in float32.
Sources: SiD2 (cosine-interpolated logSNR); DDIM; DPM-Solver++ (2M, second order multistep).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x_t [N,3,H,W] float32, t [N] float32) to the predicted x_0 [N,3,H,W]."""


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """How a diffusion decoder is run. The defaults are the published ones: one DDIM step."""

    num_steps: int = 1
    """Sampler steps; NFE is this, or twice this with PDG."""
    sampler: str = "ddim"
    schedule: str = "linear"
    pdg: bool = False
    """Path-drop guidance: a second pass without the middle blocks, extrapolated away from."""
    pdg_strength: float = 2.0
    strength: float = 1.0
    """Where on the time axis sampling starts, in (0, 1]."""
    seed: int | None = None
    """Seed of the initial noise; None draws from torch's global CPU generator."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}, it must be at least 1")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}, allowed are {', '.join(SAMPLERS)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}, allowed are {', '.join(SCHEDULES)}")
        if not 0.0 < self.strength <= 1.0:
            raise ValueError(f"strength is {self.strength}, it must be in (0, 1]")


@dataclass(frozen=True, slots=True)
class VPSchedule:
    """logSNR between two ends: lambda(0) = logsnr_max, lambda(1) = logsnr_min."""

    logsnr_min: float = -10.0
    logsnr_max: float = 10.0
    shift_high: float = 0.0
    shift_low: float = 0.0

    def log_snr(self, t: Tensor) -> Tensor:
        """lambda(t) = -2 log tan(a t + b), float32, in the shape of t; shifts as in SiD2."""
        b = math.atan(math.exp(-0.5 * self.logsnr_max))
        a = math.atan(math.exp(-0.5 * self.logsnr_min)) - b
        t = t.float()
        base = -2.0 * torch.log(torch.tan(a * t + b))
        return (1.0 - t) * (base + self.shift_high) + t * (base + self.shift_low)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise scale at t, float32; alpha² + sigma² = 1."""
        log_snr = self.log_snr(t)
        return torch.exp(0.5 * F.logsigmoid(log_snr)), torch.exp(0.5 * F.logsigmoid(-log_snr))


def linear_grid(points: int) -> Tensor:
    """`points` equally spaced times, descending from 1 to 0."""
    return torch.linspace(0.0, 1.0, points, dtype=torch.float32).flip(0)


def cosine_grid(points: int) -> Tensor:
    """`points` times, descending from 1 to 0, dense at both ends."""
    steps = torch.arange(points, dtype=torch.float32)
    return (0.5 * (1.0 - torch.cos(math.pi * steps / (points - 1)))).flip(0)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"linear": linear_grid, "cosine": cosine_grid}


def time_grid(num_steps: int, schedule: str = "linear", strength: float = 1.0) -> Tensor:
    """num_steps + 1 descending times, float32; the last is 0."""
    return SCHEDULES[schedule](num_steps + 1) * strength


def config_grid(config: InferenceConfig) -> Tensor:
    """`time_grid` of a config."""
    return time_grid(config.num_steps, config.schedule, config.strength)


def draw_noise(shape: tuple[int, ...], seed: int | None) -> Tensor:
    """Standard normal noise, float32 on the CPU, so that a seed means one picture on any device."""
    generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def initial_state(noise: Tensor, grid: Tensor, schedule: VPSchedule) -> Tensor:
    """sigma(first time) * noise; `noise` is already scaled by the pixel noise std."""
    return schedule.alpha_sigma(grid[0].to(noise.device))[1] * noise


def sample_ddim(denoise: Denoiser, state: Tensor, grid: Tensor, schedule: VPSchedule) -> Tensor:
    """Deterministic DDIM along `grid`; gives the last state [N,3,H,W], neither x_0 nor clamped."""
    alpha, sigma = schedule.alpha_sigma(grid)
    for i in range(len(grid) - 1):
        x0 = denoise(state, grid[i].expand(state.shape[0])).float()
        # In place where it can be: a large picture and what becomes of it fill the memory.
        noise = -alpha[i] * x0
        noise += state
        noise /= sigma[i]
        del state
        state = alpha[i + 1] * x0
        del x0
        noise *= sigma[i + 1]
        state += noise
        del noise
    return state


def sample_dpmpp_2m(denoise: Denoiser, state: Tensor, grid: Tensor, schedule: VPSchedule) -> Tensor:
    """DPM-Solver++ 2M along `grid`; the first step is first order. Gives the last state."""
    alpha, sigma = schedule.alpha_sigma(grid)
    log_snr = schedule.log_snr(grid)
    previous: Tensor | None = None
    for i in range(len(grid) - 1):
        x0 = denoise(state, grid[i].expand(state.shape[0])).float()
        h = 0.5 * (log_snr[i + 1] - log_snr[i])
        phi = torch.expm1(-h)
        state = (sigma[i + 1] / sigma[i]) * state
        state -= alpha[i + 1] * phi * x0
        if previous is not None:
            ratio = 0.5 * (log_snr[i] - log_snr[i - 1]) / h
            correction = x0 - previous
            correction *= 0.5 * alpha[i + 1] * phi
            correction /= ratio
            state -= correction
            del correction
        previous = x0
    return state


SAMPLERS: dict[str, Callable[[Denoiser, Tensor, Tensor, VPSchedule], Tensor]] = {
    "ddim": sample_ddim,
    "dpmpp_2m": sample_dpmpp_2m,
}


def guided(full: Denoiser, dropped: Denoiser, strength: float) -> Denoiser:
    """Path-drop guidance: x_0 = dropped + strength * (full - dropped); dropped runs first."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        without = dropped(x_t, t).float()
        return without + strength * (full(x_t, t).float() - without)

    return denoise


def sample(
    full: Denoiser,
    dropped: Denoiser,
    noise: Tensor,
    config: InferenceConfig,
    schedule: VPSchedule,
    grid: Tensor | None = None,
) -> Tensor:
    """From scaled noise [N,3,H,W] to the sampler's last state, float32.

    `full` and `dropped` are the network with and without its middle blocks; the second is only
    called with PDG. `grid` is `config_grid` on the noise's device, where it is there already.
    """
    if grid is None:
        grid = config_grid(config).to(noise.device)
    denoise = guided(full, dropped, config.pdg_strength) if config.pdg else full
    noise = initial_state(noise, grid, schedule)
    return SAMPLERS[config.sampler](denoise, noise, grid, schedule)
