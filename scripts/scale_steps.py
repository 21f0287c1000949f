"""Plans a million input names, and prints the seconds and the peak memory of each step.

The names are hard links to empty files, found once in their folder and once through a list of
them; a store of a tenth as many inputs is planned again when it is complete. Every series of
steps is a process of its own. Exit code 1 where one takes longer or more than is allowed.

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

from harness.scale_steps import Step, run, too_much


def tell(name: str, step: Step) -> None:
    """One line for one step."""
    print(f"{name:8} {step.name:10} {step.seconds:7.2f} s  {step.peak:7.1f} MiB", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="latentcli-scale-") as name:
        beyond = too_much(run(Path(name), options.inputs, tell))
    print("\n".join(beyond or ["All within the limits."]))
    return int(bool(beyond))


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise SystemExit(str(error)) from None
