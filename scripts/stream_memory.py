"""Few and many tars, or a short and a long pipe, encoded; the peak memory of both and ratios out.

The tars are links to one, and the pipe repeats a few pictures under new keys: nothing large is
kept. Exit code 1 where a job needs more than --limit times the memory of the shorter one.

    python scripts/stream_memory.py
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kill_toys import toy_model, toy_tars
from measure import Used, measure

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


def compare(name: str, runs: Sequence[tuple[str, Callable[[], Used]]], limit: float) -> bool:
    """Runs both; prints what they took; whether the second stays within the limit."""
    trees = []
    for label, run in runs:
        used = run()
        print(
            f"{name}, {label}: all processes {used.tree:.1f} MiB, main {used.main:.1f} MiB, largest"
            f" other {used.worker:.1f} MiB, {used.seconds:.1f} s, load {used.load:.1f}",
            flush=True,
        )
        trees.append(used.tree)
    ratio = trees[1] / trees[0]
    print(f"{name}: ratio {ratio:.3f}, at most {limit} is allowed", flush=True)
    return ratio <= limit


def cases(
    folder: Path, options: argparse.Namespace
) -> dict[str, list[tuple[str, Callable[[], Used]]]]:
    """What is run, by name."""
    model, workers = str(toy_model(folder / "model")), options.workers
    pictures = noisy_pictures()

    def tars(form: str, count: int) -> tuple[str, Callable[[], Used]]:
        label = f"{count} of {options.samples}"
        return label, lambda: encode_tars(folder, model, workers, form, count, options.samples)

    def pipe(megabytes: int) -> tuple[str, Callable[[], Used]]:
        stream = Endless(megabytes * 10**6, pictures)
        return f"{megabytes} MB", lambda: encode_pipe(model, workers, stream)

    return {
        "tars": [tars("safetensors", count) for count in options.tars],
        "webdataset": [tars("webdataset", count) for count in options.tars],
        "pipe": [pipe(megabytes) for megabytes in options.megabytes],
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tars", type=int, nargs=2, default=(10, 100))
    parser.add_argument("--samples", type=int, default=1000, help="of a tar")
    parser.add_argument("--megabytes", type=int, nargs=2, default=(200, 2000), help="of the pipe")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=1.1)
    parser.add_argument("--only", action="append", choices=("tars", "webdataset", "pipe"))
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="latentcli-memory-") as name:
        found = cases(Path(name), options)
        chosen = options.only or list(found)
        within = [compare(kind, found[kind], options.limit) for kind in chosen]
    return int(not all(within))


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise SystemExit(str(error)) from None
