"""Checks our models against a published checkpoint or folders of reference numbers.

    python scripts/parity.py MODEL [--weights PATH] [--images PATH...] [--reference JSON]
    python scripts/parity.py --golden FOLDER [MODEL]
    python scripts/parity.py --facts FOLDER [MODEL]

Exit code 0: all that was compared agrees. 1: something differs, does not fit, or was not found.
2: wrong usage. See docs/internals/parity.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from parity import checkpoint, facts, golden, pictures, reference
from parity.compare import Difference, difference, print_table, verdict, worst_of
from parity.installed import NoCounterpart, counterpart, foreign_code
from parity.run import Outcome, run, statistics
from rich.console import Console
from rich.table import Table

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.models.base import Autoencoder
from latentcli.models.pretrained import Located
from latentcli.models.registry import DTYPES, find_preset, load_model
from latentcli.reports.tables import Column, make_table, optional

TOLERANCES = {"fp32": 1e-4, "bf16": 1e-1}
"""Largest difference from another implementation, of the standard deviation."""
ONLINE = ("weights", "images", "reference", "device", "dtype", "tolerance")
"""Options that reference numbers leave no choice about."""
PICTURES = (
    Column("picture", lambda v: v["outcome"].photo.name, figure=False),
    Column("size", lambda v: "{2}x{1}".format(*v["outcome"].photo.pixels.shape)),
    Column("PSNR, dB", lambda v: optional(v["outcome"].psnr, ".2f")),
    Column("SSIM", lambda v: optional(v["outcome"].ssim("uniform"), ".4f")),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    summary = (__doc__ or "").partition("\n")[0]
    words = argparse.ArgumentParser(description=summary)
    words.add_argument("model", nargs="?", help="preset, Hub id, folder, or preset's .toml file")
    words.add_argument("--weights", type=Path, help="file or folder to use, not the known places")
    words.add_argument("--images", type=Path, nargs="+", help="default: scikit-image's, or noise")
    words.add_argument("--reference", type=Path, help="JSON with figures for each picture")
    words.add_argument("--device", help="default: cpu")
    words.add_argument("--dtype", choices=list(DTYPES), help="default: fp32")
    words.add_argument("--tolerance", type=float, help="of the standard deviation")
    words.add_argument("--golden", type=Path, metavar="FOLDER", help="of golden vectors")
    words.add_argument("--facts", type=Path, metavar="FOLDER", help="with manifests and parity")
    return words


def check_folders(options: argparse.Namespace) -> Iterator[Difference]:
    """Reference numbers of --golden and --facts; UsageError for options that they do not take."""
    given = [f"--{name}" for name in ONLINE if getattr(options, name) is not None]
    if given:
        raise UsageError(
            "--golden and --facts bring their own weights and inputs and run in float32 on the"
            f" CPU: leave out {', '.join(given)}."
        )
    if options.golden:
        names = golden.golden_names(options.golden)
        if options.model and options.model not in names:
            raise UsageError(f"{options.golden} has {', '.join(names)}, but no {options.model}.")
        for name in [options.model] if options.model else names:
            yield from golden.check_golden(options.golden, name)
    if options.facts:
        yield from facts.check_facts(options.facts, options.model)


def check_model(options: argparse.Namespace, console: Console) -> list[Difference]:
    """Prints all about one checkpoint; the comparisons that could be made."""
    preset = find_preset(options.model)
    located = checkpoint.find(options.model, options.weights)
    state = checkpoint.read(located)
    print_lines(console, checkpoint.describe(located, state, preset))
    dtype = options.dtype or "fp32"
    model = load_model(
        options.model, weights=options.weights, device=options.device or "cpu", dtype=dtype
    )
    print_lines(console, checkpoint.fit(model, state))
    del state
    divisor = model.spec.size_divisor
    photos = (
        pictures.given_photos(options.images, divisor)
        if options.images
        else pictures.default_photos(divisor)
    )
    outcomes = [run(model, photo) for photo in photos]
    print_outcomes(console, model, outcomes)
    rows = list(too_bad(model, outcomes))
    if options.reference:
        if not (model.can_encode and model.can_decode):
            raise UsageError(f"{options.model} does not both encode and decode: no --reference.")
        rows += reference.check_figures(options.reference, outcomes)
        if preset:
            rows += reference.check_crops(model, preset.name, options.reference.parent)
    tolerance = TOLERANCES[dtype] if options.tolerance is None else options.tolerance
    try:
        rows += compare_installed(model, located, outcomes, tolerance)
    except NoCounterpart as reason:
        console.print(f"Not compared with another implementation: {reason}.\n", soft_wrap=True)
    return rows


def compare_installed(
    model: Autoencoder, located: Located, outcomes: Sequence[Outcome], tolerance: float
) -> Iterator[Difference]:
    """Latents of the same pictures, and pictures of the same latents and noise."""
    other = counterpart(model, located)
    for outcome in outcomes:
        if model.can_encode:
            with foreign_code(other.name):
                want = other.encode(outcome.images)
            yield difference(other.name, "latents", outcome.latents, want, tolerance)
        if outcome.decoded is not None:
            with foreign_code(other.name):
                want = other.decode(outcome.latents, *outcome.images.shape[-2:])
            yield difference(other.name, "pictures", outcome.decoded, want, tolerance)


def too_bad(model: Autoencoder, outcomes: Sequence[Outcome]) -> Iterator[Difference]:
    """Photographs that come back worse than the preset's floor: wrong range, whitening, weights."""
    for outcome in outcomes:
        floor, found = model.info.psnr_floor, outcome.psnr
        if floor is not None and found is not None and outcome.photo.is_real and found < floor:
            what = f"{found:.2f} dB, the floor is {floor}"
            yield Difference(outcome.photo.name, what, floor - found, floor - found, 0.0)


def print_lines(console: Console, lines: Sequence[checkpoint.Line]) -> None:
    """Two columns: what, and its value."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in lines:
        table.add_row(label, value)
    console.print(table)


def print_outcomes(console: Console, model: Autoencoder, outcomes: Sequence[Outcome]) -> None:
    """The table of pictures, and what the latents look like."""
    console.print()
    if outcomes[0].psnr is not None:
        console.print(make_table(PICTURES, [{"outcome": outcome} for outcome in outcomes]))
    source = "latents" if model.can_encode else "latents are random, there is no encoder;"
    console.print(f"{source} {statistics(outcomes)}\n", soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; expected errors are told in plain sentences."""
    options = parser().parse_args(argv)
    console = Console(markup=False, highlight=False, emoji=False)
    # Convolutions in TF32 would differ by more than is allowed.
    torch.backends.cudnn.allow_tf32 = False
    try:
        if not (options.model or options.golden or options.facts):
            raise UsageError("Name a model, or a folder with --golden or --facts.")
        with torch.inference_mode():
            folders = options.golden or options.facts
            rows = worst_of(check_folders(options) if folders else check_model(options, console))
        if folders and not rows:
            raise UsageError(f"{folders} has no numbers of {options.model}.")
    except LatentCliError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if not rows:
        console.print("The checkpoint fits and runs; there was nothing to compare it with.")
        return 0
    print_table(console, rows)
    console.print(f"\n{verdict(rows)}", soft_wrap=True)
    return int(not all(row.ok for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
