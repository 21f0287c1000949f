"""Reads a folder of latents of one other tool, file by file in the order of their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torch import Tensor

from latentcli.core.cached import cached
from latentcli.core.errors import LatentCliError, SampleError, StoreError, UsageError
from latentcli.shards.layout import MANIFEST, SHARDS
from latentcli.shards.storage.paths import AnyPath, RemotePath, reading
from latentcli.shards.tensors.foreign.ai_toolkit import FOLDER
from latentcli.shards.tensors.foreign.formats import ForeignFormat, formats_of, open_foreign
from latentcli.shards.tensors.foreign.latents import (
    ForeignFile,
    ForeignLatent,
    described_latents,
    named,
)

BLOCK = 64
"""Files that a process takes at once, of those that hold one latent."""
TRIED = 100
"""Files that are opened to learn what those of a name hold."""
COUNTED = 1000
"""Files that are opened to count what they hold, where they may hold several latents."""


@dataclass(frozen=True)
class ForeignFolder:
    """The latents of a folder, all of one format, space and state."""

    path: AnyPath
    kind: ForeignFormat
    space: str | None
    """Latent space id without the state, of the first file that can be read; None where it does
    not tell."""
    state: str
    """whitened, scaled or raw, likewise."""
    names: Sequence[str]
    """Of the files, below the folder and sorted."""
    asked: str | None
    """The state that the user says."""

    @property
    def format(self) -> str:
        """Whose format it is, as people call it."""
        return self.kind.name

    @cached
    def stems(self) -> Sequence[str]:
        """What the keys of each file begin with: the picture's name, where that is one file's."""
        plain = [
            self.stem_of(name, self.kind.stem(PurePosixPath(name).name)) for name in self.names
        ]
        times = Counter(plain)
        return [
            stem if times[stem] == 1 else self.stem_of(name, PurePosixPath(name).stem)
            for name, stem in zip(self.names, plain, strict=True)
        ]

    @cached
    def count(self) -> int | None:
        """Latents of all files; None where only opening each of very many would tell it."""
        if not self.kind.several:
            return len(self.names)
        if len(self.names) > COUNTED:
            return None
        return sum(sum(1 for _ in self.latents([index])) for index in range(len(self.names)))

    @property
    def blocks(self) -> Sequence[range]:
        """Numbers of files, of each part that a process may take."""
        size = 1 if self.kind.several else BLOCK
        total = len(self.names)
        return [range(start, min(start + size, total)) for start in range(0, total, size)]

    def latents(self, files: Iterable[int]) -> Iterator[ForeignLatent]:
        """The latents of some files, one file open at a time.

        One that cannot be read, or is of another space or state, gives one latent that raises
        SampleError with the file's name.
        """
        for index in files:
            path = below(self.path, self.names[index])
            try:
                found = self._opened(path, self.stems[index])
            except (LatentCliError, OSError) as error:
                yield ForeignLatent(self.stems[index], _failing(str(error).removesuffix(".")))
            else:
                yield from (named(latent, path) for latent in found.latents)

    def _opened(self, path: AnyPath, stem: str) -> ForeignFile:
        opened = open_foreign(path, self.asked, stem)
        if opened is None or opened[0].name != self.kind.name:
            what = "another tool" if opened is None else opened[0].name
            raise StoreError(f"{path} is of {what}, and the folder's first file of {self.format}")
        found = opened[1]
        if (found.space, found.state) != (self.space, self.state):
            first = described_latents(self.space, self.state)
            raise StoreError(f"{path} holds {found.described}, and the folder's first file {first}")
        return found

    def stem_of(self, name: str, stem: str) -> str:
        """A stem in the folder of the picture that a file is of."""
        parts = [part for part in PurePosixPath(name).parent.parts if part != FOLDER]
        return str(PurePosixPath(*parts, stem))


class _failing:
    """Raises SampleError when it is called."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __call__(self) -> Tensor:
        raise SampleError("read", self.reason)


def open_foreign_folder(path: AnyPath, state: str | None) -> ForeignFolder | None:
    """The latents of a folder and the folders below it; None where it holds none, or is a store.

    Pictures, captions and text caches beside them are passed over. UsageError where there are
    files of several formats, or `state` contradicts what they are; StoreError where none of them
    can be read.
    """
    if (path / MANIFEST).exists() or (path / SHARDS).exists():
        return None
    with reading(path):
        groups = grouped(path)
    found_by_name: dict[str, tuple[ForeignFormat, Sequence[str], ForeignFile | StoreError]] = {}
    for names in groups.values():
        found = first_of(path, names, state)
        if found is not None:
            kind, opened = found
            found_by_name[kind.name] = kind, names, opened
    latents = {name: each for name, each in found_by_name.items() if each[0].latents}
    if not latents:
        # A folder of other files alone: what they are is told.
        latents = dict(list(found_by_name.items())[:1])
    if not latents:
        return None
    if len(latents) > 1:
        shown = ", ".join(f"{name}: {len(names)}" for name, (_, names, _) in latents.items())
        raise UsageError(
            f"{path} holds latents of several formats ({shown}); name a folder of one, or a file."
        )
    ((kind, of_kind, opened),) = latents.values()
    if isinstance(opened, StoreError):
        raise opened
    return ForeignFolder(path, kind, opened.space, opened.state, of_kind, state)


def open_foreign_set(path: AnyPath, state: str | None) -> ForeignFolder | None:
    """`open_foreign_folder`, or a single file as a folder of one; None where it is neither."""
    if path.is_dir():
        return open_foreign_folder(path, state)
    opened = open_foreign(path, state)
    if opened is None:
        return None
    kind, file = opened
    return ForeignFolder(path.parent, kind, file.space, file.state, [path.name], state)


def grouped(path: AnyPath) -> dict[str, list[str]]:
    """Names of files that may be some other tool's, sorted, by the format they may be of."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names_below(path)):
        kind = next(formats_of(PurePosixPath(name).name), None)
        if kind is not None:
            groups.setdefault(kind.name, []).append(name)
    return groups


def names_below(path: AnyPath) -> Iterator[str]:
    """Files below a folder, with forward slashes; hidden ones are passed over."""
    if isinstance(path, RemotePath):
        prefix = f"{path}/"
        yield from (str(found).removeprefix(prefix) for found, _ in path.find())
        return
    for folder, below_it, files in os.walk(path):
        below_it[:] = [name for name in below_it if not name.startswith(".")]
        start = Path(folder).relative_to(path)
        yield from ((start / name).as_posix() for name in files if not name.startswith("."))


def first_of(
    path: AnyPath, names: Sequence[str], state: str | None
) -> tuple[ForeignFormat, ForeignFile | StoreError] | None:
    """The format of the first file that can be opened, or why the first cannot; None of others."""
    problem: StoreError | None = None
    for name in names[:TRIED]:
        file = below(path, name)
        try:
            opened = open_foreign(file, state)
        except StoreError as error:
            problem = problem or error
            continue
        if opened is not None:
            return opened
    if problem is None:
        return None
    kind = next(formats_of(PurePosixPath(names[0]).name))
    return kind, problem


def below(path: AnyPath, name: str) -> AnyPath:
    """A file below a folder."""
    for part in PurePosixPath(name).parts:
        path = path / part
    return path
