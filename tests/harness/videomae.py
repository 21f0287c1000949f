"""Makes a VideoMAE V2 network of toy size, as a state dict and as a folder for --weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from latentcli.metrics.videomae import VideoMae, VideoMaeConfig

TINY = VideoMaeConfig(dim=24, depth=2, heads=3, hidden=40, patch=14, frames=16, size=56, classes=5)


def tiny_state(config: VideoMaeConfig = TINY, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights, every one of which moves the output."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {name: tensor.shape for name, tensor in VideoMae(config).state_dict().items()}
    return {
        name: torch.randn(shape, generator=draw) * (0.3 if len(shape) == 1 else 0.15)
        + float("norm" in name and name.endswith("weight"))
        for name, shape in shapes.items()
    }


def tiny_folder(folder: Path, seed: int = 0) -> Path:
    """config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(TINY)))
    save_file(tiny_state(seed=seed), folder / "model.safetensors")
    return folder
