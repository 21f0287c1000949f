"""Counts the files that `sync` opens and writes where some of a great many inputs are gone.

Run as a program with a store, it syncs that, and prints what it did as JSON.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.scale_steps import PER_FOLDER, PER_SHARD, complete, make_names

SHARE = 100
"""One of so many inputs is gone."""
SHARD = ".safetensors"
LISTS = {"inputs.jsonl", "manifest.json", "failures.jsonl"}
"""Files of a store that any sync may write."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What one sync did."""

    opened: tuple[str, ...]
    """Shards that were read."""
    written: tuple[str, ...]
    """Files of the store that are other ones now, or are no longer there."""
    seconds: float
    processor: float
    """Seconds of this process on a processor."""
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which inputs are gone."""

    name: str
    inputs: int
    gone: int
    shards: tuple[int, ...]
    """Numbers of those that had one of the inputs."""
    synced: Synced

    def too_much(self) -> list[str]:
        """What was opened or written without need, and what was not written."""
        concerned = {f"shards/{number:06d}" for number in self.shards}
        files = {f"{stem}{suffix}" for stem in concerned for suffix in (SHARD, ".json")}
        written = set(self.synced.written)
        odd = [f"{name} was opened" for name in sorted({*self.synced.opened} - files)]
        odd += [f"{name} was written" for name in sorted(written - files - LISTS)]
        odd += [f"{name} was not written" for name in sorted(files - written)]
        if self.synced.document["dropped"] != self.gone:
            odd.append(f"{self.synced.document['dropped']} were dropped instead of {self.gone}")
        return [f"{self.name}: {what}" for what in odd]


def scattered(count: int) -> Collection[int]:
    """Numbers of inputs from all over."""
    return random.Random(0).sample(range(count), max(count // SHARE, 1))


def in_a_row(count: int) -> Collection[int]:
    """Numbers of inputs that follow each other, in the middle."""
    gone = max(count // SHARE, 1)
    start = (count - gone) // 2
    return range(start, start + gone)


CASES: dict[str, Callable[[int], Collection[int]]] = {"random": scattered, "clustered": in_a_row}


def make_store(folder: Path, inputs: int, per_shard: int) -> Path:
    """A store of so many inputs, which are links below the folder."""
    from latentcli.latents.stats import ChannelSums
    from latentcli.shards.store.manifest import Manifest, write_manifest
    from latentcli.shards.store.writer import finish

    make_names(folder, inputs)
    manifest = Manifest(
        tool="a test",
        spec={"latents": {"state": "raw"}},
        model={"name": "toy"},
        latent_space="toy#raw",
        latent={"channels": 1, "downscale": 16, "size_divisor": 16},
        preprocessing={},
    )
    store = folder / "store"
    complete(store, folder / "names", manifest.spec_hash, per_shard)
    write_manifest(store, manifest)
    finish(store, manifest, range(-(-inputs // per_shard)), ChannelSums())
    return store


def run(folder: Path, inputs: int, per_shard: int = PER_SHARD) -> list[Case]:
    """Every case below an empty folder, each with its own inputs and store."""
    cases = []
    for name, chosen in CASES.items():
        (folder / name).mkdir()
        store = make_store(folder / name, inputs, per_shard)
        gone = chosen(inputs)
        for number in gone:
            (folder / name / "names" / f"{number // PER_FOLDER:05d}" / f"{number:08d}.jpg").unlink()
        shards = tuple(sorted({number // per_shard for number in gone}))
        cases.append(Case(name, inputs, len(gone), shards, measured(store)))
    return cases


def measured(store: Path) -> Synced:
    """`sync` of a store in a process of its own; RuntimeError where it fails."""
    command = [sys.executable, __file__, str(store)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the sync failed:\n{done.stderr}")
    return Synced(**json.loads(done.stdout))


def synced(store: Path) -> Synced:
    """`sync` of a store in this process, every open file of which is seen from here on."""
    from latentcli.jobs.config import SyncJob
    from latentcli.jobs.encode.sync import run_sync

    opened, before = set[str](), states(store)

    def see(event: str, args: tuple[Any, ...]) -> None:
        is_read = event == "open" and isinstance(args[1], str) and args[1].startswith("r")
        if is_read and str(args[0]).startswith(f"{store}/"):
            opened.add(str(args[0]).removeprefix(f"{store}/"))

    sys.addaudithook(see)
    began, busy = time.perf_counter(), time.process_time()
    document = run_sync(SyncJob(store=str(store)))
    seconds, processor = time.perf_counter() - began, time.process_time() - busy
    after = states(store)
    written = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    shards = [name for name in opened if name.endswith(SHARD)]
    return Synced(
        *(tuple(sorted(shards)), tuple(sorted(written))),
        *(round(seconds, 2), round(processor, 2), document),
    )


def states(store: Path) -> dict[str, tuple[int, int]]:
    """What is another one where a file has been written, by name."""
    files = [path for path in store.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(store)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in files
    }


def main(words: Sequence[str]) -> None:
    print(json.dumps(asdict(synced(Path(words[0])))))


if __name__ == "__main__":
    main(sys.argv[1:])
