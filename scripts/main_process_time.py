"""Measures the processor time that the main process of `encode` takes for a picture, by thread.

The job is the real one, with real loader processes and JPEGs that have their size already; only the
model is left out: its place takes latents that were made before. So what is counted is the way of
a picture from the loader to the model and of its latent from there to the disk. As for a GPU, each
batch that does not lie in pinned memory is copied once; here to memory that is like any other.

Counted is from a quarter of the pictures on until all is written. Each thread is asked every few
milliseconds for what the system counts of it; what it does between the last answer and its end is
under `other`. Runs take turns, and of each size that of the least time in all is printed. Processor
time depends less on what else the machine does than time on the clock, but it does: caches and
cores are shared. On a virtual machine, memory that nothing has used since its start makes writing
several times as dear: use all of it once before. Linux only.

    python scripts/main_process_time.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.toys import toy_picture

from latentcli.core.store_dtype import as_stored
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.plan import plan_encode
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.share import encode_in_team, lead
from latentcli.jobs.encode.worklist import Work
from latentcli.jobs.inference.accelerator import Cpu
from latentcli.jobs.inference.engine import Engine, engine_of
from latentcli.jobs.inference.split_on_oom import Parts, SplitOnOom
from latentcli.jobs.loader.find_media import media_of
from latentcli.jobs.runtime.reporter import SILENT
from latentcli.jobs.runtime.signals import stop_on_signals

MODEL = "linear16"
"""Its latents are f16c128, as those of the published models."""
LOOK = 0.005
"""Seconds between two looks at the threads."""
UNCOUNTED = 0.25
"""Share of the pictures that pass before the clock starts: all processes have begun by then."""
MAIN, OTHER = "main", "other"
RING: list[range] = []
"""Addresses that were pinned where they are."""


class Copied(Cpu):
    """A device whose pinned memory is any memory, and not that in which pictures arrive."""

    def pin_in_place(self, host: Tensor) -> Callable[[], None]:
        RING[:] = [range(host.data_ptr(), host.data_ptr() + host.nbytes)]
        return RING.clear

    def pinned(self, host: Tensor) -> Tensor:
        return host if any(host.data_ptr() in there for there in RING) else host.clone()


@dataclass
class ThreadTimes:
    """Processor seconds of this process by the name of the thread, from `start` to `stop`."""

    _before: Counter[str] = field(default_factory=Counter)
    _by_thread: dict[int, tuple[str, float]] = field(default_factory=dict)
    """By the system's number: its name, and what it has taken since it began."""
    _watching: threading.Thread | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Begins to look at the threads."""
        self._watching = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._watching.start()

    def start(self) -> None:
        """What was taken until now does not count."""
        self._before = self._taken()

    def stop(self) -> Counter[str]:
        """Since `start`."""
        taken = self._taken()
        self._over.set()
        taken.subtract(self._before)
        del taken["watch"]
        return taken

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            self._look()

    def _look(self) -> None:
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        for folder in Path("/proc/self/task").iterdir():
            try:
                text = (folder / "schedstat").read_text()
            except OSError:
                continue  # it has ended
            number = int(folder.name)
            known = self._by_thread.get(number, (OTHER, 0.0))[0]
            name = names.get(number, known).partition("_")[0]
            name = MAIN if number == os.getpid() else name
            self._by_thread[number] = name, int(text.split()[0]) / 1e9

    def _taken(self) -> Counter[str]:
        self._look()
        taken: Counter[str] = Counter()
        for name, seconds in list(self._by_thread.values()):
            taken[name] += seconds
        taken[OTHER] += time.process_time() - taken.total()
        return taken


@dataclass
class NoModel(SplitOnOom):
    """Takes the place of the model: latents that are there, and no look at the pictures."""

    made: Parts = field(default_factory=dict)
    """Of a full batch."""
    start: Callable[[], None] = lambda: None
    """Called once so many pictures have come."""
    after: int = 0
    passed: int = 0

    def encode(
        self, encode: Callable[[Tensor, Sequence[str]], Parts], pixels: Tensor, keys: Sequence[str]
    ) -> Parts:
        before, self.passed = self.passed, self.passed + len(keys)
        if before < self.after <= self.passed:
            self.start()
        return {name: part[: len(keys)] for name, part in self.made.items()}


def measured(job: EncodeJob, engine: Engine, pictures: int, side: int) -> Mapping[str, float]:
    """Processor seconds a picture, by thread, of an encode job without its model."""
    latents = torch.randn(job.batch_size or 1, 128, side // 16, side // 16)
    made = as_stored({"latent": latents}, "bf16")
    times, found = ThreadTimes(), media_of(job, SILENT, False)
    plan = plan_encode(job, engine, found.media, found.kind)
    after = int(UNCOUNTED * pictures)
    taken: Counter[str] = Counter()
    counted = 0

    def encode(run: EncodeRun, work: Work) -> None:
        nonlocal counted
        model = NoModel(made=made, start=times.start, after=after)
        times.watch()
        encode_in_team(replace(run, split_on_oom=model), work)
        taken.update(times.stop())
        counted = model.passed - after

    with stop_on_signals("") as stop:
        lead(job, engine, plan, found, Team(), stop, SILENT, encode, time.perf_counter())
    return {name: seconds / counted for name, seconds in taken.items()}


def run(folder: Path, side: int, options: argparse.Namespace) -> Mapping[str, float]:
    """One job of pictures of this side, in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        sources = Path(name) / "pictures"
        sources.mkdir()
        first = sources / "000000.jpg"
        first.write_bytes(toy_picture(1, [(side, side)]))
        for number in range(1, options.pictures):
            os.link(first, sources / f"{number:06d}.jpg")
        job = EncodeJob(
            sources=(str(sources),),
            output=str(Path(name) / "store"),
            model=MODEL,
            device="cpu",
            size=str(side),
            workers=options.workers,
            batch_size=options.batch_size or 2**23 // side**2,
            self_check=False,
        )
        engine = replace(engine_of(job), accelerator=cast(Cpu, Copied()))
        return measured(job, engine, options.pictures, side)


def table(side: int, taken: Mapping[str, float]) -> str:
    """What is printed of a size."""
    total = sum(taken.values())
    lines = [f"{side}x{side}: {1e6 * total:.0f} us a picture"]
    ordered = sorted(taken.items(), key=lambda item: -item[1])
    lines += [f"  {name:<20}{1e6 * seconds:6.0f}" for name, seconds in ordered]
    return "\n".join(lines)


def main() -> None:
    """Prints a table for each size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--pictures", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, help="default: that of a GPU")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="latentcli-") as name:
        turns = [
            {side: run(Path(name), side, options) for side in options.sizes}
            for _ in range(options.turns)
        ]
    for side in options.sizes:
        print(table(side, min((turn[side] for turn in turns), key=lambda t: sum(t.values()))))


if __name__ == "__main__":
    main()
