"""Compares one process with two threads to torchrun with two ranks, in images a second.

Each is run on few and on many pictures, in turns: their difference is the rate, so that the start
of a job does not count. The stores must be the same, byte for byte. The processor time per picture
is told too: a machine that others use spoils rates more than that. Exit code 1 where the stores
differ, or where two ranks have less than --least of the rate of one process.

    python scripts/rank_throughput.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.measure import Used, measure
from harness.stores import tree
from harness.toys import toy_model, toy_pictures

RANKS = 2
PER_SHARD = 16
KINDS: Mapping[str, tuple[Sequence[str], Mapping[str, str]]] = {
    "one": ((), {"OMP_NUM_THREADS": str(RANKS)}),
    "ranks": (
        ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)),
        {"OMP_NUM_THREADS": "1"},
    ),
}
"""How each is started: words of the interpreter, and variables."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is encoded, by which model."""

    name: str
    model: str
    side: int
    """Of the square pictures."""
    options: tuple[str, ...]
    counts: tuple[int, int]
    """Few and many pictures."""
    counted: bool
    """Whether a low ratio is a failure."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a picture costs."""

    seconds: float
    cpu: float
    """Seconds of processor time, of all processes."""

    def __str__(self) -> str:
        return f"{1 / self.seconds:.2f} images/s ({1000 * self.cpu:.1f} ms of processor time each)"


def command(case: Case, kind: str, pictures: Path, store: Path) -> tuple[str, ...]:
    """The words of one job."""
    return (
        *(sys.executable, *KINDS[kind][0], "-m", "latentcli", "encode", str(pictures)),
        *("--model", case.model, "-o", str(store), "--device", "cpu", "--no-self-check"),
        *("--json", "--quiet", "--samples-per-shard", str(PER_SHARD), *case.options),
    )


def run(case: Case, kind: str, pictures: Path, store: Path) -> Used:
    """One job in a new store."""
    shutil.rmtree(store, ignore_errors=True)
    used = measure(command(case, kind, pictures, store), variables=KINDS[kind][1])
    document = json.loads(used.output)
    if document["ranks"] != (1 if kind == "one" else RANKS):
        raise RuntimeError(f"{document['ranks']} ranks were at work")
    return used


def turn(case: Case, folder: Path) -> dict[str, Pace]:
    """What each kind needs for a picture, once; RuntimeError where the stores differ."""
    found: dict[str, list[Used]] = {kind: [] for kind in KINDS}
    for count in case.counts:
        pictures = folder / f"{case.name}{count}"
        if not pictures.is_dir():
            toy_pictures(pictures, count, [(case.side, case.side)])
        for kind in KINDS:
            found[kind].append(run(case, kind, pictures, folder / kind))
        if tree(folder / "one") != tree(folder / "ranks"):
            raise RuntimeError(f"{case.name}: the stores of {count} pictures differ")
    more = case.counts[1] - case.counts[0]
    return {
        kind: Pace((many.seconds - few.seconds) / more, (many.cpu - few.cpu) / more)
        for kind, (few, many) in found.items()
    }


def compare(case: Case, folder: Path, repeats: int) -> float:
    """The median over the repeats of the ratio of the rates; prints a line for each."""
    ratios, costs = [], []
    for number in range(1, repeats + 1):
        paces = turn(case, folder)
        one, ranks = paces["one"], paces["ranks"]
        ratios.append(one.seconds / ranks.seconds)
        costs.append(one.cpu / ranks.cpu)
        print(
            f"{case.name} {number}: one process {one}, {RANKS} ranks {ranks}, ratio"
            f" {ratios[-1]:.3f}, of processor time {costs[-1]:.3f}, load {load():.1f}",
            flush=True,
        )
    median = statistics.median(ratios)
    print(
        f"{case.name}: median ratio {median:.3f}, of processor time"
        f" {statistics.median(costs):.3f}, same bytes",
        flush=True,
    )
    return median


def load() -> float:
    """The machine's load average."""
    return float(Path("/proc/loadavg").read_text().split()[0])


def cases(folder: Path) -> dict[str, Case]:
    """The model limits the first one, the loader the second."""
    toy = str(toy_model(folder / "model"))
    small = ("--size", "64", "--resize", "crop")
    return {
        "model": Case("model", "fcdm_nano", 256, ("--resize", "none"), (32, 352), counted=True),
        "loader": Case("loader", toy, 768, small, (200, 1400), counted=False),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--least", type=float, default=0.9)
    parser.add_argument("--only", action="append", choices=("model", "loader"))
    options = parser.parse_args(argv)
    low = False
    with tempfile.TemporaryDirectory(prefix="latentcli-ranks-") as name:
        for case in cases(Path(name)).values():
            if case.name in (options.only or (case.name,)):
                ratio = compare(case, Path(name), options.repeats)
                low |= case.counted and ratio < options.least
    return int(low)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise SystemExit(str(error)) from None
