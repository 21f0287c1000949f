"""Lives a dataset's life at random, and says where its store differs from one made anew.

A folder of pictures and captions is added to, edited, renamed, deleted from and moved; `sync` and
`encode` follow it, some of them killed on the way. Then keys, latents, captions and failures must
be those that `encode` gives of the folder as it is.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MODEL = "linear16"
FEWEST = 4
"""Pictures that are never deleted."""
SUFFIXES = (".png", ".jpg", ".webp")
WRITES = {"os.rename", "os.link", "os.remove", "os.truncate"}
MOST_EVENTS = 40
"""Changes of the file system of which one is the last before a kill."""
SERVER = get_context("forkserver")


@dataclass
class Life:
    """A dataset, its store, and what has happened to them."""

    home: Path
    chance: random.Random
    form: str
    killing: bool
    data: Path = field(init=False)
    store: Path = field(init=False)
    made: int = 0
    moves: int = 0
    kills: int = 0
    told: list[str] = field(default_factory=list)
    """The actions and commands so far."""

    def __post_init__(self) -> None:
        self.data, self.store = self.home / "data0", self.home / "store"
        self.data.mkdir(parents=True)

    def pictures(self) -> list[Path]:
        """The pictures that there are."""
        return sorted(p for p in self.data.rglob("*") if p.suffix in SUFFIXES)

    def folder(self) -> Path:
        """A folder of the dataset, perhaps a new one."""
        there = [self.data, *sorted(p for p in self.data.rglob("*") if p.is_dir())]
        if self.chance.random() < 0.2 and len(there) < 6:
            made = self.chance.choice(there) / f"f{self.made}"
            made.mkdir(exist_ok=True)
            return made
        return self.chance.choice(there)

    def draw(self, path: Path) -> None:
        """Writes a picture that no other is like."""
        self.made += 1
        size = self.chance.choice([(16, 16), (32, 16), (16, 32)])
        pixels = np.random.default_rng(self.made).integers(0, 256, (size[1], size[0], 3), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        image.save(path, lossless=True) if path.suffix == ".webp" else image.save(path)


def add(life: Life) -> str:
    path = life.folder() / f"p{life.made}{life.chance.choice(SUFFIXES)}"
    life.draw(path)
    if life.chance.random() < 0.6:
        write_text(life, path)
    return f"add {path.relative_to(life.data)}"


def write_text(life: Life, path: Path) -> str:
    life.made += 1
    suffix = life.chance.choice([".txt", ".txt", ".caption", ".json"])
    text = f"caption {life.made}"
    if suffix == ".json":
        text = json.dumps({"caption": text, "number": life.made})
    path.with_suffix(suffix).write_text(
        life.chance.choice([text, text, text, "", "\udcff"]), errors="surrogateescape"
    )
    return f"text {path.with_suffix(suffix).relative_to(life.data)}"


def picked(life: Life) -> Path:
    return life.chance.choice(life.pictures())


def edit(life: Life) -> str:
    path = picked(life)
    life.draw(path)
    return f"edit {path.relative_to(life.data)}"


def edit_text(life: Life) -> str:
    return write_text(life, picked(life))


def drop_text(life: Life) -> str:
    texts = sorted(p for p in life.data.rglob("*") if p.suffix in (".txt", ".caption", ".json"))
    if not texts:
        return "drop no text"
    path = life.chance.choice(texts)
    path.unlink()
    return f"drop {path.relative_to(life.data)}"


def metadata(life: Life) -> str:
    folder = life.folder()
    below = [p for p in life.pictures() if p.is_relative_to(folder)]
    rows = [
        {"file_name": str(p.relative_to(folder)), "text": f"meta {life.made} {i}", "order": i}
        for i, p in enumerate(below)
        if life.chance.random() < 0.7
    ]
    life.made += 1
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text)
    return f"metadata of {len(rows)} in {folder.relative_to(life.data)}"


def rename(life: Life) -> str:
    path = picked(life)
    target = life.folder() / f"r{life.made}{path.suffix}"
    life.made += 1
    texts = [path.with_suffix(s) for s in (".txt", ".caption", ".json")]
    path.rename(target)
    if life.chance.random() < 0.7:
        for text in texts:
            if text.exists() and text.name != "metadata.json":
                text.rename(target.with_suffix(text.suffix))
    return f"rename {path.relative_to(life.data)} to {target.relative_to(life.data)}"


def swap(life: Life) -> str:
    one, two = picked(life), picked(life)
    if one == two or one.suffix != two.suffix:
        return "swap nothing"
    other = one.with_name("swapping")
    one.rename(other)
    two.rename(one)
    other.rename(two)
    return f"swap {one.relative_to(life.data)} and {two.relative_to(life.data)}"


def rename_folder(life: Life) -> str:
    folders = sorted(p for p in life.data.rglob("*") if p.is_dir())
    if not folders:
        return "rename no folder"
    path = life.chance.choice(folders)
    life.made += 1
    path.rename(path.with_name(f"g{life.made}"))
    return f"rename folder {path.relative_to(life.data)} to g{life.made}"


def delete(life: Life) -> str:
    path = picked(life)
    if len(life.pictures()) <= FEWEST:
        return "delete nothing"
    path.unlink()
    return f"delete {path.relative_to(life.data)}"


def delete_folder(life: Life) -> str:
    folders = sorted(p for p in life.data.rglob("*") if p.is_dir())
    left = [f for f in folders if sum(not p.is_relative_to(f) for p in life.pictures()) >= FEWEST]
    if not left:
        return "delete no folder"
    path = life.chance.choice(left)
    shutil.rmtree(path)
    return f"delete folder {path.relative_to(life.data)}"


def duplicate(life: Life) -> str:
    path = picked(life)
    target = life.folder() / f"d{life.made}{path.suffix}"
    life.made += 1
    shutil.copy(path, target)
    return f"copy {path.relative_to(life.data)} to {target.relative_to(life.data)}"


def same_stem(life: Life) -> str:
    path = picked(life)
    target = path.with_suffix(life.chance.choice(SUFFIXES))
    life.draw(target)
    return f"draw {target.relative_to(life.data)}"


def touch(life: Life) -> str:
    path = picked(life)
    life.made += 1
    os.utime(path, ns=(life.made, life.made))
    return f"touch {path.relative_to(life.data)}"


def break_one(life: Life) -> str:
    path = picked(life)
    life.made += 1
    path.write_bytes(f"no picture {life.made}".encode())
    return f"break {path.relative_to(life.data)}"


def other_file(life: Life) -> str:
    life.made += 1
    (life.folder() / f"note{life.made}.md").write_text("words")
    return "add a text that is of no picture"


def move(life: Life) -> str:
    life.moves += 1
    target = life.home / f"data{life.moves}"
    if life.chance.random() < 0.5:
        life.data.rename(target)
    else:
        shutil.copytree(life.data, target, copy_function=shutil.copy)
        shutil.rmtree(life.data)
    life.data = target
    return f"move to {target.name}"


ACTIONS: dict[Callable[[Life], str], int] = {
    add: 6,
    edit: 4,
    edit_text: 4,
    drop_text: 2,
    metadata: 2,
    rename: 4,
    swap: 2,
    rename_folder: 1,
    delete: 4,
    delete_folder: 1,
    duplicate: 2,
    same_stem: 2,
    touch: 2,
    break_one: 1,
    other_file: 1,
    move: 1,
}
"""What users do, and how often."""


def encode(life: Life, store: Path | None = None, **options: Any) -> dict[str, Any]:
    """`encode` of the dataset."""
    from latentcli.jobs.config import EncodeJob
    from latentcli.jobs.encode.job import run_encode

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
    from latentcli.jobs.config import SyncJob
    from latentcli.jobs.encode.sync import run_sync

    sources = (str(life.data),) if named else ()
    return run_sync(SyncJob(store=str(life.store), sources=sources, max_drop="100%"))


COMMANDS: dict[str, Callable[[Life], object]] = {
    "encode": encode,
    "encode --whole-shards": lambda life: encode(life, whole_shards=True),
    "encode --retry failed": lambda life: encode(life, retry="failed"),
    "sync": sync,
    "sync SRC": lambda life: sync(life, named=True),
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


def contents(store: Path) -> dict[str, Any]:
    """All that a store says of its samples, by key."""
    from latentcli import open_store

    opened = open_store(store)
    rows = list(opened.rows())
    found: dict[str, Any] = {r.key: (r.stage, r.error) for r in rows if r.status == "failed"}
    for key in opened:
        found[key] = (opened[key].tolist(), opened.fields(key))
    return found


def differences(life: Life) -> list[str]:
    """What is wrong with the store, where it should be what a new one is."""
    from latentcli import open_store
    from latentcli.shards.store.verify import verify_shards

    fresh = life.home / "fresh"
    encode(life, fresh)
    mine, wanted = contents(life.store), contents(fresh)
    wrong = [f"{key!r} is missing" for key in sorted(wanted.keys() - mine.keys())]
    wrong += [f"{key!r} is too many" for key in sorted(mine.keys() - wanted.keys())]
    wrong += [
        f"{key!r} is {str(mine[key])[-200:]}, not {str(wanted[key])[-200:]}"
        for key in sorted(mine.keys() & wanted.keys())
        if mine[key] != wanted[key]
    ]
    wrong += [problem.what for problem in verify_shards(life.store)]
    if len(open_store(life.store)) != len(list(open_store(life.store))):
        wrong.append("the store counts other samples than it has")
    shutil.rmtree(fresh)
    return wrong


def readable(life: Life, known: dict[str, Any]) -> list[str]:
    """What a reader finds wrong right after a kill: a key it cannot read, or another latent."""
    from latentcli import open_store

    if not (life.store / "manifest.json").exists():
        return []
    opened = open_store(life.store)
    rows = {row.key: row for row in opened.rows() if row.status == "ok"}
    wrong = []
    for key, row in rows.items():
        opened.fields(key)
        latent = opened[key].tolist()
        if known.setdefault(row.sha256 or key, latent) != latent:
            wrong.append(f"{key!r} has another latent than its picture")
    return wrong


def live(
    home: Path, seed: int, *, steps: int, pictures: int, killing: bool
) -> tuple[Life, list[str]]:
    """One life: the dataset, and what was wrong at the first step where anything was."""
    chance = random.Random(seed)
    form = chance.choice(["safetensors", "webdataset"])
    life = Life(home, chance, form, killing)
    known: dict[str, Any] = {}
    for _ in range(pictures):
        life.told.append(add(life))
    encode(life)
    for _ in range(steps):
        before = life.moves
        for action in chance.choices(list(ACTIONS), list(ACTIONS.values()), k=chance.randint(1, 4)):
            life.told.append(action(life))
        commands = chance.choice(AFTER_A_MOVE if life.moves > before else ROUNDS)
        victim = chance.randrange(len(commands)) if killing else -1
        for number, command in enumerate(commands):
            life.told.append(f"$ {command}")
            if number == victim and kill(life, command):
                life.kills += 1
                life.told.append("killed")
                if wrong := readable(life, known):
                    return life, wrong
                life.told.append(f"$ {command}")
            COMMANDS[command](life)
        if wrong := differences(life):
            return life, wrong
    return life, []


def main(words: list[str]) -> int:
    """Lives as many lives as are asked for, from a seed on; 1 where one went wrong."""
    import tempfile
    import time

    lives, first = int(words[0]), int(words[1]) if len(words) > 1 else 0
    began, counts = time.perf_counter(), Counter[str]()
    for seed in range(first, first + lives):
        with tempfile.TemporaryDirectory(prefix="latentcli-life-") as folder:
            life, wrong = live(
                Path(folder),
                seed,
                steps=5,
                pictures=60 if seed % 10 == 0 else 12,
                killing=seed % 3 == 0,
            )
        counts["lives"] += 1
        counts["steps"] += sum(line.startswith("$") for line in life.told)
        counts["kills"] += life.kills
        if wrong:
            counts["wrong"] += 1
            print(
                f"seed {seed} ({life.form}):",
                *life.told,
                "WRONG:",
                *wrong[:10],
                sep="\n  ",
                flush=True,
            )
    print(dict(counts), f"{time.perf_counter() - began:.0f} s", flush=True)
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
