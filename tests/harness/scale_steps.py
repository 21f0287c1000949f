"""Plans a great many input names step by step, and measures the seconds and memory of each step.

Run as a program with a source and a store, it prints the steps of one series as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

PER_FOLDER = 1000
"""Names in a folder, which are links to one file: file systems allow some ten thousand."""
PER_SHARD = 1000
SPEC = "0" * 64


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a series."""

    name: str
    seconds: float
    peak: float
    """MiB that the process held at most since it began."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a series of steps may take."""

    seconds: float
    mib: float


LIMITS = {"folder": Limit(60, 1000), "list": Limit(60, 1000), "done": Limit(10, 1000)}
"""By series, of a million inputs; done is of a hundred thousand."""


def make_names(folder: Path, count: int) -> Path:
    """`count` empty pictures below a folder, and a list of them, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "list.txt"
    with listed.open("w") as file:
        for start in range(0, count, PER_FOLDER):
            inner = folder / "names" / f"{start // PER_FOLDER:05d}"
            inner.mkdir(parents=True)
            paths = [inner / f"{i:08d}.jpg" for i in range(start, min(start + PER_FOLDER, count))]
            paths[0].touch()
            for path in paths[1:]:
                path.hardlink_to(paths[0])
            file.writelines(f"{path.relative_to(folder)}\n" for path in paths)
    return listed


def complete(store: Path, names: Path, spec_hash: str = SPEC, per_shard: int = PER_SHARD) -> None:
    """Makes a finished store of the pictures in a folder, with the smallest latents.

    It has no manifest.
    """
    import torch

    from latentcli.core.types import Row
    from latentcli.jobs.loader.find_media import find_media
    from latentcli.shards.layout import INPUTS
    from latentcli.shards.sources.find_inputs import unit_rows
    from latentcli.shards.store.commit import Contents, commit_unit
    from latentcli.shards.store.input_list import InputList, write_inputs
    from latentcli.shards.store.roots import Roots, write_roots

    (store / "shards").mkdir(parents=True)
    found = find_media([str(names)], "auto").inputs
    roots = Roots().with_roots(found.roots, found.anchor)
    write_roots(store, roots)
    write_inputs(store / INPUTS, unit_rows(found, per_shard), roots)
    inputs = InputList.open(store / INPUTS)
    told = {"original_size": (512, 512), "resized_size": (256, 256), "crop": (0, 0, 256, 256)}
    for unit in range(inputs.units):
        rows = inputs.rows(unit)
        commit_unit(
            store,
            unit,
            {f"{row.key}/latent": torch.zeros(1, 1, 1) for row in rows},
            {},
            Contents(
                spec_hash=spec_hash,
                roots=roots,
                rows=[Row(r.key, r.source, "ok", latent_shape=(128, 16, 16), **told) for r in rows],
            ),
        )


def series(source: str, store: Path) -> list[Step]:
    """The steps from a source to the units that are left to do, in this process."""
    begin, steps = time.perf_counter(), list[Step]()

    def lap(name: str) -> None:
        nonlocal begin
        end = time.perf_counter()
        steps.append(Step(name, round(end - begin, 2), round(peak(), 1)))
        begin = end

    from latentcli.jobs.encode.findings import Ask
    from latentcli.jobs.encode.survey import survey
    from latentcli.jobs.encode.worklist import plan_work
    from latentcli.jobs.loader.find_media import find_media
    from latentcli.jobs.runtime.reporter import SILENT

    lap("import")
    found = find_media([source], "auto").inputs
    lap("find")
    survey(store, SPEC, found, PER_SHARD)
    lap("survey")
    plan_work(store, SPEC, found, PER_SHARD, Ask(), SILENT)
    lap("plan_work")
    return steps


def peak() -> float:
    """MiB that this process held at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(source: str, store: Path) -> list[Step]:
    """The steps of `series` in a process of its own."""
    command = [sys.executable, __file__, source, str(store)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the series failed:\n{done.stderr}")
    return [Step(**step) for step in json.loads(done.stdout)]


def run(folder: Path, inputs: int, report: Callable[[str, Step], None]) -> dict[str, list[Step]]:
    """All series below an empty folder; the steps by series. `report` gets each as it is known."""
    listed = make_names(folder, inputs)
    for name in ("folder", "list"):
        (folder / f"store-{name}" / "shards").mkdir(parents=True)
    some = folder / "some"
    make_names(some, max(inputs // 10, 1))
    complete(folder / "store-done", some / "names")
    sources = {"folder": folder / "names", "list": f"@{listed}", "done": some / "names"}
    measured = {}
    for name, source in sources.items():
        measured[name] = measure(str(source), folder / f"store-{name}")
        for step in measured[name]:
            report(name, step)
    return measured


def too_much(measured: dict[str, list[Step]]) -> list[str]:
    """What is beyond the limits, in words; plan_work does again what the survey did."""
    found = []
    for name, steps in measured.items():
        seconds, mib = sum(s.seconds for s in steps if s.name != "survey"), steps[-1].peak
        limit = LIMITS[name]
        if seconds > limit.seconds or mib > limit.mib:
            found.append(
                f"{name}: {seconds:.1f} s and {mib:.0f} MiB, at most {limit.seconds:g} s and"
                f" {limit.mib:g} MiB are allowed"
            )
    return found


if __name__ == "__main__":
    print(json.dumps([asdict(step) for step in series(sys.argv[1], Path(sys.argv[2]))]))
