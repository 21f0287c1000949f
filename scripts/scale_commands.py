"""Runs whole commands on a million names, and prints their seconds and peak memory.

`plan` of a million inputs, `encode` of them until its first shard is there, and a second `encode`
of a tenth of them that are all done. The names are hard links to a few tiny pictures. Exit code 1
where one takes longer, or more memory, than is allowed.

    python scripts/scale_commands.py --inputs 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.measure import cpu_seconds, family, measure
from harness.scale import linked, words
from harness.toys import toy_model, toy_pictures

PICTURES = 300
INTERRUPTED = 75


@dataclass(frozen=True, slots=True)
class Limit:
    """What a command may take."""

    seconds: float
    mib: float


LIMITS = {"plan": Limit(60, 1000), "start": Limit(90, 2000), "again": Limit(10, 1000)}
"""By command, for a million inputs; a start counts its loader processes too."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one of them took."""

    name: str
    seconds: float
    cpu: float
    """Seconds of processor time."""
    mib: float

    def __str__(self) -> str:
        load = os.getloadavg()[0]
        return (
            f"{self.name:6} {self.seconds:7.2f} s, {self.cpu:7.2f} s of processor time,"
            f" {self.mib:7.1f} MiB, load {load:.1f}"
        )

    @property
    def within(self) -> bool:
        """Whether that is allowed."""
        limit = LIMITS[self.name]
        return self.seconds <= limit.seconds and self.mib <= limit.mib


def plan(names: Path, store: Path, model: str, count: int) -> Taken:
    """`latentcli plan` of inputs that are all new."""
    used = measure(words("plan", names, store, model))
    if json.loads(used.output)["to_encode"] != count:
        raise RuntimeError("the plan has another number of inputs")
    return Taken("plan", used.seconds, used.cpu, used.tree)


def start(names: Path, store: Path, model: str) -> Taken:
    """`latentcli encode` until its first shard is committed; then it is stopped."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        words("encode", names, store, model), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    first, cpu, mib = store / "shards" / "000000.json", 0.0, 0.0
    while process.poll() is None and not first.exists():
        held = family(process.pid)
        mib, cpu = max(mib, sum(held.values())), sum(map(cpu_seconds, held))
        time.sleep(0.05)
    seconds = time.perf_counter() - begin
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    if process.returncode != INTERRUPTED:
        raise RuntimeError(f"encode ended with {process.returncode}:\n{errors.decode()}")
    return Taken("start", seconds, cpu, mib)


def again(names: Path, store: Path, model: str, count: int) -> Taken:
    """`latentcli encode` once more on a store that is complete."""
    measure(words("encode", names, store, model))
    used = measure(words("encode", names, store, model))
    document = json.loads(used.output)
    if (document["encoded"], document["skipped"]) != (0, count):
        raise RuntimeError("the second run found something to do")
    return Taken("again", used.seconds, used.cpu, used.tree)


def run(folder: Path, inputs: int, report: Callable[[Taken], None]) -> list[Taken]:
    """All three below an empty folder; `report` gets each as it is known."""
    model = str(toy_model(folder / "model"))
    files = sorted(toy_pictures(folder / "pictures", PICTURES, [(16, 16)]).rglob("*.jpg"))
    many = linked(folder / "many", files, inputs)
    tenth = max(inputs // 10, 1)
    few = linked(folder / "few", files, tenth)
    taken = []
    for one in (
        lambda: plan(many, folder / "planned", model, inputs),
        lambda: start(many, folder / "started", model),
        lambda: again(few, folder / "done", model, tenth),
    ):
        taken.append(one())
        report(taken[-1])
    return taken


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="latentcli-scale-") as name:
        taken = run(Path(name), options.inputs, lambda one: print(one, flush=True))
    beyond = [one.name for one in taken if not one.within]
    print(f"Beyond the limits: {', '.join(beyond)}." if beyond else "All within the limits.")
    return int(bool(beyond))


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise SystemExit(str(error)) from None
