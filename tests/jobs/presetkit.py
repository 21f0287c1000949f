"""A checkpoint for every preset: its own structure at toy width, random weights, on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from latentcli.models.presets import Preset, load_preset
from latentcli.models.registry import family
from latentcli.models.weights import random_state

TOY_WIDTHS: dict[str, dict[str, Any]] = {
    "fcdm": {
        "model_dim": 32,
        "decoder_depth": 3,
        "decoder_start_blocks": 1,
        "decoder_end_blocks": 1,
        "adaln_low_rank_rank": 4,
    },
    "dinac": {
        "model_dim": 64,
        "encoder_depth": 1,
        "decoder_depth": 3,
        "decoder_start_blocks": 1,
        "decoder_end_blocks": 1,
        "adaln_low_rank_rank": 4,
    },
    "kl": {
        "block_out_channels": [32, 32, 32, 32],
        "decoder_block_out_channels": [32, 32, 32, 32],
        "layers_per_block": 1,
    },
    "tiny": {
        "block_out_channels": [64, 64, 64, 64],
        "decoder_block_out_channels": [64, 64, 64, 64],
        "num_encoder_blocks": [1, 1, 1, 1],
        "num_decoder_blocks": [1, 1, 1, 1],
    },
    "tiny_temporal": {"width": 64, "attention_head_dim": 32},
    "effvit": {"depth_list": [0, 1, 1, 0, 0, 0], "width_list": [16] * 6},
    "linear": {},
}
"""By family, what is smaller than in the published network; latents keep their geometry."""


def toy_checkpoint(root: Path, name: str, seed: int = 0) -> Preset:
    """Writes ROOT/<name>/ as $LATENTCLI_WEIGHTS is laid out, and gives the preset."""
    preset = load_preset(name)
    smaller = {k: v for k, v in TOY_WIDTHS[preset.family].items() if k in preset.config}
    if preset.config.get("encoder_depth"):
        smaller["encoder_depth"] = 1
    config = {**preset.config, **smaller}
    state = random_state(lambda: family(preset.family).build(config, preset.spec), seed)
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(smaller))
    if preset.file.endswith(".pth"):
        torch.save(state, folder / preset.file)
    else:
        save_file({k: v.contiguous() for k, v in state.items()}, folder / preset.file)
    return preset
