"""Kills a job that writes units of its store anew: once at each of its changes of files.

`rewrite_driver.py JOB FORMAT FIRST STEP FOLDER`, of every STEP-th change from the FIRST on; the job
is encode, or sync, which encode follows. Jobs are forked from this process, so that each takes a
part of a second; a killed one gets a real SIGKILL. Prints the kill count.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jobkit import encode, toy_model, toy_pictures, tree

from latentcli.jobs.config import SyncJob
from latentcli.jobs.encode.sync import run_sync
from latentcli.jobs.store.latent_store import open_store
from latentcli.shards.store.verify import verify_shards

CHANGES = ("os.rename", "os.link", "os.remove")


def make(pictures: Path) -> None:
    """Twelve pictures in three units, most of them with a caption."""
    toy_pictures(pictures, 12)
    for number in range(0, 12, 2):
        (pictures / "000" / f"{number:06d}.txt").write_text(f"caption {number}")


def change(pictures: Path) -> None:
    """Something of each kind, in every unit."""
    folder = pictures / "000"
    (folder / "000001.jpg").rename(pictures / "cat.jpg")
    shutil.copy(folder / "000000.jpg", folder / "000005.jpg")
    (folder / "000002.txt").write_text("another caption")
    for number in (4, 6):  # the captions of a unit are gone
        (folder / f"{number:06d}.txt").unlink()
    (folder / "000009.txt").write_text("a first caption")
    (folder / "000008.jpg").rename(pictures / "dog.jpg")
    toy_pictures(pictures / "later", 2)


def drop(pictures: Path) -> None:
    """All inputs of a unit, and one and the caption of another one."""
    for number in (0, 1, 2, 3, 5):
        (pictures / "000" / f"{number:06d}.jpg").unlink()
    (pictures / "000" / "000004.txt").unlink()
    (pictures / "000" / "000006.jpg").rename(pictures / "cat.jpg")


def forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"job failed: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(point: int, work: Callable[[], object]) -> Callable[[], object]:
    """The work with a SIGKILL right before its change of files number `point`."""

    def killed() -> None:
        left = point

        def count(event: str, args: tuple[Any, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(args[1], str) and args[1][:1] in "wax"
            if writes or event in CHANGES:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()

    return killed


def check_readable(store: Path, known: dict[str, list[float]]) -> None:
    """Whoever opens the store reads latents of the pictures that it names, and their captions."""
    opened = open_store(store)
    for row in opened.rows():
        opened.fields(row.key)
        latent = opened[row.key].tolist()
        assert known.setdefault(row.sha256 or "", latent) == latent, row


def main() -> None:
    torch.set_num_threads(1)
    name, form = sys.argv[1:3]
    first, step, folder = int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
    pictures, old, store = folder / "pictures", folder / "old", folder / "store"
    model = str(toy_model(folder / "model"))

    def encoded() -> None:
        assert encode(pictures, store, model, shard_format=form)["failed"] == 0

    def synced() -> None:
        run_sync(SyncJob(store=str(store)))

    works = {"encode": [encoded], "sync": [synced, encoded, synced]}[name]
    make(pictures)
    assert forked(encoded) == 0
    store.rename(old)
    {"encode": change, "sync": drop}[name](pictures)
    shutil.copytree(old, store)
    assert forked(works[0]) == 0
    assert list(verify_shards(store)) == []
    reference, known = tree(store), dict[str, list[float]]()
    for kills, point in enumerate(itertools.count(first, step)):
        shutil.rmtree(store)
        shutil.copytree(old, store)
        code = forked(killed_at(point, works[0]))
        assert code in (0, -signal.SIGKILL), code
        check_readable(store, known)
        if code == 0:
            print(kills)
            return
        for work in works[1:] or works:
            assert forked(work) == 0, point
        odd = sorted({name for name, _ in tree(store).items() ^ reference.items()})
        assert not odd, (point, odd)


if __name__ == "__main__":
    main()
