"""What the golden tests share: vectors, closeness, and the checks of the diffusion autoencoders."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from latentcli.models.diffusion_ae import DiffusionAutoencoder
from latentcli.models.vp_diffusion import InferenceConfig
from latentcli.models.weights import load_into

TOLERANCE = 5e-6
"""Largest difference from the reference, relative to the reference's largest value."""
BF16_TOLERANCE = 2e-2
"""RMS difference relative to RMS, for a whole network in bfloat16."""
Vectors = dict[str, Tensor]
Net = TypeVar("Net", bound=DiffusionAutoencoder)


def close(got: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    assert got.shape == want.shape
    worst = (got.float() - want.float()).abs().max().item()
    assert worst <= tolerance * max(want.float().abs().max().item(), 1e-30), worst


def rms_ratio(got: Tensor, want: Tensor) -> float:
    difference = (got.float() - want.float()).square().mean()
    return (difference / want.float().square().mean()).sqrt().item()


@cache
def vectors(path: Path) -> Vectors:
    # Kept for later tests, so they must be no inference tensors, whoever asks first.
    with torch.inference_mode(False):
        return load_file(path)


def published(kind: type[Net], family: str, golden: Path, name: str, dtype: torch.dtype) -> Net:
    """A network of the reference's configuration and weights, by their published names."""
    with torch.device("meta"):
        net = kind.from_config(json.loads((golden / f"{name}.config.json").read_text()))
    state = dict(vectors(golden / f"{name}.safetensors"))
    load_into(net, state, family=family, dtype=dtype, device="cpu", source=name)
    return net


def weights(pieces: Vectors, part: str) -> Vectors:
    prefix = f"{part}.w."
    return {k.removeprefix(prefix): v for k, v in pieces.items() if k.startswith(prefix)}


def decode_settings(name: str) -> InferenceConfig:
    """ddim_linear_10_pdg2 or ddim_linear_4_strength0.6 to the config it stands for."""
    sampler, schedule, steps, *rest = name.split("_")
    extra = {"pdg2": {"pdg": True, "pdg_strength": 2.0}}
    more = {}
    for word in rest:
        more.update(extra.get(word) or {"strength": float(word.removeprefix("strength"))})
    return InferenceConfig(
        num_steps=int(steps),
        sampler={"ddim": "ddim", "dpmpp2m": "dpmpp_2m"}[sampler],
        schedule=schedule,
        seed=42,
        **more,
    )


def check_posterior(net: DiffusionAutoencoder, io: Vectors, batch: str) -> None:
    """Mean, logsnr and all that follows from them, of one batch."""
    posterior = net.encode_posterior(io[f"{batch}.images"])
    eps = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(7))
    close(eps, io[f"{batch}.enc.sample_eps_seed7"])
    for key, got in {
        "mean": posterior.mean,
        "logsnr": posterior.logsnr,
        "alpha": posterior.alpha,
        "sigma": posterior.sigma,
        "mode": posterior.mode(),
        "sample_seed7": posterior.sample(generator=torch.Generator().manual_seed(7)),
        "whitened": net.encode(io[f"{batch}.images"]),
    }.items():
        close(got, io[f"{batch}.enc.{key}"])


def check_decoder_network(net: DiffusionAutoencoder, io: Vectors, batch: str, drop: bool) -> None:
    """One call of the decoder network: every stored inner tensor and its output."""
    prefix = f"{batch}.fwd.{'drop' if drop else 'full'}."
    seen: Vectors = {}
    whole = {"x0", "cond", "adaln_m"}
    names = {key.removeprefix(prefix) for key in io if key.startswith(prefix)} - whole
    hooks = [
        net.decoder.get_submodule(n).register_forward_hook(
            lambda module, args, out, n=n: seen.__setitem__(n, out)
        )
        for n in names
    ]
    z, t, x_t = (io[f"{batch}.fwd.{n}"] for n in ("z_dewhitened", "t", "x_t"))
    close(net.decoder(x_t, t, z, drop_middle_blocks=drop), io[f"{prefix}x0"])
    for hook in hooks:
        hook.remove()
    assert set(seen) == names and len(names) >= 3
    for n, got in seen.items():
        close(got, io[f"{prefix}{n}"])
    if not drop:
        close(net.decoder.time_embed(t), io[f"{prefix}cond"])
        close(torch.stack(net.decoder.modulations(t)), io[f"{prefix}adaln_m"])


def check_decode(net: DiffusionAutoencoder, io: Vectors) -> None:
    """Every decode setting of both batches, and a picture there and back."""
    settings = [k for k in io if k[1:].startswith(".dec.")]
    assert len(settings) >= 4
    for key in settings:
        height, width = io[f"{key[0]}.images"].shape[-2:]
        got = net.decode(io[f"{key[0]}.latents"], height, width, decode_settings(key[6:]))
        close(got, io[key])
    got = net.decode(net.encode(io["a.images"]), inference_config=InferenceConfig(seed=42))
    close(got, io["a.reconstruct.ddim_linear_1"])
