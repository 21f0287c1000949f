"""Runs the commands that follow a dataset, and kills some of them on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import chdir
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness.life_folder import OTHER_STORE, Life
from latentcli.jobs.config import DecodeJob, EncodeJob, SyncJob
from latentcli.jobs.decode.job import run_decode
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.encode.sync import run_sync

MODEL = "linear16"
WRITES = {"os.rename", "os.link", "os.remove", "os.truncate"}
MOST_EVENTS = 40
"""Changes of the file system of which one is the last before a kill."""
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(["harness.life_commands", "latentcli.models.linear", "pillow_heif"])


def encode(life: Life, store: Path | None = None, **options: Any) -> dict[str, Any]:
    """`encode` of the dataset."""
    job = EncodeJob(
        sources=(str(life.data),),
        output=str(store or life.store),
        model=MODEL,
        device="cpu",
        batch_size=3,
        samples_per_shard=4,
        workers=0,
        self_check=False,
        shard_format=life.form,
        **options,
    )
    return run_encode(job)


def sync(life: Life, *, named: bool = False) -> dict[str, Any]:
    """`sync` of the store, with or without the dataset's folder."""
    sources = (str(life.data),) if named else ()
    return run_sync(SyncJob(store=str(life.store), sources=sources, max_drop="100%"))


def decode_in_place(life: Life) -> dict[str, Any]:
    """`decode` in the dataset's folder, to where it goes there by itself."""
    life.decodes += 1
    with chdir(life.data):
        return run_decode(DecodeJob(store=str(life.store), device="cpu"))


def encode_inside(life: Life) -> dict[str, Any]:
    """`encode .` into another store, in the dataset's folder."""
    return encode(life, life.data / OTHER_STORE)


COMMANDS: dict[str, Callable[[Life], dict[str, Any]]] = {
    "encode": encode,
    "encode --whole-shards": lambda life: encode(life, whole_shards=True),
    "encode --retry failed": lambda life: encode(life, retry="failed"),
    "encode --compare digest": lambda life: encode(life, compare="digest"),
    "encode -o ./other.latents": encode_inside,
    "sync": sync,
    "sync SRC": lambda life: sync(life, named=True),
    "decode": decode_in_place,
}
ROUNDS = (
    ("sync", "encode"),
    ("sync SRC", "encode"),
    ("sync SRC", "encode --whole-shards"),
    ("encode", "sync", "encode"),
    ("encode --retry failed", "sync SRC", "encode"),
)
"""Commands after which a store is what a new one would be."""
AFTER_A_MOVE = ROUNDS[1:]
AFTER_A_COPY = (
    ("sync SRC", "encode --compare digest"),
    ("encode --compare digest", "sync", "encode"),
)
"""A copy whose files have the times of their copying hides what changed at the same size."""
OUTPUTS = ("decode", "encode -o ./other.latents")
"""Commands that write into the dataset's folder what is no input."""


def killed_after(events: int, life: Life, command: str) -> None:
    """A command in this process, which kills itself before one of its changes of files."""
    left = [events]

    def count(event: str, args: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(args[1], str) and args[1][:1] in "wax"
        if event in WRITES or is_write:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    COMMANDS[command](life)
    os._exit(0)


def kill(life: Life, command: str) -> bool:
    """Runs a command that is killed at some point; whether it was."""
    events = life.chance.randint(1, MOST_EVENTS)
    process = SERVER.Process(target=killed_after, args=(events, life, command))
    process.start()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{command} ended with {process.exitcode}")
    return process.exitcode != 0
