"""What the parity tests share: manifests, name-seeded weights, and the measure of closeness."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from harness.seeded import seeded
from torch import Tensor

from latentcli.models.base import Autoencoder, Family

__all__ = ["arrays", "close", "load", "manifest", "seeded", "seeded_state"]

TOLERANCE = 1e-4
"""Largest difference from the reference, relative to the reference's standard deviation."""


def manifest(shared: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of a published state dict."""
    document = json.loads((shared / "facts" / "manifests" / f"{name}.json").read_text())
    return {key: tuple(shape) for key, (shape, _) in document.items()}


def seeded_state(shared: Path, name: str) -> dict[str, Tensor]:
    """The whole state dict of a manifest, name-seeded."""
    return {key: seeded(key, shape) for key, shape in manifest(shared, name).items()}


def load(model: Autoencoder, family: Family, state: dict[str, Tensor]) -> Autoencoder:
    """The model with a published state dict, through the family's own key map, strictly."""
    model.load_state_dict(family.adapt(dict(state), model), strict=True)
    return model.eval()


def arrays(shared: Path, name: str) -> dict[str, Tensor]:
    """Inputs and outputs of the reference implementation."""
    with np.load(shared / "facts" / "parity" / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def close(got: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    """Asserts that the largest difference is within `tolerance` of the reference's std."""
    assert got.shape == want.shape
    worst = (got.float() - want.float()).abs().max().item()
    assert worst <= tolerance * want.float().std().item(), worst
