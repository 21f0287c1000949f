"""Encodes long rows of tars and long pipes, of which nothing large is kept."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from harness.measure import Used, measure
from harness.toys import toy_tars

BLOCK = 512
END = bytes(2 * BLOCK)
KEPT = 64
"""Pictures that the pipe repeats."""
SIDE = 376
"""Of a picture of the pipe; with noise in it, its JPEG has about 100 KB."""
SUFFIX = b".latent.safetensors"


@dataclass(slots=True)
class Counting:
    """Reads a tar to its end and keeps nothing."""

    bytes: int = 0
    latents: int = 0

    def read(self, pipe: IO[bytes]) -> None:
        """All members of the tar."""
        while (header := pipe.read(BLOCK)).strip(b"\0"):
            size = int(header[124:136].rstrip(b"\0 "), 8)
            self.latents += header[:100].rstrip(b"\0").endswith(SUFFIX)
            left = -(-size // BLOCK) * BLOCK
            self.bytes += BLOCK + left
            while left:
                left -= len(pipe.read(min(left, 2**20)))
        pipe.read()


@dataclass(frozen=True, slots=True)
class Endless:
    """A tar of so many bytes."""

    size: int
    pictures: tuple[bytes, ...] = field(repr=False)

    def write(self, pipe: IO[bytes]) -> None:
        """Writes it, a sample at a time."""
        for number in range(self.samples):
            for suffix, data in (
                ("jpg", self.pictures[number % KEPT]),
                ("txt", b"number %d" % number),
            ):
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(data)
                pipe.write(member.tobuf() + data + bytes(-len(data) % BLOCK))
        pipe.write(END)

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return round(self.size / (sum(map(len, self.pictures)) / KEPT))


def noisy_pictures() -> tuple[bytes, ...]:
    """JPEGs of about 100 KB, the same every time."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)
    found = []
    for _ in range(KEPT):
        file = io.BytesIO()
        pixels = chance.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=80)
        found.append(file.getvalue())
    return tuple(found)


def encode_command(
    source: str, output: str, model: str, workers: int, *more: str
) -> tuple[str, ...]:
    """`latentcli encode` as it is run here."""
    return (
        *(sys.executable, "-m", "latentcli", "encode", source, "-o", output, "--model", model),
        *("--workers", str(workers), "--device", "cpu", "--no-self-check", "--quiet", *more),
    )


def many_tars(folder: Path, count: int, samples: int) -> str:
    """So many tars of so many samples, all of which are one file; the sources."""
    toy_tars(folder / "one", 1, samples)
    of = folder / f"tars{count}"
    of.mkdir()
    for number in range(count):
        (of / f"{number:06d}.tar").hardlink_to(folder / "one" / "000000.tar")
    return str(of / f"{{{0:06d}..{count - 1:06d}}}.tar")


def encode_tars(
    folder: Path, model: str, workers: int, form: str, count: int, samples: int
) -> Used:
    """The tars encoded; RuntimeError where a sample is lost."""
    place = folder / form
    place.mkdir(exist_ok=True)
    source = many_tars(place, count, samples)
    store = str(place / f"store{count}")
    more = ("--resize", "none", "--format", form, "--json")
    used = measure(encode_command(source, store, model, workers, *more))
    encoded = json.loads(used.output)["encoded"]
    if encoded != count * samples:
        raise RuntimeError(f"{encoded} samples were encoded, expected {count * samples}")
    return used


def encode_pipe(model: str, workers: int, stream: Endless) -> Used:
    """The stream encoded from one pipe into another; RuntimeError where a sample is lost."""
    sink = Counting()
    more = ("--size", "64", "--resize", "crop")
    command = encode_command("-", "-", model, workers, *more)
    used = measure(command, feed=stream.write, sink=sink.read)
    if sink.latents != stream.samples:
        raise RuntimeError(f"{sink.latents} latents came out, expected {stream.samples}")
    return used
