"""Measures `latentcli encode` against a plain script: a DataLoader, Pillow and the same model.

Both encode the same JPEGs with fcdm_nano, in turns, each in a process of its own that is timed
from start to exit. The plain script is the usual one: a Dataset that opens, resizes and crops with
Pillow, a DataLoader with a process for each core, the network in float32, and a safetensors file
for each picture. The latents must agree.

    python scripts/against_plain.py                  512 crops of the photographs in scikit-image
    python scripts/against_plain.py --photographs DIR --images 2000 --turns 5 --json out.json
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()
MODEL = "fcdm_nano"
SIDE = 256
PLAIN_BATCH = 32
AGREED = 0.05
"""Largest relative RMS difference of the latents of a picture: two resizers, and bfloat16."""
SUFFIXES = (".jpg", ".jpeg", ".png")
OURS, PLAIN = "latentcli encode", "plain script"


def plain(source: Path, output: Path) -> dict[str, float]:
    """The plain way; seconds from the beginning of the process until each of its parts is over."""
    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import save_file
    from torch.utils.data import DataLoader, Dataset

    from latentcli import load_model

    class Pictures(Dataset[tuple[str, torch.Tensor]]):
        def __init__(self) -> None:
            self.paths = sorted(source.glob("*.jpg"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
            path = self.paths[index]
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            scale = SIDE / min(image.size)
            width, height = (round(scale * side) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
            left, top = (width - SIDE) // 2, (height - SIDE) // 2
            image = image.crop((left, top, left + SIDE, top + SIDE))
            return path.stem, torch.from_numpy(np.array(image)).permute(2, 0, 1)

    imported = time.perf_counter() - BEGAN
    model, pictures = load_model(MODEL), Pictures()
    workers = torch.get_num_threads()
    output.mkdir()
    first = None
    with torch.inference_mode():
        for names, pixels in DataLoader(pictures, batch_size=PLAIN_BATCH, num_workers=workers):
            first = first or time.perf_counter() - BEGAN
            latents = model.encode(pixels.float() / 127.5 - 1).bfloat16()
            for name, latent in zip(names, latents, strict=True):
                save_file({"latent": latent.contiguous()}, output / f"{name}.safetensors")
    whole = time.perf_counter() - BEGAN
    return {"imported": imported, "first_batch": first or whole, "whole": whole}


def make_pictures(folder: Path, photographs: Path | None, count: int, side: int) -> None:
    """So many JPEGs of quality 90, random crops of the photographs."""
    from PIL import Image

    opened = [Image.open(path).convert("RGB") for path in photograph_files(photographs)]
    chance = random.Random(0)
    folder.mkdir()
    for number in range(count):
        image = opened[number % len(opened)]
        edge = chance.randint(min(image.size) // 2, min(image.size))
        left, top = (chance.randint(0, whole - edge) for whole in image.size)
        crop = image.crop((left, top, left + edge, top + edge)).resize((side, side))
        crop.save(folder / f"{number:06d}.jpg", quality=90)


def photograph_files(folder: Path | None) -> list[Path]:
    """The pictures of a folder, or the photographs that lie inside scikit-image."""
    if folder is not None:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    else:
        import skimage

        data = Path(skimage.__file__).parent / "data"
        names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
        found = [data / name for name in names if (data / name).is_file()]
    if not found:
        raise SystemExit("No photographs: install scikit-image, or name a folder of some.")
    return found


def difference(store: Path, folder: Path) -> float:
    """The largest relative RMS difference between the latents of a picture in both."""
    from safetensors.torch import load_file

    from latentcli import open_store

    def of_pictures() -> Iterator[float]:
        opened = open_store(store)
        paths = sorted(folder.glob("*.safetensors"))
        if len(opened) != len(paths):
            raise SystemExit(f"{len(opened)} latents in the store, {len(paths)} beside it")
        for path in paths:
            theirs = load_file(path)["latent"].float()
            error = opened[path.stem].float() - theirs
            yield float(error.square().mean().sqrt() / theirs.square().mean().sqrt())

    return max(of_pictures())


def measure(pictures: Path, work: Path, turns: int, options: list[str]) -> dict[str, Any]:
    """Both ways in turns, and the medians of their parts."""
    from turns import Used, in_turns, machine, ratio, run

    store, folder = work / "store", work / "plain"
    parts: dict[str, list[dict[str, float]]] = {OURS: [], PLAIN: []}
    encode = ["encode", pictures, "-o", store, "--model", MODEL, "--size", SIDE, "--json"]
    commands = {
        OURS: [sys.executable, "-m", "latentcli", *encode, *options],
        PLAIN: [sys.executable, Path(__file__), "--plain", pictures, folder],
    }

    def once(name: str, output: Path) -> float:
        shutil.rmtree(output, ignore_errors=True)
        used: Used = run([str(word) for word in commands[name]])
        document = json.loads(used.output)
        own = of_ours(document) if name == OURS else of_plain(document)
        parts[name].append({"seconds": used.seconds, "cpu": used.cpu, **own})
        return used.seconds

    seconds = in_turns({OURS: lambda: once(OURS, store), PLAIN: lambda: once(PLAIN, folder)}, turns)
    return {
        **machine(),
        "images": len(list(pictures.iterdir())),
        "turns": turns,
        "ratio": round(ratio(seconds[PLAIN], seconds[OURS]), 3),
        "cpu_ratio": round(ratio(*([p["cpu"] for p in parts[n]] for n in (PLAIN, OURS))), 3),
        "difference": round(difference(store, folder), 5),
        "ways": {name: medians(of_turns) for name, of_turns in parts.items()},
    }


def of_ours(document: dict[str, Any]) -> dict[str, float]:
    """The parts of a job, from its document: `start` is until the first batch is there."""
    stages = {f"stage {name}": stage["seconds"] for name, stage in document["stages"].items()}
    job = document["seconds"]
    return {"job": job, "start": document["startup_seconds"], **stages}


def of_plain(document: dict[str, float]) -> dict[str, float]:
    """The parts of the plain way."""
    first = document["first_batch"]
    return {
        "imports": document["imported"],
        "start": first - document["imported"],
        "run": document["whole"] - first,
    }


def medians(turns: list[dict[str, float]]) -> dict[str, float]:
    """Of each part, over the turns."""
    return {name: round(statistics.median(t[name] for t in turns), 3) for name in turns[0]}


def show(document: dict[str, Any]) -> None:
    """Prints what was found."""
    print(f"{document['cpu']} ({', '.join(document['features'])}), {document['cores']} cores,")
    print(f"load {document['load']}, torch {document['torch']}; {document['images']} JPEGs")
    for name, parts in document["ways"].items():
        told = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
        print(f"{name:18} {told} s")
    print(f"plain / latentcli: {document['ratio']:.2f} by the clock, medians of turns;")
    print(f"{document['cpu_ratio']:.2f} in processor time.")
    print(f"Largest relative difference of a latent: {document['difference']:.4f}")


def main() -> int:
    """Prints figures; the exit code says whether the latents agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plain", nargs=2, type=Path, metavar=("SRC", "DST"), help="one way alone")
    parser.add_argument("--photographs", type=Path, help="cut the JPEGs out of these")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--side", type=int, default=512, help="of the JPEGs")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures into this file too")
    parser.add_argument("options", nargs="*", help="further words of latentcli encode, after --")
    words = parser.parse_args()
    if words.plain:
        print(json.dumps(plain(*words.plain)))
        return 0
    from turns import told

    with tempfile.TemporaryDirectory(prefix="latentcli-") as folder:
        pictures = Path(folder) / "pictures"
        make_pictures(pictures, words.photographs, words.images, words.side)
        found = measure(pictures, Path(folder), words.turns, words.options)
    show(found)
    told(found, words.json)
    return int(found["difference"] > AGREED)


if __name__ == "__main__":
    sys.exit(main())
