"""Makes linear16, the bundled PCA code of 16x16 patches, from the training tars.

    python scripts/train_linear.py --images train-cid22.tar train-clic.tar \
        --output latentcli/models/bundled/linear16

The photographs are those that fcdm_nano was trained on, so the two can be compared. Takes about
10 seconds on one CPU core; the same tars and seed give the same file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from nano.crops import PATCH, principal_components, read_photos
from safetensors.torch import save_file
from torch import Tensor

COMPONENTS = 128
HELD_OUT = 20
"""Every 20th photograph is left out, as scripts/train_nano.py does."""


def linear_state(tars: list[Path], seed: int) -> dict[str, Tensor]:
    """Tensors of the model, ready to be stored: the basis float16, the rest float32."""
    photos = [photo for i, photo in enumerate(read_photos(tars)) if i % HELD_OUT]
    mean, components, deviations = principal_components(photos, seed)
    basis = components.T[:COMPONENTS]
    # A component may point either way; its largest value is made positive.
    largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
    return {
        "basis": (basis * largest.sign()).half(),
        "patch_mean": mean,
        "running_var": deviations[:COMPONENTS].square(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="training tars")
    parser.add_argument("--output", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--seed", type=int, default=0, help="of the patch grids' offsets")
    arguments = parser.parse_args()
    # The sum over patches, and so the last bits, would depend on the number of threads.
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    state = linear_state(arguments.images, arguments.seed)
    save_file(state, arguments.output / "model.safetensors")
    config = {"patch_size": PATCH, "pca_components": COMPONENTS}
    (arguments.output / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
