"""Encodes few and many small pictures, and prints the peak memory of both jobs and their ratio.

The peak is the resident high-water mark that Linux keeps for each process, read until it ends: of
the main process, and of the largest loader process. Exit code 1 where either grows by more than
--limit.

    python scripts/picture_memory.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.memory import compare, growth
from harness.toys import toy_model


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="default: a toy model with random weights")
    parser.add_argument("--small", type=int, default=2_000)
    parser.add_argument("--large", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=1.15)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="latentcli-memory-") as name:
        folder = Path(name)
        model = options.model or str(toy_model(folder / "model"))
        counts = (options.small, options.large)
        ratio = growth(*compare(folder, model, counts, options.workers))
    print(f"ratio {ratio:.3f}, at most {options.limit} is allowed")
    return int(ratio > options.limit)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise SystemExit(str(error)) from None
