"""Builds the --json documents of `models` and `models show`.

The list is made from the presets alone and loads no torch; nothing here asks the network or reads
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from latentcli.core.errors import UsageError, WeightsError
from latentcli.models.presets import (
    Preset,
    load_preset,
    preset_names,
    preset_of_repo,
    unknown_preset,
)

if TYPE_CHECKING:
    from latentcli.models.base import Autoencoder

SIDE = 512
"""Pixels along each side of the picture that a card gives as its example."""
BF16_BYTES = 2
PARTS = {
    "encoder": "encoder",
    "quant_conv": "encoder",
    "decoder": "decoder",
    "post_quant_conv": "decoder",
    "dino_token_alignment_head": "class_head",
}
"""A network's children and the part of the model that each is; others serve all that it can do."""


def model_names() -> list[str]:
    """The presets' names."""
    return preset_names()


def list_models() -> list[dict[str, Any]]:
    """One entry per preset, by name."""
    return [_entry(preset) for preset in _presets()]


def show_model(name: str) -> dict[str, Any]:
    """All that is known of one model: a preset's name, its Hub id, or a preset's .toml file.

    `parameters_by_part`, `predicts_class`, `is_video`, `frames_per_chunk` and `moments` are told by
    the network, which is built without memory for its weights; they are None, and `network_note`
    says why, where an extra that it needs is not installed. UsageError for an unknown name.
    """
    preset = _find(name)
    others = [other for other in _presets() if other.name != preset.name]
    sharing = [preset, *(other for other in others if other.space == preset.space)]
    return {
        **_entry(preset),
        "geometry": preset.spec.geometry,
        "example": _example(preset),
        "encoded_by": [other.name for other in sharing if other.can_encode],
        "decoded_by": [other.name for other in sharing if other.can_decode],
        "image_range": list(preset.image_range),
        "output_range": preset.config.get("output_range"),
        **_network_facts(preset),
        "config": dict(preset.config),
        "published": preset.published,
        "card": preset.card,
        "paper": preset.paper or None,
        **_weights_facts(preset),
    }


def decoders_of(space: str | None) -> list[str]:
    """Names of the presets that decode latents of a space; none where it is not known."""
    return [preset.name for preset in _presets() if preset.can_decode and preset.space == space]


def _presets() -> list[Preset]:
    return [load_preset(name) for name in preset_names()]


def _find(name: str) -> Preset:
    if name in preset_names() or name.endswith(".toml"):
        return load_preset(name)
    found = preset_of_repo(name)
    if found is None:
        raise unknown_preset(name, "The Hub id of a preset, or a preset's .toml file, works too.")
    return found


def _entry(preset: Preset) -> dict[str, Any]:
    from latentcli.models.pretrained import weights_status

    return {
        "name": preset.name,
        "family": preset.family,
        "parameters": preset.parameters,
        "latent_channels": preset.channels,
        "downscale": preset.downscale,
        "size_divisor": preset.size_divisor,
        "latent_space": preset.space,
        "latent_state": preset.state,
        "can_encode": preset.can_encode,
        "can_decode": preset.can_decode,
        "weights": weights_status(preset),
        "licence": preset.licence,
        "summary": preset.summary,
        "extra": preset.extra,
    }


def _example(preset: Preset) -> dict[str, Any]:
    """A square picture of about SIDE pixels, and what becomes of it."""
    side = max(round(SIDE / preset.size_divisor), 1) * preset.size_divisor
    h, w = preset.spec.latent_size(side, side)
    return {
        "image": [side, side],
        "latent": [preset.channels, h, w],
        "bytes_in_bf16": preset.channels * h * w * BF16_BYTES,
    }


def _network_facts(preset: Preset) -> dict[str, Any]:
    import torch

    from latentcli.models.registry import family

    facts = ("predicts_class", "is_video", "frames_per_chunk", "moments")
    kind = family(preset.family)
    try:
        with torch.device("meta"):
            model = kind.build(preset.config, preset.spec)
    except UsageError as error:  # an extra is missing; WeightsError is a preset that is wrong
        return dict.fromkeys(("parameters_by_part", *facts)) | {"network_note": str(error)}
    values: dict[str, Any] = {name: getattr(model, name) for name in facts}
    values["moments"] = list(values["moments"]) if preset.can_encode else []
    return {"parameters_by_part": _by_part(model), **values, "network_note": None}


def _by_part(model: Autoencoder) -> dict[str, int]:
    rest = "shared" if model.can_encode else "decoder"
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = PARTS.get(name.partition(".")[0], rest)
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def _weights_facts(preset: Preset) -> dict[str, Any]:
    """Where the weights are published, and where they are on this machine."""
    from latentcli.models.pretrained import at_hand

    source: Mapping[str, Any] = {
        name: getattr(preset, name) or None
        for name in ("repo", "subfolder", "file", "revision", "bundled", "sha256")
    }
    if preset.repo is None:
        source = {**source, "subfolder": None, "revision": None}
    problem, found = None, None
    try:
        found = at_hand(preset)
    except WeightsError as error:
        problem = str(error)
    return {
        "weights_source": source,
        "weights_origin": found.origin if found else None,
        "weights_path": str(found.weights_path) if found else None,
        "weights_problem": problem,
    }
