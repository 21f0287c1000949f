"""Plans a million input names, and prints the seconds and the peak memory of each step.

The names are hard links to empty files, found once in their folder and once through a list of
them; a store of a tenth as many inputs is planned again when it is complete. Every series of
steps is a process of its own. Exit code 1 where one takes longer or more than is allowed.

Then `sync` of a store of a tenth as many inputs, of which one in a hundred is gone, is run twice,
for random inputs and for ones in a row; exit code 1 where it opens or writes other shards than
theirs.

    python scripts/scale_steps.py --inputs 1000000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness import scale_sync
from harness.scale_steps import Step, run, too_much


def tell(name: str, step: Step) -> None:
    """One line for one step."""
    print(f"{name:8} {step.name:10} {step.seconds:7.2f} s  {step.peak:7.1f} MiB", flush=True)


def tell_case(case: scale_sync.Case) -> None:
    """One line for one sync."""
    synced = case.synced
    print(
        f"sync     {case.name:10} {synced.seconds:7.2f} s, {synced.processor:.2f} s of a processor;"
        f" {case.gone:,} of {case.inputs:,} gone from {len(case.shards)} shards:"
        f" {len(synced.opened)} opened, {len(synced.written)} files written",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="latentcli-scale-") as name:
        beyond = too_much(run(Path(name), options.inputs, tell))
    with tempfile.TemporaryDirectory(prefix="latentcli-scale-") as name:
        for case in scale_sync.run(Path(name), max(options.inputs // 10, 1)):
            tell_case(case)
            beyond += case.too_much()
    print("\n".join(beyond or ["All within the limits."]))
    return int(bool(beyond))


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise SystemExit(str(error)) from None
