"""Runs a model on pictures: latents, pictures, their quality and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentcli.images.codec import to_float, to_uint8
from latentcli.metrics.psnr import psnr
from latentcli.metrics.ssim import WINDOWS, ssim
from latentcli.models.base import Autoencoder
from latentcli.models.vp_diffusion import InferenceConfig
from parity.pictures import Photo

SEED = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture."""

    photo: Photo
    images: Tensor
    """float32 [1, 3, H, W] in [-1, 1]: the photo."""
    latents: Tensor
    """float32 [1, C, h, w], of the model's encoder; standard normal where it has none."""
    decoded: Tensor | None
    """float32 [1, 3, H, W], not clamped; None where the model has no decoder."""
    psnr: float | None
    """dB; None unless the model encodes and decodes."""

    def ssim(self, window: str) -> float | None:
        """Of one of metrics.ssim's WINDOWS; None as PSNR, or where the window does not fit in."""
        if self.decoded is None or self.psnr is None:
            return None
        if min(self.images.shape[-2:]) < WINDOWS[window].side:
            return None
        return ssim(self.photo.pixels[None], to_uint8(self.decoded), window).item()


def run(model: Autoencoder, photo: Photo) -> Outcome:
    """Encodes and decodes one picture, with noise of a fixed seed where the decoder takes any."""
    images = to_float(photo.pixels)[None]
    height, width = images.shape[-2:]
    latents = model.encode(images).cpu() if model.can_encode else _normal(model, height, width)
    decoded = decode(model, latents, height, width) if model.can_decode else None
    if decoded is None or not model.can_encode:
        return Outcome(photo, images, latents, decoded, None)
    before, after = photo.pixels[None], to_uint8(decoded)
    return Outcome(photo, images, latents, decoded, psnr(before, after).item())


def decode(model: Autoencoder, latents: Tensor, height: int, width: int) -> Tensor:
    """One step with noise of the fixed seed; float32 on the CPU."""
    config = InferenceConfig(seed=SEED) if model.is_diffusion else None
    return model.decode(latents, height, width, config).cpu()


def statistics(outcomes: Sequence[Outcome]) -> str:
    """Means and standard deviations of the latents' channels, over all pictures."""
    latents = torch.cat([o.latents.transpose(0, 1).flatten(1) for o in outcomes], dim=1).double()
    mean, std = latents.mean(1), latents.std(1)
    return (
        f"{len(latents)} channels: mean |mean| {mean.abs().mean():.3f},"
        f" std {std.min():.3f} to {std.max():.3f}"
    )


def _normal(model: Autoencoder, height: int, width: int) -> Tensor:
    size = model.spec.latent_size(height, width)
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(1, model.spec.channels, *size, generator=generator)
