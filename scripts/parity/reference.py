"""Compares our outcomes with a JSON file of stated figures.

The file has sets of pictures, each with `per_image`: file name -> psnr (dB, of 8 bit), sk7 and g11
(SSIM with 7x7 and with Gaussian windows), or some of them. Beside it may lie PRESET_golden_*.npz, a
crop with the original code's latents and reconstruction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from latentcli.core.errors import UsageError
from latentcli.images.codec import to_float
from latentcli.models.base import Autoencoder
from parity.compare import Difference, difference
from parity.run import Outcome, decode

FIGURES: dict[str, tuple[str, Callable[[Outcome], float | None], float]] = {
    "psnr": ("PSNR, dB", lambda outcome: outcome.psnr, 0.01),
    "sk7": ("SSIM", lambda outcome: outcome.ssim("uniform"), 1e-4),
    "g11": ("Gaussian SSIM", lambda outcome: outcome.ssim("gaussian"), 1e-4),
}
"""Key -> its name, ours of it, and how far apart the two may be, in float32."""
CROP_TOLERANCE = 1e-4
"""Of the standard deviation."""


def check_figures(path: Path, outcomes: Sequence[Outcome]) -> Iterator[Difference]:
    """Those figures of every picture that the file knows; UsageError where it knows none."""
    stated = _per_image(path)
    known = [outcome for outcome in outcomes if outcome.photo.name in stated]
    if not known:
        names = ", ".join(outcome.photo.name for outcome in outcomes)
        raise UsageError(f"{path} has no figures for {names}; it has {len(stated)} other pictures.")
    for outcome in known:
        figures, name = stated[outcome.photo.name], outcome.photo.name
        for key, (what, ours, allowed) in FIGURES.items():
            if key in figures and (got := ours(outcome)) is not None:
                off = abs(got - figures[key])
                yield Difference(name, f"{what} {got:.4f}", off, off, allowed)


def check_crops(model: Autoencoder, preset: str, folder: Path) -> Iterator[Difference]:
    """Latents and reconstruction of each crop of this preset that the folder has."""
    for path in sorted(folder.glob(f"{preset}_golden_*.npz")):
        with np.load(path) as file:
            rgb, latents, recon = (torch.from_numpy(file[k]) for k in ("rgb", "latents", "recon"))
        images = to_float(rgb.permute(2, 0, 1))[None]
        got = model.encode(images).cpu()
        fold = math.isqrt(got.shape[1] // len(latents))
        want = F.pixel_unshuffle(latents[None], fold)
        subject = path.stem.removeprefix(f"{preset}_golden_")
        yield difference(subject, "latents", got, want, CROP_TOLERANCE)
        back = decode(model, got, *images.shape[-2:])
        yield difference(subject, "reconstruction", back, recon[None], CROP_TOLERANCE)


def _per_image(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The reference {path} cannot be read: {error}.") from error
    sets = document.values() if isinstance(document, dict) else ()
    return {
        name: figures
        for content in sets
        if isinstance(content, dict)
        for name, figures in content.get("per_image", {}).items()
    }
