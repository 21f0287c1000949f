"""Changes many datasets at random, updates their stores, and compares them with new ones.

Each life is a folder of pictures and captions that is changed as its user may change it, and a
store that `sync` and `encode` keep; in a third of the lives one command of each step is killed with
a real SIGKILL. After each step keys, latents, captions and failures must be those of a new store.
Exit code 1 where any are not; what had happened is printed. See tests/harness/dataset_life.py.

    python scripts/dataset_life.py --lives 300
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.dataset_life import run_lives


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lives", type=int, default=300)
    parser.add_argument("--steps", type=int, default=5, help="rounds of commands in each life")
    parser.add_argument("--seed", type=int, default=0, help="of the first life; the others follow")
    options = parser.parse_args(argv)
    seeds = range(options.seed, options.seed + options.lives)
    figures = run_lives(seeds, options.steps, lambda fault: print(fault, flush=True))
    print(", ".join(f"{count} {what}" for what, count in figures.counts.items()))
    return int(bool(figures.faults))


if __name__ == "__main__":
    raise SystemExit(main())
