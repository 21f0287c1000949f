"""Keeps in an export's folder what it is, and which of its steps are done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.jobs.export.steps import Made
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.shards.layout import record_path
from latentcli.shards.storage.atomic_write import atomic_write, writing
from latentcli.shards.storage.hub import here
from latentcli.shards.storage.paths import reading

JOURNAL = ".latentcli-export.jsonl"
"""Its name begins with a dot: readers of folders pass over such files."""
VERSION = 1


@dataclass(slots=True)
class Journal:
    """A line that says what the export is, and one for each step that is done, in any order."""

    path: Path
    about: Mapping[str, Any]
    steps: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By number: the files, as [path, bytes], and the facts that they leave."""

    def add(self, made: Sequence[Made], linked: bool) -> None:
        """Notes that the files of steps are all there, and whether their pictures are linked to."""
        lines = []
        for one in made:
            line = {"step": one.step, "files": [*map(list, one.files)], "facts": one.facts}
            lines.append(line | ({"linked": True} if linked else {}))
            self.steps[one.step] = lines[-1]
        with writing(self.path), self.path.open("ab") as journal:
            journal.write(b"".join(map(line_of, lines)))
            journal.flush()
            os.fsync(journal.fileno())

    def is_done(self, step: int) -> bool:
        """Whether a step was done, and its files are still there and as long."""
        line = self.steps.get(step)
        return line is not None and all(
            length_of(self.path.parent / name) == size for name, size in line["files"]
        )

    def is_linked(self, step: int) -> bool:
        """Whether links and captions were laid with a step's files."""
        return bool(self.steps.get(step, {}).get("linked"))

    def facts(self, steps: int) -> list[dict[str, Any]]:
        """What all steps left, in their order."""
        return [self.steps[number]["facts"] for number in range(steps)]

    def files(self) -> Iterator[str]:
        """All files that were written."""
        return (name for line in self.steps.values() for name, _ in line["files"])


def line_of(value: Mapping[str, Any]) -> bytes:
    """A line of the file."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def length_of(path: Path) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def start_journal(folder: Path, about: Mapping[str, Any]) -> Journal:
    """A new journal, in the place of another one."""
    journal = Journal(folder / JOURNAL, about)
    atomic_write(journal.path, [line_of(about)])
    return journal


def read_journal(folder: Path) -> Journal | None:
    """The journal of a folder, or None; StoreError where it is damaged.

    A last line that was cut off by a kill is passed over: its step is done again.
    """
    path = folder / JOURNAL
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        about, *steps = [json.loads(line) for line in lines[:-1]]
        if about["version"] > VERSION:
            raise StoreError(f"{folder} was exported by a newer latentcli: update latentcli.")
        return Journal(path, about, {line["step"]: line for line in steps})
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is damaged ({error}). Delete it, and export again: all files are written"
            " again."
        ) from error


def cut_last_line(journal: Journal) -> None:
    """Drops what a kill left of a line, before others are added."""
    data = journal.path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        atomic_write(journal.path, [whole])


def digest_of(store: LatentStore) -> str:
    """Changes with the latents of a store, their keys and their captions."""
    sha256 = hashlib.sha256()
    for unit in store.units:
        path = record_path(store.path, unit)
        # A record holds the digests of its files, and its rows: nobody has to parse it for that.
        with reading(path):
            sha256.update(here(path).read_bytes())
    return sha256.hexdigest()
