"""Loads a model with its weights by preset name, Hub id, folder or preset file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from latentcli.core.errors import UsageError, WeightsError
from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder, Family, ModelInfo
from latentcli.models.presets import (
    Preset,
    check_extra,
    check_model_name,
    did_you_mean,
    load_preset,
    preset_names,
    preset_of_repo,
)
from latentcli.models.pretrained import CONFIG, Checkpoint, Located, at_path, locate
from latentcli.models.weights import (
    check_sha256,
    checkpoint_sha256,
    load_into,
    random_state,
    read_checkpoint,
)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Build = Callable[[Mapping[str, Any], LatentSpec | None], Autoencoder]
logger = logging.getLogger(__name__)


@cache
def families() -> tuple[str, ...]:
    """Modules of latentcli.models that declare a FAMILY, as the presets name them; imports none."""
    return tuple(sorted({load_preset(name).family for name in preset_names()}))


def family(name: str) -> Family:
    """The network structure of this name; UsageError for a name that is none."""
    path = f"latentcli.models.{name}"
    # Asking `families` would read every preset.
    module = import_module(path) if name.isidentifier() and find_spec(path) else None
    found: Family | None = getattr(module, "FAMILY", None)
    if found is None:
        raise UsageError(
            f"There is no model family {name!r}.{did_you_mean(name, families())}"
            f" Families are: {', '.join(families())}."
        )
    return found


def find_preset(name_or_path: str | Path) -> Preset | None:
    """The preset that is meant by a preset name, a .toml path or a preset's Hub id.

    None for a local folder or the Hub id of a repository without a preset; UsageError for anything
    else. A preset's name comes before a folder of that name: ./name is the folder.
    """
    text = str(name_or_path)
    check_model_name(text)
    if text in preset_names() or text.endswith(".toml"):
        return load_preset(text)
    if Path(text).expanduser().is_dir():
        return None
    return preset_of_repo(text)


def load_model(
    name_or_path: str | Path,
    *,
    weights: str | Path | None = None,
    revision: str | None = None,
    cache_dir: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
    random_weights: bool = False,
    build: Build | None = None,
) -> Autoencoder:
    """A model with its weights, in eval mode and frozen; its `info` says where they came from.

    `name_or_path` is a preset, a Hub id (org/name), a folder of config.json and the weights, or a
    preset's .toml file. `weights` is a file or folder to use instead of the known places.
    `dtype` is float32 ("fp32") or bfloat16 ("bf16"). `build` replaces the family's constructor.
    UsageError for an unknown name, WeightsError for weights that are absent, damaged or misfit.
    """
    dtype = as_dtype(dtype)
    if random_weights:
        return build_model(name_or_path, device=device, dtype=dtype)
    preset = find_preset(name_or_path)
    if preset:
        check_extra(preset)
    located = _locate(str(name_or_path), preset, weights, revision, cache_dir)
    path, paths = located.weights_path, (located.weights_path, *located.also)
    if preset and preset.sha256 and located.origin != "flag" and revision is None:
        check_sha256(path, preset.sha256, preset.name)
    if preset:
        _tell_of_namesake(preset, path)
    state = read_checkpoint(paths)
    kind, config = _network(preset, located.config, str(path.parent))
    config = kind.infer(config, frozenset(state))
    with torch.device("meta"):
        model = (build or kind.build)(config, preset.spec if preset else None)
        plain = (build or kind.build)(config, None) if preset else model
    if preset:
        _check_geometry(plain, preset, path, kind)
        model.can_encode &= preset.can_encode
        model.can_decode &= preset.can_decode
    else:
        # The digest names the same latents wherever the weights were found.
        model.spec = replace(model.spec, space=f"local-{checkpoint_sha256(paths)[:12]}")
    load_into(model, state, family=kind, dtype=dtype, device=device, source=str(path))
    model.info = ModelInfo(
        str(name_or_path),
        kind.name,
        located.origin,
        preset.name if preset else None,
        located.repo,
        located.revision,
        str(path),
        checkpoint_sha256(paths),
        preset.psnr_floor if preset else None,
        config,
    )
    return model


def build_model(
    name_or_path: str | Path,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
) -> Autoencoder:
    """The network of a preset or folder with seeded random weights, for benchmarks and tests.

    Outputs are finite and of a sane scale but mean nothing; whitening changes nothing (mean 0,
    variance 1). The same seed gives the same weights on every device.
    """
    preset = find_preset(name_or_path)
    folder = Path(name_or_path).expanduser()
    if preset is None and not folder.is_dir():
        raise UsageError(
            f"{name_or_path} cannot have random weights: its config is on the Hub. Presets and"
            f" folders with a {CONFIG} can."
        )
    found = None if preset else at_path(folder).config
    kind, config = _network(preset, found, str(folder))
    spec = preset.spec if preset else None
    state = random_state(lambda: kind.build(config, spec), seed)
    with torch.device("meta"):
        model = kind.build(config, spec)
    if preset:
        model.can_encode &= preset.can_encode
        model.can_decode &= preset.can_decode
    load_into(
        model, state, family=kind, dtype=as_dtype(dtype), device=device, source="random weights"
    )
    model.info = ModelInfo(
        str(name_or_path), kind.name, "random", preset_name=preset.name if preset else None
    )
    return model


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """fp32 or bf16, or the torch dtype itself; UsageError for any other."""
    if isinstance(dtype, str):
        dtype = DTYPES.get(dtype, dtype)
    if isinstance(dtype, str) or dtype not in DTYPES.values():
        raise UsageError(f"dtype is {dtype}, allowed are {', '.join(DTYPES)}.")
    return dtype


def _locate(
    name: str,
    preset: Preset | None,
    weights: str | Path | None,
    revision: str | None,
    cache_dir: str | None,
) -> Located:
    folder = Path(name).expanduser()
    if preset is not None or not folder.is_dir():
        wanted = Checkpoint.of_preset(preset) if preset else Checkpoint(name, repo=name)
        return locate(wanted, weights=weights, revision=revision, cache_dir=cache_dir)
    if revision is not None:
        raise UsageError(f"{name} is a folder and has no revisions: leave out {revision!r}.")
    if weights is None:
        return at_path(folder)
    found = at_path(Path(weights), origin="flag")
    return replace(found, config=found.config or at_path(folder).config)


def _network(
    preset: Preset | None, found: dict[str, Any] | None, where: str
) -> tuple[Family, dict[str, Any]]:
    """The family, and the config to build from.

    A checkpoint's own config.json beats the preset in the keys that the preset knows. Without a
    preset every key counts, and the family refuses those it does not know.
    """
    if preset is None:
        return _recognise(found, where), dict(found or {})
    found = found or {}
    _refuse_other_class(preset, found, where)
    # A leading underscore marks notes of the tool that wrote the file, such as its version; null is
    # how diffusers writes that a key is not used.
    strange = sorted(
        key
        for key, value in found.items()
        if key not in preset.config and not key.startswith("_") and value is not None
    )
    if strange:
        logger.warning(
            "%s/%s has keys that preset %s does not know; they are not used: %s",
            where,
            CONFIG,
            preset.name,
            ", ".join(strange),
        )
    kind = family(preset.family)
    for key in kind.space_keys:
        if key in found and found[key] != preset.config.get(key):
            raise WeightsError(
                f"{where}/{CONFIG} says {key} = {found[key]!r}, but preset {preset.name} has"
                f" {preset.config.get(key)!r}: its latents would not be of {preset.space}. These"
                " are the weights of something else."
            )
    known = {key: value for key, value in found.items() if key in preset.config}
    return kind, {**preset.config, **known}


def _refuse_other_class(preset: Preset, found: Mapping[str, Any], where: str) -> None:
    """WeightsError where a config.json names the class of another family's network."""
    named = found.get("_class_name")
    if not named:
        return
    others = (name for name in families() if name != preset.family)
    if any(family(name).recognises(found) for name in others):
        raise WeightsError(
            f"{where}/{CONFIG} is that of an {named}, but preset {preset.name} is of the family"
            f" {preset.family}: these are the weights of something else."
        )


