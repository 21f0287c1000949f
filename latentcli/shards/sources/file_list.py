"""Holds lists of a million files, with their sizes and times, in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self, overload


class FoundInput(NamedTuple):
    """One input before it has a unit."""

    path: str
    """Absolute, or a URL, or pipe:COMMAND; bytes that are no UTF-8 are surrogate escapes."""
    key: str
    """Unique among the inputs found together."""
    size: int
    """Bytes, or -1 where the file cannot be reached: reading it will say why."""
    mtime_ns: int
    """Modification time in nanoseconds, or -1."""


@dataclass(slots=True)
class Files:
    """Files with their sizes and modification times, in parallel: objects would take thrice that.

    The numbers are those of FoundInput.
    """

    paths: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, path: str, size: int = -1, mtime_ns: int = -1) -> None:
        """One more file."""
        self.paths.append(path)
        self.sizes.append(size)
        self.times.append(mtime_ns)

    def extend(self, other: Files) -> None:
        """All files of another list."""
        self.paths += other.paths
        self.sizes += other.sizes
        self.times += other.times

    def pick(self, positions: Iterable[int]) -> Files:
        """The files at these positions, in their order."""
        chosen = list(positions)
        return Files(
            [self.paths[i] for i in chosen],
            array("q", [self.sizes[i] for i in chosen]),
            array("q", [self.times[i] for i in chosen]),
        )

    def where(self, wanted: Callable[[str], bool]) -> Files:
        """The files whose path is wanted; this list itself where all are."""
        chosen = [i for i, path in enumerate(self.paths) if wanted(path)]
        return self if len(chosen) == len(self) else self.pick(chosen)


@dataclass(frozen=True, slots=True)
class Source:
    """The files that one source means."""

    text: str
    """As the user wrote it."""
    anchor: str | None
    """The folder that keys are relative to, a path or a URL; None of a pipe."""
    files: Files
    named: bool = False
    """Whether the files were named one by one: not found in a folder or by a wildcard."""


class FoundInputs(Sequence[FoundInput]):
    """The inputs of a job, sorted by key; it makes each FoundInput when it is asked for."""

    def __init__(
        self,
        files: Files,
        keys: list[str],
        *,
        packed: bool = False,
        anchor: str | None = None,
        roots: Collection[str] = (),
    ) -> None:
        self.files, self.keys, self.packed = files, keys, packed
        self.roots = roots
        """The folders and URLs of the single sources, sorted."""
        self.anchor = anchor
        """The folder or URL that keys are relative to: that of the sources joined. None where
        there is none, as of pipes."""

    @classmethod
    def of(cls, inputs: Iterable[FoundInput]) -> Self:
        """The same inputs, in their order."""
        files, keys = Files(), []
        for path, key, size, mtime_ns in inputs:
            files.add(path, size, mtime_ns)
            keys.append(key)
        return cls(files, keys)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[FoundInput]:
        files = self.files
        return map(FoundInput, files.paths, self.keys, files.sizes, files.times)

    @overload
    def __getitem__(self, at: int) -> FoundInput: ...
    @overload
    def __getitem__(self, at: slice) -> list[FoundInput]: ...
    def __getitem__(self, at: int | slice) -> FoundInput | list[FoundInput]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        files = self.files
        return FoundInput(files.paths[at], self.keys[at], files.sizes[at], files.times[at])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def first(self, count: int) -> FoundInputs:
        """The first inputs in the order of their keys."""
        return FoundInputs(
            self.files.pick(range(min(count, len(self)))),
            self.keys[:count],
            packed=self.packed,
            anchor=self.anchor,
            roots=self.roots,
        )

    def clear(self) -> None:
        """Lets all inputs go: they take memory, and a job has them in its store by then."""
        self.files, self.keys = Files(), []
