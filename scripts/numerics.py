"""Measures what batch size, threads, bfloat16, steps and seeds change on a folder of photographs.

    python scripts/numerics.py PHOTOGRAPHS
    python scripts/numerics.py PHOTOGRAPHS --casts NAME[=WEIGHTS]

Prints the tables of docs/internals/numerics.md, for the bundled model on the CPU; with --casts that
of where a bfloat16 network rounds, for any model of the FCDM or TAESD family.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.formats import IMAGE_SUFFIXES
from latentcli.images.preprocess import PreprocessSpec, preprocess
from latentcli.jobs.config import BUNDLED_MODEL, with_weights
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import Engine, decode_batch, load_engine
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.metrics.psnr import psnr
from latentcli.models.fcdm_network import FCDMBlock
from latentcli.models.tiny_network import TinyBlock

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
        lambda x, keys: encode_batch(engine, x, keys, engine.model.spec.state)["latent"],
        *(pixels, size),
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


def keep_residual(network: nn.Module) -> None:
    """Keeps the sums of residuals of a bfloat16 network in float32; its products stay bfloat16."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(lambda conv, given: (given[0].to(conv.weight.dtype),))
        elif isinstance(part, (FCDMBlock, TinyBlock)):
            part.register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))
        if isinstance(part, nn.ModuleList) and part and isinstance(part[-1], FCDMBlock):
            part[-1].register_forward_hook(lambda *given: given[-1].bfloat16())


def casts(pixels: Tensor, text: str) -> list[str]:
    """The lines of the table of casts."""
    name, weights = with_weights(text)
    fp32, bf16, kept = (
        # The fast form has its residuals in products.
        load_engine(name, weights=weights, device="cpu", dtype=d, plain=True)
        for d in ("fp32", "bf16", "bf16")
    )
    keep_residual(kept.model)
    exact = encode(fp32, pixels)
    stored = exact.bfloat16().float()
    back = decode(fp32, stored)
    lines = [f"{len(pixels)} photographs at {SIDE}x{SIDE}, torch {torch.__version__}"]
    for what, engine in {"bfloat16": bf16, "float32": kept}.items():
        low = encode(engine, pixels)
        error = (low - exact).double().square().mean() / exact.double().square().mean()
        both = decode(engine, low.bfloat16().float())
        distance, change = psnr(back, decode(engine, stored)).mean(), psnr(pixels, both).mean()
        lines.append(
            f"| {name} | {what} | {100 * error.sqrt().item():.3f} % | {distance.item():.2f} dB"
            f" | {(change - psnr(pixels, back).mean()).item():+.4f} dB |"
        )
    return lines


def main() -> None:
    """Reads the command line and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--casts", metavar="NAME[=WEIGHTS]")
    asked = parser.parse_args()
    pixels = read_photographs(asked.photographs)
    print("\n".join(casts(pixels, asked.casts) if asked.casts else report(pixels)))


if __name__ == "__main__":
    main()
