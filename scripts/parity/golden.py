"""Compares our models with a folder of golden vectors.

The folder holds, for each small model, NAME.config.json, NAME.safetensors and NAME.io.safetensors
with inputs and outputs of the original code: posterior, latents, decodes in many settings, class
tokens. All in float32 on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.models.base import Autoencoder
from latentcli.models.registry import family
from latentcli.models.vp_diffusion import InferenceConfig
from latentcli.models.weights import load_into
from parity.compare import Difference, difference, of_peak, of_rms

FAMILIES = ("fcdm", "dinac")
IO = ".io.safetensors"
TOLERANCE = 5e-6
"""Of the largest value: five times what a change of threads or kernels makes."""
CLASS_TOLERANCE = 5e-3
"""RMS, of a head that runs in bfloat16; it in float32 would be 8e-3 away."""
SEED, SAMPLE_SEED = 42, 7
SAMPLERS = {"ddim": "ddim", "dpmpp2m": "dpmpp_2m"}


def golden_names(folder: Path) -> list[str]:
    """Models that the folder has vectors, weights and a config of; UsageError for none."""
    names = sorted(path.name.removesuffix(IO) for path in folder.glob(f"*{IO}"))
    names = [name for name in names if (folder / f"{name}.config.json").is_file()]
    if not names:
        raise UsageError(f"{folder} holds no golden vectors (*{IO} with *.config.json).")
    return names


def check_golden(folder: Path, name: str) -> Iterator[Difference]:
    """All differences of one model, several of some results."""
    model, io = _model(folder, name), load_file(folder / f"{name}{IO}")
    for key in sorted(io):
        batch, _, rest = key.partition(".")
        kind, _, what = rest.partition(".")
        if kind == "images":
            yield from _posterior(model, io, name, batch)
        elif kind in ("dec", "reconstruct"):
            start = f"{batch}.latents" if kind == "dec" else f"{batch}.images"
            latents = io[start] if kind == "dec" else model.encode(io[start])
            height, width = io[f"{batch}.images"].shape[-2:]
            got = model.decode(latents, height, width, settings(what))
            label = what if kind == "dec" else f"encode, {what}"
            yield difference(name, label, got, io[key], TOLERANCE, of_peak)
        elif rest == "cls.api_bf16_autocast":
            got = model.predict_class(io[f"{batch}.latents"])
            yield difference(name, "class token", got, io[key], CLASS_TOLERANCE, of_rms)


def settings(name: str) -> InferenceConfig:
    """ddim_linear_10_pdg2 or ddim_linear_4_strength0.6 to the settings that it names."""
    sampler, schedule, steps, *rest = name.split("_")
    extra: dict[str, Any] = {}
    for word in rest:
        if word.startswith("pdg"):
            extra |= {"pdg": True, "pdg_strength": float(word.removeprefix("pdg"))}
        else:
            extra["strength"] = float(word.removeprefix("strength"))
    return InferenceConfig(int(steps), SAMPLERS[sampler], schedule, seed=SEED, **extra)


def _model(folder: Path, name: str) -> Autoencoder:
    config = json.loads((folder / f"{name}.config.json").read_text(encoding="utf-8"))
    kind = next(kind for kind in map(family, FAMILIES) if kind.recognises(config))
    path = folder / f"{name}.safetensors"
    state = load_file(path)
    with torch.device("meta"):
        model = kind.build(kind.infer(config, frozenset(state)), None)
    return load_into(model, state, family=kind, dtype=torch.float32, device="cpu", source=str(path))


def _posterior(
    model: Autoencoder, io: dict[str, Tensor], name: str, batch: str
) -> Iterator[Difference]:
    images = io[f"{batch}.images"]
    posterior = model.encode_posterior(images)
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    for key, got in {
        **posterior.moments(),
        "mode": posterior.mode(),
        f"sample_seed{SAMPLE_SEED}": posterior.sample(generator=generator),
        "whitened": model.encode(images),
    }.items():
        what = "latents" if key == "whitened" else "posterior"
        yield difference(name, what, got, io[f"{batch}.enc.{key}"], TOLERANCE, of_peak)
