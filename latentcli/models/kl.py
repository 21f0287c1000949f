"""Builds the KL autoencoders of FLUX.2, SDXL and SVD, and any other of the same diffusers classes.

They encode to a Gaussian posterior, through the networks of diffusers, which is an extra and is
imported only when one is built. FLUX.2's 32 channels at an eighth are folded into 128 at a
sixteenth and whitened by its batch norm's statistics; the others' latents are shifted and scaled as
a whole. Sources: diffusers' model classes and pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentcli.core.errors import WeightsError
from latentcli.core.posterior import GaussianPosterior
from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder, Family
from latentcli.models.kl_config import CLASSES, FLUX2, TEMPORAL, build_vae, class_of
from latentcli.models.kl_keys import PARTS, parts_of, present_names
from latentcli.models.whitening import dewhiten, whiten

CLIP = 8
"""Frames that the temporal decoder is given at once: what users of SVD give it."""
STATS = ("bn.running_mean", "bn.running_var")


class KLAutoencoder(Autoencoder):
    """A diffusers KL autoencoder; images NCHW in [-1, 1].

    Its parts keep their published names: encoder, decoder, quant_conv, post_quant_conv and bn. One
    half may be absent.
    """

    moments = ("mean", "logvar")

    def __init__(self, vae: Any, parts: str = PARTS[0], spec: LatentSpec | None = None) -> None:
        """`vae` is an object of one of CLASSES; `parts` is which of PARTS to keep of it."""
        super().__init__()
        config = vae.config
        self.can_encode, self.can_decode = parts != "decoder", parts != "encoder"
        self.encoder: nn.Module | None = vae.encoder if self.can_encode else None
        self.quant_conv: nn.Module | None = vae.quant_conv if self.can_encode else None
        self.decoder: nn.Module | None = vae.decoder if self.can_decode else None
        self.post_quant_conv: nn.Module | None = (
            getattr(vae, "post_quant_conv", None) if self.can_decode else None
        )
        self.bn: nn.BatchNorm2d | None = getattr(vae, "bn", None)
        self.is_video = type(vae).__name__ == TEMPORAL
        self.frames_per_chunk = CLIP if self.is_video else 1
        self.levels = len(config.block_out_channels)
        self.fold = 1 if self.bn is None else config.patch_size[0]
        downscale = self.fold * 2 ** (self.levels - 1)
        self.spec = spec or LatentSpec(
            channels=config.latent_channels * self.fold**2,
            downscale=downscale,
            size_divisor=downscale,
            space="kl",
            state="scaled" if self.bn is None else "whitened",
        )
        mean, std = config.get("latents_mean"), config.get("latents_std")
        self.shift = (config.get("shift_factor") or 0.0) if mean is None else _column(mean)
        self.scale = config.get("scaling_factor", 1.0) / (1.0 if std is None else _column(std))

    def _posterior(self, images: Tensor) -> GaussianPosterior:
        """Raw; FLUX.2's folded as its latents are."""
        assert self.encoder is not None
        moments = self.encoder(images.to(self.dtype))
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, logvar = moments.chunk(2, dim=1)
        return GaussianPosterior(self._folded(mean), self._folded(logvar))

    def _decode(
        self, latents: Tensor, frames: int, inference_config: Any, noise: Tensor | None
    ) -> Tensor:
        assert self.decoder is not None
        z = F.pixel_shuffle(self.dewhiten(latents), self.fold).to(self.dtype)
        if self.post_quant_conv is not None:
            z = self.post_quant_conv(z)
        options: dict[str, Any] = {}
        if self.is_video:
            stills = torch.zeros(len(z) // frames, frames, dtype=z.dtype, device=z.device)
            options = {"num_frames": frames, "image_only_indicator": stills}
        images: Tensor = self.decoder(z, **options)
        return images

    def whiten(self, latents: Tensor) -> Tensor:
        """Raw latents [N, C, h, w], folded where FLUX.2's, to whitened or scaled ones, float32."""
        if self.bn is not None:
            return whiten(latents, *_stats(self.bn))
        return (latents.float() - _on(self.shift, latents)) * _on(self.scale, latents)

    def dewhiten(self, latents: Tensor) -> Tensor:
        """Inverse of `whiten`, float32."""
        if self.bn is not None:
            return dewhiten(latents, *_stats(self.bn))
        return latents.float() / _on(self.scale, latents) + _on(self.shift, latents)

    def _folded(self, latents: Tensor) -> Tensor:
        """Channel c at (dy, dx) of each 2x2 cell becomes channel c * 4 + dy * 2 + dx."""
        return F.pixel_unshuffle(latents, self.fold)


def _stats(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor, float]:
    assert bn.running_mean is not None and bn.running_var is not None
    return bn.running_mean, bn.running_var, bn.eps


def _column(values: list[float]) -> Tensor:
    # Models are built on the meta device, where a tensor would hold no values.
    return torch.tensor(values, dtype=torch.float32, device="cpu")[:, None, None]


def _on(value: float | Tensor, latents: Tensor) -> float | Tensor:
    return value.to(latents.device) if isinstance(value, Tensor) else value


def build(config: Mapping[str, Any], spec: LatentSpec | None) -> KLAutoencoder:
    """The network of the class that the config names, or the half that its `parts` says.

    UsageError where diffusers is absent or too old, WeightsError for a config that cannot be.
    """
    parts = config.get("parts", PARTS[0])
    if parts not in PARTS:
        raise WeightsError(f"The config says parts = {parts!r}; allowed are {', '.join(PARTS)}.")
    return KLAutoencoder(build_vae(config), parts, spec)


def adapt(state: dict[str, Tensor], model: Autoencoder) -> dict[str, Tensor]:
    """Original and older spellings to diffusers' present ones; unknown names pass unchanged.

    WeightsError for a file that lacks FLUX.2's batch-norm statistics and nothing else: without them
    its latents cannot be whitened or dewhitened.
    """
    assert isinstance(model, KLAutoencoder)
    expected = model.state_dict()
    names = present_names(state, model.levels)
    state = {names[old]: _as_matrix(t, expected.get(names[old])) for old, t in state.items()}
    lost = set(expected) - set(state)
    if set(STATS) <= lost and all(name.startswith("bn.") for name in lost):
        raise WeightsError(
            f"The weights lack the batch-norm statistics {' and '.join(STATS)}, with which"
            " FLUX.2's latents are whitened: files that hold only a decoder lack them. Use a file"
            " that has them, such as diffusion_pytorch_model.safetensors or"
            " full_encoder_small_decoder.safetensors."
        )
    return state


def _as_matrix(tensor: Tensor, wanted: Tensor | None) -> Tensor:
    """A 1x1 convolution's [D, C, 1, 1] holds the same numbers as a matrix [D, C]."""
    if wanted is not None and wanted.ndim == 2 and tensor.shape == (*wanted.shape, 1, 1):
        return tensor.reshape(wanted.shape)
    return tensor


FAMILY = Family(
    name="kl",
    recognises=lambda config: class_of(config) in CLASSES,
    build=build,
    adapt=adapt,
    infer=lambda config, names: {**config, "parts": parts_of(names)},
    halves=True,
    space_keys=("scaling_factor", "shift_factor", "latents_mean", "latents_std", "batch_norm_eps"),
    tiny={
        "autoencoder": FLUX2,
        "block_out_channels": [8, 8, 16, 16],
        "layers_per_block": 1,
        "latent_channels": 2,
        "norm_num_groups": 4,
    },
)