def _recognise(config: dict[str, Any] | None, where: str) -> Family:
    if config is None:
        raise WeightsError(
            f"{where} has no {CONFIG}, so it is not known which network the weights are for. Put"
            f" the repository's {CONFIG} there, or name a preset: {', '.join(preset_names())}."
        )
    for name in families():
        if family(name).recognises(config):
            return family(name)
    raise WeightsError(
        f"{where}/{CONFIG} does not match any family that latentcli knows"
        f" ({', '.join(families())}); its keys are {', '.join(sorted(config)) or 'none'}."
    )


def _tell_of_namesake(preset: Preset, path: Path) -> None:
    """Warns of a file named after another preset of the same network and other latents.

    Nothing in such a file tells the two apart: TAESD's for SD 1 and for SDXL have the same shapes.
    """
    if path.name == preset.file:
        return
    presets = [p for p in map(load_preset, preset_names()) if p.family == preset.family]
    meant = [p for p in presets if p.name in path.stem.lower() or p.file == path.name]
    likely = max(meant, key=lambda p: (p.file == path.name, len(p.name)), default=preset)
    of_one_shape = likely.spec.geometry == preset.spec.geometry
    if of_one_shape and likely.space != preset.space:
        logger.warning(
            "%s is named as the weights of %s are, and is loaded as %s: their shapes are the same,"
            " but %s latents are not %s latents.",
            path,
            likely.name,
            preset.name,
            likely.space,
            preset.space,
        )


def _check_geometry(model: Autoencoder, preset: Preset, path: Path, kind: Family) -> None:
    found, wanted = model.spec.geometry, preset.spec.geometry
    if found != wanted:
        raise WeightsError(
            f"{path.parent / CONFIG} describes an {found} model, but preset {preset.name} is"
            f" {wanted}: these are the weights of something else."
        )
    if model.can_encode < preset.can_encode and not kind.halves:
        raise WeightsError(
            f"{path} holds only a decoder, but preset {preset.name} has an encoder too."
        )
