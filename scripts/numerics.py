"""Measures what batch size, threads, bfloat16, steps and seeds change on a folder of photographs.

    python scripts/numerics.py PHOTOGRAPHS

Prints the last table of docs/numerics.md, for the bundled model on the CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.formats import IMAGE_SUFFIXES
from latentcli.images.preprocess import PreprocessSpec, preprocess
from latentcli.jobs.config import BUNDLED_MODEL
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import Engine, decode_batch, load_engine
from latentcli.jobs.settings import DecodeSettings
from latentcli.metrics.psnr import psnr

SIDE = 256
BATCH = 8
THREADS = 2
STEPS = (2, 4, 10)


def read_photographs(folder: Path) -> Tensor:
    """uint8 [N, 3, SIDE, SIDE] of the folder's pictures, by name."""
    spec = PreprocessSpec((SIDE, SIDE), 16)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    images = (decode_image(path.read_bytes(), DecodePolicy()).image for path in paths)
    return torch.stack([preprocess(image, spec).pixels for image in images])


def in_batches(function: Callable[[Tensor, list[str]], Tensor], items: Tensor, size: int) -> Tensor:
    """The function over the items, `size` at a time; the key of an item is its number."""
    keys = [str(i) for i in range(len(items))]
    parts = (function(items[i : i + size], keys[i : i + size]) for i in range(0, len(items), size))
    return torch.cat(list(parts))


def encode(engine: Engine, pixels: Tensor, size: int = BATCH) -> Tensor:
    """Whitened latents, float32."""
    return in_batches(
        lambda x, keys: encode_batch(engine, x, keys, "whitened")["latent"], pixels, size
    )


def decode(engine: Engine, latents: Tensor, size: int = BATCH, **settings: int) -> Tensor:
    """uint8 pictures."""
    job = DecodeSettings(**settings)
    return in_batches(lambda z, keys: decode_batch(engine, z, keys, job), latents, size)


def latents_differ(name: str, got: Tensor, want: Tensor) -> str:
    """Relative RMS difference, and the share of bfloat16 values that differ."""
    error = (got.double() - want.double()).square().mean() / want.double().square().mean()
    share = (got.bfloat16() != want.bfloat16()).double().mean().item()
    return f"| {name} | {error.sqrt().item():.1e} | {100 * share:.3g} % |"


def pictures_differ(name: str, got: Tensor, want: Tensor) -> str:
    """Largest difference in 8-bit levels, and the share of values that differ."""
    levels = (got.int() - want.int()).abs()
    share = (levels > 0).double().mean().item()
    return f"| {name} | {levels.max().item()} | {100 * share:.3g} % |"


def quality(name: str, pixels: Tensor, pictures: Tensor) -> str:
    """Mean PSNR."""
    return f"| {name} | {psnr(pixels, pictures).mean().item():.3f} |"


def report(pixels: Tensor) -> list[str]:
    """The lines of the three tables."""
    fp32, bf16 = (load_engine(BUNDLED_MODEL, device="cpu", dtype=d) for d in ("fp32", "bf16"))
    torch.set_num_threads(1)
    one_thread = encode(fp32, pixels)
    torch.set_num_threads(THREADS)
    exact, low = encode(fp32, pixels), encode(bf16, pixels)
    stored = exact.bfloat16().float()
    back = decode(fp32, stored)
    score = partial(quality, pixels=pixels)
    return [
        f"{len(pixels)} photographs at {SIDE}x{SIDE}, torch {torch.__version__},"
        f" {torch.backends.cpu.get_cpu_capability()}, weights {fp32.info.weights_sha256}",
        latents_differ("batch size 1, not 8", encode(fp32, pixels, 1), exact),
        latents_differ("1 thread, not 2", one_thread, exact),
        latents_differ("network in bfloat16, not float32", low, exact),
        latents_differ("stored as bfloat16, not float32", stored, exact),
        pictures_differ("batch size 1, not 8", decode(fp32, stored, 1), back),
        pictures_differ("network in bfloat16, not float32", decode(bf16, stored), back),
        pictures_differ("seed 1, not 0", decode(fp32, stored, seed=1), back),
        score("float32 latents, float32 network, 1 step", pictures=decode(fp32, exact)),
        score("bfloat16 latents, float32 network, 1 step", pictures=back),
        score(
            "bfloat16 latents, bfloat16 network, 1 step",
            pictures=decode(bf16, low.bfloat16().float()),
        ),
        *(
            score(
                f"bfloat16 latents, float32 network, {n} steps",
                pictures=decode(fp32, stored, steps=n),
            )
            for n in STEPS
        ),
    ]


def main() -> None:
    """Reads the command line and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    print("\n".join(report(read_photographs(parser.parse_args().photographs))))


if __name__ == "__main__":
    main()
