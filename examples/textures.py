"""Cuts crops out of six pictures of scikit-image, into a folder for each: a data set to try.

The pictures lie inside scikit-image's wheel (`pip install scikit-image`), nothing is fetched:

    python examples/textures.py --out textures
    latentcli encode textures --size 96 --flip both -o textures.latents
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = {
    "brick": "brick.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "retina": "retina.jpg",
    "tissue": "ihc.png",
}
"""A folder for each, and the file that its crops are of."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("textures"))
    parser.add_argument("--count", type=int, default=600, help="crops of each picture")
    parser.add_argument("--size", type=int, default=96, help="their sides, in pixels")
    options = parser.parse_args()
    package = find_spec("skimage")
    if package is None or package.origin is None:
        parser.error("scikit-image is not installed; pip install scikit-image")
    random = np.random.default_rng(0)
    for name, file in PICTURES.items():
        with Image.open(Path(package.origin).parent / "data" / file) as image:
            picture = image.convert("RGB")
        picture.thumbnail((512, 512))
        (options.out / name).mkdir(parents=True, exist_ok=True)
        for i in range(options.count):
            left, top = (int(random.integers(side - options.size + 1)) for side in picture.size)
            crop = picture.crop((left, top, left + options.size, top + options.size))
            crop.save(options.out / name / f"{i:04d}.png")


if __name__ == "__main__":
    main()
