"""Measures the processor time that a loader process takes for a JPEG file, by step and in all.

Squares of photographs become JPEG files of --sides, which are brought to --size in three ways: by
Pillow alone, whole as `encode --exact-resize` does, and as `encode` does, which lets the decoder
reduce them where enough pixels remain. The ways take turns, in one thread; of each file the least
time counts. The last columns are the PSNR of the reduced pictures against the whole ones, for which
the photographs are taken as they are: their mean, and the lowest.

    python scripts/decode_time.py PHOTOGRAPHS --sides 512,1024 --size 256
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentcli.core.types import Row
from latentcli.images.codec import DecodePolicy
from latentcli.images.formats import IMAGE_SUFFIXES
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.loader.prepare import RawSample, Recipe, prepare_sample
from latentcli.jobs.loader.sizes import REDUCING_GAPS
from latentcli.jobs.runtime.machine import reuse_heap

Times = dict[str, float]
"""Milliseconds of decode_image, preprocess and all."""
Way = Callable[[bytes], tuple[Times, Tensor]]


def by_pillow(size: int) -> Way:
    """Decoded, resized and cropped by Pillow."""

    def run(data: bytes) -> tuple[Times, Tensor]:
        begin = time.process_time()
        image = Image.open(io.BytesIO(data)).convert("RGB")
        middle = time.process_time()
        scale = size / min(image.size)
        width, height = (max(size, int(side * scale + 0.5)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        resized = image.resize((width, height), Image.Resampling.LANCZOS)
        cropped = np.array(resized.crop((left, top, left + size, top + size)))
        pixels = torch.from_numpy(cropped).permute(2, 0, 1).contiguous()
        end = time.process_time()
        return _times(middle - begin, end - middle, end - begin), pixels

    return run


def by_loader(size: int, gaps: tuple[float, ...] | None) -> Way:
    """As a loader process does it, with its digest and its row."""
    recipe = Recipe(DecodePolicy(), PreprocessSpec((size, size), 1, reducing_gaps=gaps))

    def run(data: bytes) -> tuple[Times, Tensor]:
        marks: list[float] = []
        begin = time.process_time()
        _, pixels = prepare_sample(
            RawSample(Row("", "", "ok"), data),
            recipe,
            {},
            entering=lambda stage: marks.append(time.process_time()),
        )
        end = time.process_time()
        assert pixels is not None
        return _times(marks[1] - marks[0], end - marks[1], end - begin), pixels

    return run


def _times(decode: float, resize: float, whole: float) -> Times:
    return {"decode": decode * 1e3, "resize": resize * 1e3, "all": whole * 1e3}


def jpeg(image: Image.Image) -> bytes:
    """Quality 90, colours halved both ways, as most programs write them."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, subsampling=2)
    return file.getvalue()


def square(image: Image.Image, side: int) -> bytes:
    """The centre square of a photograph as a JPEG file."""
    width, height = image.size
    least = min(image.size)
    left, top = (width - least) // 2, (height - least) // 2
    box = (left, top, left + least, top + least)
    return jpeg(image.resize((side, side), Image.Resampling.LANCZOS, box=box))


def timed(ways: dict[str, Way], files: Sequence[bytes], turns: int) -> dict[str, Times]:
    """Of each way the mean over the files of their least times."""
    best: dict[str, list[Times]] = {name: [] for name in ways}
    for data in files:
        found: dict[str, list[Times]] = {name: [] for name in ways}
        for _ in range(turns):
            for name, way in ways.items():
                found[name].append(way(data)[0])
        for name, times in found.items():
            best[name].append(min(times, key=lambda each: each["all"]))
    return {
        name: {step: statistics.mean(each[step] for each in times) for step in times[0]}
        for name, times in best.items()
    }


def decibels(one: Tensor, other: Tensor) -> float:
    """PSNR of 8-bit pictures; infinite where they are equal."""
    error = (one.float() - other.float()).square().mean().item()
    return 10 * math.log10(255**2 / error) if error else math.inf


def main(argv: Sequence[str] | None = None) -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument("--sides", default="512,1024")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--most", type=int, default=24, help="photographs that are taken")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    reuse_heap()
    paths = sorted(p for p in options.photographs.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    images = [Image.open(path).convert("RGB") for path in paths[: options.most]]
    print(f"{'file':12} {'way':12} {'decode':>8} {'resize':>8} {'all':>8}  ms, and against whole")
    for side in map(int, options.sides.split(",")):
        ways = {
            "Pillow": by_pillow(options.size),
            "whole": by_loader(options.size, None),
            "as encode": by_loader(options.size, REDUCING_GAPS),
        }
        found = timed(ways, [square(image, side) for image in images], options.turns)
        for name, times in found.items():
            shown = " ".join(f"{times[step]:8.2f}" for step in ("decode", "resize", "all"))
            share = times["all"] / found["whole"]["all"]
            print(f"{side} to {options.size:<4} {name:12} {shown}  {share:.2f}")
    print(f"\n{'left of the short side':24} {'mean':>6} {'lowest':>6}  dB, reduced against whole")
    for factor, gap in ((2, 2), (2, 3), (4, 3), (8, 3)):
        values = []
        for image in images:
            size = int(min(image.size) / factor / gap)
            gaps = tuple(1 if each == factor else math.inf for each in (2, 4, 8))
            data = jpeg(image)
            reduced, whole = (by_loader(size, g)(data)[1] for g in (gaps, None))
            values.append(decibels(reduced, whole))
        what = f"1/{factor}, {gap} times enough"
        print(f"{what:24} {statistics.mean(values):6.1f} {min(values):6.1f}")


if __name__ == "__main__":
    main()
