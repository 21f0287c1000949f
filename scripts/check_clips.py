"""Sends a short and a long clip through encode and decode: no frame lost, no memory grown.

Each frame carries its number as a pattern that survives compression. The clips go through
`latentcli encode` and `latentcli decode` with the bundled linear16, and every frame of what comes
back is looked at. Exit code 1 where a frame is lost, doubled or misplaced, or where the peak memory
of a job grows by more than --limit.

    python scripts/check_clips.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.measure import measure

BITS = 12
BLOCK = 32
"""Pixels along a side of a bit's square: whole cells of the latent."""


def drawn(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: the number as black and white squares over a scene that moves."""
    y, x = np.mgrid[0:height, 0:width]
    scene = np.stack([x + 3 * number, 2 * y + number, x + y], axis=-1) % 256
    pixels: NDArray[np.uint8] = (scene // 2 + 40).astype(np.uint8)
    for bit in range(BITS):
        top, left = BLOCK * (bit // 6), BLOCK * (bit % 6)
        pixels[top : top + BLOCK, left : left + BLOCK] = 255 * (number >> bit & 1)
    return pixels


def read_number(pixels: NDArray[np.uint8]) -> int:
    """The number that `drawn` drew, or -1 where the squares are neither black nor white."""
    number = 0
    for bit in range(BITS):
        top, left = BLOCK * (bit // 6) + 4, BLOCK * (bit % 6) + 4
        level = pixels[top : top + BLOCK - 8, left : left + BLOCK - 8].mean()
        if abs(level - 127.5) < 60:
            return -1
        number |= int(level > 127.5) << bit
    return number


def make_clip(path: Path, frames: int, width: int, height: int) -> None:
    """An H.264 clip of 25 frames a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(25), options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            pixels = drawn(number, width, height)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))


def numbers_of(path: Path) -> list[int]:
    """The number on each frame of a clip."""
    with av.open(str(path)) as file:
        frames = file.decode(file.streams.video[0])
        return [read_number(frame.to_ndarray(format="rgb24")) for frame in frames]


def peak_of(*words: str) -> float:
    """MiB at most of a latentcli command; RuntimeError where it fails."""
    return measure([sys.executable, "-m", "latentcli", *words, "--quiet"]).main


def through(folder: Path, frames: int, width: int, height: int) -> tuple[float, float]:
    """(peak of encode, peak of decode) of a clip; RuntimeError where a frame is out of place."""
    clip, store, out = folder / f"{frames}.mp4", folder / f"{frames}.latents", folder / f"{frames}"
    make_clip(clip, frames, width, height)
    begin = time.perf_counter()
    encode = peak_of("encode", str(clip), "--model", "linear16", "-o", str(store))
    middle = time.perf_counter()
    decode = peak_of("decode", str(store), "-o", str(out))
    end = time.perf_counter()
    found = numbers_of(out / clip.name)
    if found != list(range(frames)):
        wrong = next(i for i, number in enumerate([*found, -1]) if number != i)
        raise RuntimeError(
            f"{frames} frames went in, {len(found)} came out; the first wrong one is {wrong}"
        )
    print(
        f"{frames:>6} frames: every one in its place; encode {encode:.0f} MiB"
        f" {middle - begin:.0f} s, decode {decode:.0f} MiB {end - middle:.0f} s",
        flush=True,
    )
    return encode, decode


def main() -> int:
    """Runs both clips; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", type=int, default=200, help="frames of the short clip")
    parser.add_argument("--long", type=int, default=2000, help="frames of the long clip")
    parser.add_argument("--limit", type=float, default=1.2, help="largest growth of a peak")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latentcli-") as folder:
        short = through(Path(folder), options.short, 320, 240)
        long = through(Path(folder), options.long, 320, 240)
    growth = [b / a for a, b in zip(short, long, strict=True)]
    print(f"growth: encode {growth[0]:.3f}, decode {growth[1]:.3f} (limit {options.limit})")
    return int(max(growth) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
