"""Sends thousands of damaged and strange files through real encode jobs, and checks the results.

One job gets damaged pictures, and things that only look like files; another gets damaged and
hostile tars, and what it makes of them is decoded again. Each must end by itself, with exit code 0
or 3, with one row for every input and a plain reason in every failed row, without a process left
behind, without a change to anything outside its output folder, and within --memory. The store must
be sound, and byte for byte that of a second job with another number of loader processes.
Exit code 1 where any of that fails.

    python scripts/fuzz_inputs.py --images 3000 --tars 300
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.fuzz import fuzz_pictures, fuzz_tars
from harness.toys import toy_model


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--tars", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=float, default=1500, help="MiB that a process may take")
    parser.add_argument("--limit", type=float, default=1800, help="seconds that a job may take")
    parser.add_argument("--keep", type=Path, help="an empty folder for all files; default: none")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="latentcli-fuzz-") as name:
        folder = options.keep or Path(name)
        model = str(toy_model(folder / "model"))
        bounds = (options.seed, options.memory, options.limit, True)
        reports = [
            fuzz_pictures(folder / "images", model, options.images, *bounds),
            fuzz_tars(folder / "archives", model, options.tars, *bounds),
        ]
    for report in reports:
        print("\n".join(report.lines()))
    return int(any(report.problems for report in reports))


if __name__ == "__main__":
    raise SystemExit(main())
