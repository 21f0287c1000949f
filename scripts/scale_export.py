"""Exports a hundred thousand latents, kills it, goes on, and compares it with a copy.

Once to a format of large files and once to one of a file for each latent. Memory is compared with
that of a tenth as many. Exit code 1 where an export has less than half the rate of a copy, needs
more than --limit times the memory, or differs from its store after the kill.

    python scripts/scale_export.py --samples 100000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.scale_export import check, export, killed, make_store, turn

FORMATS = ("lightningdit", "kohya")
RATE = 0.5
"""Of a copy that is brought to the disk, that an export has at least."""


def measure(
    folder: Path, stores: tuple[Path, Path], to: str, options: argparse.Namespace
) -> list[str]:
    """What is beyond the limits of one format, in words; figures are printed as they come."""
    large, small = stores
    beyond = []
    rates = []
    for number in range(options.turns):
        one = turn(large, to, folder)
        rates.append(one.rate)
        print(
            f"{to:13} turn {number}: export {one.export.seconds:.1f} s, cp"
            f" {one.copy_seconds:.1f} s and {one.disk_seconds:.1f} s to the disk,"
            f" {one.rate:.2f} of the latter's rate;"
            f" {one.export.document['bytes'] / 1e6:,.0f} MB in"
            f" {one.export.document['files']:,} files, peak {one.export.peak:.0f} MiB",
            flush=True,
        )
    rate = sorted(rates)[len(rates) // 2]
    if rate < RATE:
        beyond.append(f"{to}: {rate:.2f} of the rate of a copy, at least {RATE} is wanted")
    few = turn(small, to, folder)
    ratio = one.export.peak / few.export.peak
    print(f"{to:13} a tenth as many: peak {few.export.peak:.0f} MiB, ratio {ratio:.2f}", flush=True)
    if ratio > options.limit:
        beyond.append(f"{to}: {ratio:.2f} times the memory, at most {options.limit} is allowed")
    out = folder / "out"
    steps = one.export.document["steps"]
    noted = killed(large, to, out, steps // 3)
    again = export(large, to, out)
    before = again.document["steps_done_before"]
    check(large, out)
    print(
        f"{to:13} killed after {noted:,} of {steps:,} steps, {before:,} were there;"
        f" the same command took {again.seconds:.1f} s, and the files are those of the store",
        flush=True,
    )
    if before < noted:
        beyond.append(f"{to}: {noted} steps were noted and {before} were there")
    return beyond


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=32, help="cells of a latent along each side")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1.3)
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    options = parser.parse_args(argv)
    beyond = []
    with tempfile.TemporaryDirectory(prefix="latentcli-scale-") as name:
        folder = Path(name)
        stores = (
            make_store(folder / "large.latents", options.samples, options.side),
            make_store(folder / "small.latents", options.samples // 10, options.side),
        )
        for to in options.formats:
            (folder / to).mkdir()
            beyond += measure(folder / to, stores, to, options)
    print("\n".join(beyond or ["All within the limits."]))
    return int(bool(beyond))


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise SystemExit(str(error)) from None
