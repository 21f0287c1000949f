"""Lives a dataset's life at random, and says where its store differs from one made anew.

A folder of pictures and captions is added to, edited, renamed, deleted from and moved; `sync` and
`encode` follow it, some of them killed on the way, and `decode` and stores write into it. Then
keys, latents, captions and failures must be those that `encode` gives of the folder as it is.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.life_actions import ACTIONS, add
from harness.life_commands import (
    AFTER_A_COPY,
    AFTER_A_MOVE,
    COMMANDS,
    OUTPUTS,
    ROUNDS,
    encode,
    kill,
)
from harness.life_folder import Life
from latentcli import open_store
from latentcli.shards.store.verify import verify_shards

MANY, FEW = 60, 12
"""Pictures that a life begins with: many in one of ten."""
KILLED = 3
"""Of so many lives, the commands of one are killed."""


@dataclass
class Figures:
    """What some lives came to."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """What was wrong with each life where anything was, and what had happened before."""

    def take(self, seed: int, life: Life, wrong: list[str]) -> None:
        """One more life."""
        commands = sum(line.startswith("$") for line in life.told)
        self.counts += Counter(
            lives=1,
            actions=len(life.told) - commands,
            commands=commands,
            kills=life.kills,
            decodes=life.decodes,
            moves=life.moves,
            faults=len(wrong) > 0,
        )
        if wrong:
            lines = (f"seed {seed} ({life.form}):", *life.told, "WRONG:", *wrong[:10])
            self.faults.append("\n  ".join(lines))


def contents(store: Path) -> dict[str, Any]:
    """All that a store says of its samples, by key."""
    opened = open_store(store)
    rows = list(opened.rows())
    found: dict[str, Any] = {r.key: (r.stage, r.error) for r in rows if r.status == "failed"}
    for key in opened:
        found[key] = (opened[key].tolist(), opened.fields(key))
    return found


def differences(life: Life) -> list[str]:
    """What is wrong with the store, where it should be what a new one is."""
    fresh = life.home / "fresh"
    encode(life, fresh)
    mine, wanted = contents(life.store), contents(fresh)
    shutil.rmtree(fresh)
    wrong = [f"{key!r} is missing" for key in sorted(wanted.keys() - mine.keys())]
    wrong += [f"{key!r} is too many" for key in sorted(mine.keys() - wanted.keys())]
    wrong += [
        f"{key!r} is {str(mine[key])[-200:]}, not {str(wanted[key])[-200:]}"
        for key in sorted(mine.keys() & wanted.keys())
        if mine[key] != wanted[key]
    ]
    if len(wanted) != (pictures := len(life.pictures())):
        wrong.append(f"a new store has {len(wanted)} inputs, and there are {pictures} pictures")
    return wrong


def unsound(store: Path) -> list[str]:
    """What is wrong with a store after any command, whatever is in the dataset's folder."""
    opened = open_store(store)
    keys = Counter(row.key for row in opened.rows())
    wrong = [f"{key!r} is there {times} times" for key, times in keys.items() if times > 1]
    wrong += [problem.what for problem in verify_shards(store)]
    if len(opened) != len(list(opened)):
        wrong.append("the store counts other samples than it has")
    return wrong


def readable(life: Life, known: dict[str, Any]) -> list[str]:
    """What a reader finds wrong right after a kill: a key it cannot read, or another latent.

    `known` are the latents so far, by the digests of their pictures.
    """
    if not (life.store / "manifest.json").exists():
        return []
    opened = open_store(life.store)
    wrong = []
    for row in [row for row in opened.rows() if row.status == "ok"]:
        opened.fields(row.key)
        latent = opened[row.key].tolist()
        if known.setdefault(row.sha256 or row.key, latent) != latent:
            wrong.append(f"{row.key!r} has another latent than its picture")
    return wrong


def live(
    home: Path, seed: int, *, steps: int, pictures: int, killing: bool
) -> tuple[Life, list[str]]:
    """One life: the dataset, and what was wrong at the first step where anything was."""
    chance = random.Random(seed)
    form = chance.choice(["safetensors", "webdataset"])
    life = Life(home, chance, form, inside=chance.random() < 0.3)
    try:
        return life, next((wrong for wrong in ages(life, steps, pictures, killing) if wrong), [])
    except Exception:
        return life, [traceback.format_exc()]


def ages(life: Life, steps: int, pictures: int, killing: bool) -> Iterable[list[str]]:
    """Lives on step by step; what is wrong after each."""
    known: dict[str, Any] = {}
    life.told += [add(life) for _ in range(pictures)]
    encode(life)
    for _ in range(steps):
        commands = life.chance.choice(act(life))
        victim = life.chance.randrange(len(commands)) if killing else -1
        for number, command in enumerate(commands):
            life.told.append(f"$ {command}")
            if number == victim and kill(life, command):
                life.kills += 1
                life.told[-1] += " (killed)"
                yield readable(life, known)
                life.told.append(f"$ {command}")
            COMMANDS[command](life)
            yield unsound(life.store)
        yield differences(life)
        yield from outputs(life)


def act(life: Life) -> Sequence[Sequence[str]]:
    """What a user does between two rounds of commands; the rounds that may follow."""
    moves, copies = life.moves, life.copies
    number = life.chance.randint(1, 4)
    for action in life.chance.choices(list(ACTIONS), list(ACTIONS.values()), k=number):
        life.told.append(action(life))
    if life.copies > copies:
        return AFTER_A_COPY
    return AFTER_A_MOVE if life.moves > moves else ROUNDS


def outputs(life: Life) -> Iterable[list[str]]:
    """Sometimes writes into the dataset's folder; what is wrong where `encode` takes it for new."""
    if life.chance.random() < 0.6:
        return
    command = life.chance.choice(OUTPUTS)
    life.told.append(f"$ {command}")
    COMMANDS[command](life)
    life.told.append("$ encode")
    found = encode(life)
    yield [f"{found['encoded']} are encoded of what it wrote"] if found["encoded"] else []


def run_lives(seeds: Iterable[int], steps: int, told: Callable[[str], object]) -> Figures:
    """A life for each seed; `told` gets each fault as it is found."""
    figures = Figures()
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="latentcli-life-") as folder:
            life, wrong = live(
                Path(folder),
                seed,
                steps=steps,
                pictures=FEW if seed % 10 else MANY,
                killing=seed % KILLED == 0,
            )
        figures.take(seed, life, wrong)
        if wrong:
            told(figures.faults[-1])
    return figures
