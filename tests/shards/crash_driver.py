"""Kills a small job again and again: at each of its file operations, or at random moments.

`crash_driver.py MODE FOLDER`, of a mode of MODES. Jobs are forked from this process, so that each
costs milliseconds; a killed one gets a real SIGKILL. Prints the kill count.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import torch
from rewritekit import NEW, OLD, bring_to, check_late, check_seen, early, part
from storekit import run_job, tree

from latentcli.shards.store.verify import verify_shards

EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.scandir", "fcntl.flock")

Job = Callable[[Path], object]
"""What is done with a store."""


def in_child(job: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            job()
        except BaseException as error:
            print(f"job failed: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(store: Path, point: int, job: Job) -> Callable[[], object]:
    """The job with a SIGKILL right before its file operation number `point` in the store."""

    def killed() -> None:
        left = point

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in EVENTS and (event == "fcntl.flock" or str(store) in str(arguments[0])):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        job(store)

    return killed


def check(store: Path, reference: dict[str, bytes | None], job: Job) -> None:
    assert ended(in_child(lambda: job(store))) == 0
    odd = sorted(name for name, _ in tree(store).items() ^ reference.items())
    assert not odd, odd


def points(folder: Path) -> int:
    assert ended(in_child(lambda: run_job(folder / "reference"))) == 0
    reference, kills = tree(folder / "reference"), 0
    while True:
        store = folder / f"point{kills}"
        code = ended(in_child(killed_at(store, kills, run_job)))
        check(store, reference, run_job)
        if code == 0:
            return kills
        assert code == -signal.SIGKILL, code
        kills += 1


def rewriting(folder: Path, units: Collection[int] = tuple(OLD), form: str = "safetensors") -> int:
    """Kills a job that writes units anew, and then the one that goes on with it."""
    old, new = part(OLD, units), part(NEW, units)
    assert ended(in_child(lambda: bring_to(folder / "old", old, form))) == 0
    assert ended(in_child(lambda: bring_to(folder / "new", new, form))) == 0
    reference, job = tree(folder / "new"), partial(bring_to, plan=new, form=form)
    kills, chance = 0, random.Random(0)
    while True:
        store = folder / f"point{kills}"
        shutil.copytree(folder / "old", store)
        code = ended(in_child(killed_at(store, kills, job)))
        check_seen(store, units)
        reader = early(store)
        second = ended(in_child(killed_at(store, chance.randrange(40), job)))
        assert second in (0, -signal.SIGKILL), second
        check_seen(store, units)
        check(store, reference, job)
        check_late(reader, units)
        if code == 0:
            return kills
        assert code == -signal.SIGKILL, code
        kills += 1


def without_links(folder: Path) -> int:
    """The same with tars, on a file system that has no hard links."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    os.link = refuse
    return rewriting(folder, (0, 3), "webdataset")


def at_random(folder: Path) -> int:
    reference_store, store = folder / "long", folder / "killed"
    begin = time.perf_counter()
    assert ended(in_child(lambda: run_job(reference_store, 240, 4))) == 0
    whole = time.perf_counter() - begin
    chance, kills = random.Random(0), 0
    while kills < 20:
        child = in_child(lambda: run_job(store, 240, 4))
        time.sleep(chance.uniform(0, whole / 10))
        os.kill(child, signal.SIGKILL)
        if ended(child) == 0:
            break
        kills += 1
    assert ended(in_child(lambda: run_job(store, 240, 4))) == 0
    assert tree(store) == tree(reference_store)
    assert list(verify_shards(store)) == []
    return kills


MODES = {
    "points": points,
    "random": at_random,
    "rewriting": rewriting,
    "without-links": without_links,
}


def main() -> None:
    torch.set_num_threads(1)
    print(MODES[sys.argv[1]](Path(sys.argv[2])))


if __name__ == "__main__":
    main()
