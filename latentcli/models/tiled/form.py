"""Derives from a model in its fast form the same model that keeps below a limit of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentcli.models.base import Autoencoder
from latentcli.models.effvit import EffViTDecoder
from latentcli.models.fast.fcdm import FastFCDMDecoder, FastFCDMEncoder
from latentcli.models.tiled.fcdm import StrippedDecoder, StrippedEncoder
from latentcli.models.tiled.room import Room
from latentcli.models.tiled.windows import Measure, TiledNetwork
from latentcli.models.tiny import TinyAutoencoder

NETWORKS = {"encode": "encoder", "decode": "decoder"}
SAMPLE_SIDE = 128
"""Pixels a side, or a little more, of the picture on which it is measured what a model takes."""
GIVEN = {"encode": 28, "decode": 24}
"""Bytes per pixel of what a half is called with: a picture in 8 bits, in floats, and mirrored; the
noise of a diffusion decoder, and what the longest of the samplers keeps of an earlier step."""

OBSTACLES = {
    "dinac": "in its encoder every patch sees every other",
    "kl": "its norms and its attention span the whole picture",
    "linear": "it takes little more than the picture itself",
    "tiny_temporal": "its norms and its attention span the whole picture",
}
"""Family to why a network of it is computed whole, as the end of a sentence."""


Builder = Callable[[Any, str, Room, Measure], dict[str, nn.Module]]
"""(model, half, room, measure) to the modules in parts, by the names of those they stand for."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a half of some models works in parts."""

    build: Builder
    beside: int
    """Bytes per pixel that are alive while the network is at work on parts, its own apart, or
    before and after that: what the half is called with; of tiny encoders a picture in [0, 1]; of
    decoders a picture on its way to 8 bits, or the states of a sampler."""


def tiled_form(
    model: Autoencoder, limit: int, measure: Measure
) -> tuple[Autoencoder, dict[str, Room]]:
    """(The model, in parts where a picture would take more; what each of its halves may take).

    `limit` is in bytes, beside the weights. The model is in its fast form already; it is not
    changed, and shares its weights with the result. A network that has no such form stays as it is.
    """
    rooms, parts = dict[str, Room](), dict[str, nn.Module]()
    for half in NETWORKS:
        if getattr(model, f"can_{half}"):
            form = form_of(model, half)
            rooms[half] = room_of(model, half, form, limit, measure)
            parts |= {} if form is None else form.build(model, half, rooms[half], measure)
    tiled = copy(model)
    tiled._modules = {**model._modules, **parts}
    return tiled, rooms


def room_of(model: Autoencoder, half: str, form: Form | None, limit: int, measure: Measure) -> Room:
    """What a half of a model may take, from what it takes for a small picture."""
    images, latents = samples(model)
    calls: dict[str, Callable[[], Tensor]] = {
        "encode": lambda: model.encode(images),
        "decode": lambda: model.decode(latents, noise=images),
    }
    _, taken = measure(calls[half])
    whole = GIVEN[half] + -(-taken // (images.shape[-2] * images.shape[-1]))
    if form is not None:
        return Room(limit, max(whole, form.beside), form.beside)
    family = type(model).__module__.rpartition(".")[2]
    return Room(limit, whole, whole, OBSTACLES.get(family, "its family does not support it"))


def samples(model: Autoencoder) -> tuple[Tensor, Tensor]:
    """A small picture [1, 3, H, W] and its latents [1, C, h, w], zero, on the model's device."""
    spec = model.spec
    side = -(-SAMPLE_SIDE // spec.size_divisor) * spec.size_divisor
    latents = torch.zeros(1, spec.channels, *spec.latent_size(side, side), device=model.device)
    return torch.zeros(1, 3, side, side, device=model.device), latents


def tiny(model: TinyAutoencoder, half: str, room: Room, measure: Measure) -> dict[str, nn.Module]:
    """The layers of the TAESD networks."""
    images, latents = samples(model)
    fold = model.config.patch_size
    sample = images if half == "encode" else nn.functional.pixel_shuffle(latents, fold)
    pixels = 1 if half == "encode" else model.spec.downscale // fold
    layers = list(model.get_submodule(f"{NETWORKS[half]}.layers").children())
    network = TiledNetwork(layers, room, pixels, sample.to(model.dtype), measure)
    return {NETWORKS[half]: network}


def effvit(model: EffViTDecoder, half: str, room: Room, measure: Measure) -> dict[str, nn.Module]:
    """All layers as the first; none are left for the others."""
    stages = [*reversed(model.stages), model.project_out]
    rest = (layer for stage in stages for layer in stage.get_submodule("op_list").children())
    layers = [model.project_in, *rest]
    sample = samples(model)[1].to(model.dtype)
    network = TiledNetwork(layers, room, model.spec.downscale, sample, measure)
    return {"project_in": network, "stages": nn.ModuleList(), "project_out": nn.Identity()}


def fcdm_encoder(model: Any, half: str, room: Room, measure: Measure) -> dict[str, nn.Module]:
    """An encoder of FCDM blocks."""
    config = model.config
    return {"encoder": StrippedEncoder(model.encoder, config.model_dim, config.hidden, room)}


def fcdm_decoder(model: Any, half: str, room: Room, measure: Measure) -> dict[str, nn.Module]:
    """The diffusion decoder."""
    config = model.config
    return {"decoder": StrippedDecoder(model.decoder, config.model_dim, config.hidden, room)}


OF_MODELS: Mapping[tuple[type[Autoencoder], str], Form] = {
    (TinyAutoencoder, "encode"): Form(tiny, beside=40),
    (TinyAutoencoder, "decode"): Form(tiny, beside=52),
    (EffViTDecoder, "decode"): Form(effvit, beside=52),
}
OF_NETWORKS: Mapping[type[nn.Module], Form] = {
    FastFCDMEncoder: Form(fcdm_encoder, beside=28),
    FastFCDMDecoder: Form(fcdm_decoder, beside=60),
}


def form_of(model: Autoencoder, half: str) -> Form | None:
    """How the half of a model works in parts; None where it works whole alone."""
    network: Any = type(getattr(model, NETWORKS[half], None))
    return OF_MODELS.get((type(model), half)) or OF_NETWORKS.get(network)
