"""Encodes few and many tars, a short and a long pipe, and prints the peak memory and its ratio.

The tars are links to one, and the pipe repeats a few pictures under new keys: nothing large is
kept. Exit code 1 where a job needs more than --limit times the memory of the shorter one.

    python scripts/stream_memory.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.measure import Used
from harness.streams import Endless, encode_pipe, encode_tars, noisy_pictures
from harness.toys import toy_model


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
