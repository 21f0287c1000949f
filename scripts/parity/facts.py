"""Compares our presets with a folder of manifests and reference outputs.

FOLDER/manifests/NAME.json lists a published state dict's names and shapes; FOLDER/parity/NAME.npz
has inputs and outputs of the original code with weights that their names seed. All in float32 on
the CPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from harness.seeded import seeded
from torch import Tensor

from latentcli.core.errors import UsageError, WeightsError
from latentcli.models.base import Autoencoder
from latentcli.models.presets import load_preset
from latentcli.models.registry import family
from latentcli.models.weights import load_into
from parity.compare import Difference, difference, names_and_shapes

State = dict[str, Tensor]

TOLERANCE = 1e-4
"""Of the standard deviation."""
CASES = {
    "autoencoder_kl_flux2": ("flux2",),
    "autoencoder_kl_flux2_small_decoder": ("flux2_small_decoder",),
    "autoencoder_kl_sdxl": ("sdxl",),
    "autoencoder_kl_temporal_decoder_svd": ("svd",),
    "autoencoder_tiny_taesd4": ("taesd", "taesdxl"),
    "autoencoder_tiny_taesd16": ("taesd3", "taef1"),
    "autoencoder_tiny_tae192": ("tae192", "tae192_svd"),
    "decoder_tiny_temporal": ("tae_temporal",),
    "effvit_decoder": ("effvit_sdxl", "effvit_svd"),
}
"""File names, and the presets that have that network."""
FCDM_MANIFEST = "fcdm_family_tensors"
"""One file of several lists, under a preset's name and what is special about the list."""


def check_facts(folder: Path, only: str | None = None) -> Iterator[Difference]:
    """Names, shapes and outputs of every preset that the folder has numbers of, or of one.

    UsageError where it has none.
    """
    files = {name: folder / "parity" / f"{name}.npz" for name in CASES}
    found = {name: path for name, path in files.items() if path.is_file()}
    if not found:
        raise UsageError(f"{folder} has none of the files parity/{'.npz, '.join(CASES)}.npz.")
    for name, path in found.items():
        presets = [preset for preset in CASES[name] if only in (None, preset)]
        if presets:
            state = _seeded_state(folder / "manifests" / f"{name}.json")
            with np.load(path) as file:
                arrays = {key: torch.from_numpy(file[key]) for key in file.files}
            for preset in presets:
                yield from _check_preset(preset, state, arrays)
    yield from _check_fcdm_names(folder / "manifests" / f"{FCDM_MANIFEST}.json", only)


def _seeded_state(manifest: Path) -> State:
    document = json.loads(manifest.read_text(encoding="utf-8"))
    return {name: seeded(name, tuple(shape)) for name, (shape, _) in document.items()}


def _loaded(preset_name: str, state: State) -> Autoencoder:
    preset = load_preset(preset_name)
    kind = family(preset.family)
    with torch.device("meta"):
        model = kind.build(kind.infer(preset.config, frozenset(state)), preset.spec)
    source = f"the manifest of {preset_name}"
    return load_into(model, state, family=kind, dtype=torch.float32, device="cpu", source=source)


def _check_preset(preset: str, state: State, arrays: dict[str, Tensor]) -> Iterator[Difference]:
    try:
        model = _loaded(preset, state)
    except WeightsError as error:
        yield names_and_shapes(preset, len(state), str(error))
        return
    yield names_and_shapes(preset, len(state))
    results = {**_encoded(model, arrays), **_decoded(model, arrays)}
    for what, got in results.items():
        # Our latents and posterior are folded as the model's space is; so must the reference's be.
        want = arrays[what]
        fold = math.isqrt(got.shape[1] // want.shape[1]) if want.ndim == 4 else 1
        yield difference(preset, what, got, F.pixel_unshuffle(want, fold), TOLERANCE)


def _encoded(model: Autoencoder, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    if "image" not in arrays:
        return {}
    results = model.encode_posterior(arrays["image"]).moments()
    latents = model.encode(arrays["image"])
    results |= {"latents": latents, "whitened": latents}
    return {name: tensor for name, tensor in results.items() if name in arrays}


def _decoded(model: Autoencoder, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """By key, such as decoded, or decoded_nf4 of clips of four frames."""
    given = arrays["latent_in"]
    latents = F.pixel_unshuffle(given, math.isqrt(model.spec.channels // given.shape[1]))
    # Only the KL autoencoders' reference begins with raw latents: their own code has no scaling.
    latents = model.whiten(latents) if model.moments == ("mean", "logvar") else latents
    results = {}
    for key in [key for key in arrays if key.startswith("decoded")]:
        frames = int(key.partition("_nf")[2] or len(latents))
        results[key] = torch.cat(
            [model.decode_frames(clip) for clip in torch.split(latents, frames)]
        )
    return results


def _check_fcdm_names(manifest: Path, only: str | None) -> Iterator[Difference]:
    if not manifest.is_file():
        return
    for title, shapes in json.loads(manifest.read_text(encoding="utf-8")).items():
        preset, _, remark = title.partition(" ")
        if only in (None, preset):
            # One zero, seen in every shape: names and shapes take no memory.
            state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
            misfit = ""
            try:
                _loaded(preset, state)
            except WeightsError as error:
                misfit = str(error)
            what = f"names {remark}" if "alias" in remark else "names and shapes"
            yield names_and_shapes(preset, len(shapes), misfit, what)
