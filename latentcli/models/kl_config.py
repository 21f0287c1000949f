"""Checks the config.json of a KL autoencoder and builds diffusers' network of it.

diffusers is an extra, imported only here and only when a network is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from latentcli.core.errors import UsageError, WeightsError
from latentcli.models import config_checks as checks
from latentcli.models.config_checks import Check, check, list_of, refuse_unknown

FLUX2, IMAGE, TEMPORAL = "AutoencoderKLFlux2", "AutoencoderKL", "AutoencoderKLTemporalDecoder"
CLASSES = (FLUX2, IMAGE, TEMPORAL)
INSTALL = "pip install 'latentcli[diffusers]'"
UNUSED = ("sample_size", "force_upcast", "batch_norm_momentum")
"""Config keys about tiling, float16 and training, none of which happens here."""
NULLABLE = ("decoder_block_out_channels", "shift_factor", "latents_mean", "latents_std")


_KINDS: dict[tuple[str, ...], Check] = {
    ("in_channels", "out_channels", "latent_channels", "layers_per_block", "norm_num_groups"): (
        checks.WHOLE
    ),
    ("block_out_channels", "decoder_block_out_channels", "patch_size"): (
        list_of(checks.is_whole, "positive whole numbers")
    ),
    ("down_block_types", "up_block_types"): list_of(checks.is_text, "names"),
    ("scaling_factor", "shift_factor", "batch_norm_eps"): checks.NUMBER,
    ("latents_mean", "latents_std"): list_of(checks.is_number, "numbers"),
    ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"): checks.SWITCH,
}


# A list in the config -> the key that says how many entries it must have.
_LENGTHS = {
    "down_block_types": "block_out_channels",
    "up_block_types": "block_out_channels",
    "decoder_block_out_channels": "block_out_channels",
    "latents_mean": "latent_channels",
    "latents_std": "latent_channels",
}


def class_of(config: Mapping[str, Any]) -> Any:
    """What the config says that its diffusers class is, or None."""
    return config.get("autoencoder", config.get("_class_name"))


def build_vae(config: Mapping[str, Any]) -> Any:
    """An object of the diffusers class that the config names.

    UsageError where diffusers is absent or too old, WeightsError for a config that cannot be run.
    """
    name = class_of(config)
    if name not in CLASSES:
        raise WeightsError(
            f"The config says autoencoder = {name!r}; allowed are {', '.join(CLASSES)}."
        )
    kind = _diffusers_class(name)
    defaults = {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    given = _arguments(config, name, set(defaults))
    _check_network({**defaults, **given})
    try:
        return kind(**given)
    except (ValueError, TypeError, RuntimeError, KeyError, ZeroDivisionError) as error:
        raise WeightsError(f"diffusers cannot build {name} from the config: {error}.") from error


def _diffusers_class(name: str) -> Any:
    try:
        diffusers = import_module("diffusers")
    except ModuleNotFoundError as error:
        if error.name != "diffusers":
            raise UsageError(f"diffusers cannot be imported: {error}. Try {INSTALL}.") from error
        raise UsageError(
            f"This model runs through diffusers, which is not installed: {INSTALL}."
        ) from error
    try:
        return getattr(diffusers, name)
    except (AttributeError, ImportError, RuntimeError) as error:
        raise UsageError(
            f"diffusers {diffusers.__version__} has no working {name}: {error}."
            f" Get a newer one: {INSTALL} --upgrade."
        ) from error


def _arguments(config: Mapping[str, Any], name: str, known: set[str]) -> dict[str, Any]:
    """What the config passes to diffusers, checked; what it leaves out takes diffusers' default."""
    own = {"autoencoder", "parts", *UNUSED}
    # A leading underscore marks notes of the tool that wrote the file, such as its version.
    keys = [key for key in config if key not in own and not key.startswith("_")]
    refuse_unknown(keys, known | own, name)
    rules = {key: rule for keys, rule in _KINDS.items() for key in keys}
    for key in keys:
        if config[key] is not None or key not in NULLABLE:
            check(key, config[key], rules.get(key, (checks.is_text, "a text")))
    return {key: config[key] for key in keys}


def _check_network(config: Mapping[str, Any]) -> None:
    """What diffusers takes without complaint, or none that helps, and that cannot be right."""
    wrong = [
        f"{key} has {len(config[key])} entries, but {other} is {config[other]}"
        for key, other in _LENGTHS.items()
        if config.get(key) and len(config[key]) != _count(config[other])
    ]
    wrong += [
        f"{key} is {config[key]}, pictures have 3"
        for key in ("in_channels", "out_channels")
        if config[key] != 3
    ]
    patch = tuple(config.get("patch_size", (1, 1)))
    if len(patch) != 2 or patch[0] != patch[1]:
        wrong.append(f"patch_size is {patch}, only a square is supported")
    if config.get("latents_mean") and config.get("shift_factor"):
        wrong.append("latents_mean and shift_factor are both given, and only one of them may be")
    if config.get("scaling_factor") == 0:
        wrong.append("scaling_factor is 0")
    if wrong:
        raise WeightsError(f"The config cannot be run: {'; '.join(wrong)}.")


def _count(value: Any) -> int:
    return value if isinstance(value, int) else len(value)
