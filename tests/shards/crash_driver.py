"""Kills a small job again and again: at each of its file operations, or at random moments.

`crash_driver.py points FOLDER` and `crash_driver.py random FOLDER`. Jobs are forked from this
process, so that each costs milliseconds; a killed one gets a real SIGKILL. Prints the kill count.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from storekit import run_job, tree

from latentcli.shards.store.verify import verify_shards

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.scandir", "fcntl.flock")


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


def killed_at(store: Path, point: int) -> Callable[[], object]:
    """The job with a SIGKILL right before its file operation number `point` in the store."""

    def job() -> None:
        left = point

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in EVENTS and (event == "fcntl.flock" or str(store) in str(arguments[0])):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        run_job(store)

    return job


def check(store: Path, reference: dict[str, bytes | None]) -> None:
    assert ended(in_child(lambda: run_job(store))) == 0
    assert tree(store) == reference, sorted(tree(store).keys() ^ reference.keys())


def points(folder: Path, reference: dict[str, bytes | None]) -> int:
    kills = 0
    while True:
        store = folder / f"point{kills}"
        code = ended(in_child(killed_at(store, kills)))
        check(store, reference)
        if code == 0:
            return kills
        assert code == -signal.SIGKILL, code
        kills += 1


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


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[2])
    if sys.argv[1] == "random":
        print(at_random(folder))
        return
    assert ended(in_child(lambda: run_job(folder / "reference"))) == 0
    print(points(folder, tree(folder / "reference")))


if __name__ == "__main__":
    main()
