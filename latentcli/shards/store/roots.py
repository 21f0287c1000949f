"""Holds the roots of a store's inputs, to which the paths in the store are relative."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from latentcli.core.errors import StoreError
from latentcli.shards.layout import SOURCES
from latentcli.shards.storage.atomic_write import atomic_write
from latentcli.shards.storage.json_files import load_object, pretty
from latentcli.shards.storage.paths import AnyPath, is_remote

_MARK = "@"
"""In front of the number of a root."""


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders and URLs that the sources of a store are below.

    A source is stored as its path below the first root that it is in: `cats/1.jpg` of the first
    one, `@1/cats/1.jpg` of the second. What is below none stays as it is: absolute paths, URLs,
    commands and standard input.
    """

    paths: tuple[str, ...] = ()
    """Absolute paths and URLs, none of them below another one."""
    anchor: str | None = None
    """What the keys of the inputs are relative to, as far as that is one folder or URL."""
    captions: str | None = None
    """What belongs to the inputs, as the option says; None where nobody has said it yet."""
    _numbers: Mapping[str, int] = field(init=False, repr=False, compare=False)
    """By root: there may be a thousand, and every source of a store is asked for."""

    def __post_init__(self) -> None:
        numbers = {path: number for number, path in reversed(list(enumerate(self.paths)))}
        object.__setattr__(self, "_numbers", numbers)

    def above(self, source: str) -> Iterator[str]:
        """The roots that a source is below."""
        return (folder for folder in _folders(source) if folder in self._numbers)

    def stored(self, source: str) -> str:
        """A source as it is written in the store."""
        if len(self.paths) == 1:  # as in most stores, which may have millions of sources
            number: int | None = 0
        else:
            number = min((self._numbers[root] for root in self.above(source)), default=None)
        name = None if number is None else below(self.paths[number], source)
        if name is None:
            return source
        plain = number == 0 and not _is_whole(name) and not name.startswith(_MARK)
        return name if plain else f"{_MARK}{number}/{name}"

    def whole(self, text: str) -> str:
        """The source that is written so; one of an unknown root, or of a store without roots, stays
        as it is written.
        """
        if not self.paths or _is_whole(text):
            return text
        if not text.startswith(_MARK):
            return join(self.paths[0], text)
        number, _, name = text.removeprefix(_MARK).partition("/")
        known = number.isdecimal() and int(number) < len(self.paths)
        return join(self.paths[int(number)], name) if known else text

    def with_roots(self, paths: Iterable[str], anchor: str | None) -> Self:
        """The same with more roots behind; those that lie in one of them are no roots of their own.

        The numbers of roots never change: stored sources refer to them.
        """
        roots = dict.fromkeys(self.paths)
        for path in sorted(paths):
            if path not in roots and roots.keys().isdisjoint(_folders(path)):
                roots[path] = None
        anchor = anchor if self.anchor is None else self.anchor
        return replace(self, paths=tuple(roots), anchor=anchor)

    def moved(self, old: str, new: str) -> Self:
        """The same with a root at another place."""
        anchor = self.anchor
        if anchor is not None:
            rest = below(old, anchor)
            anchor = new if anchor == old else join(new, rest) if rest is not None else anchor
        paths = tuple(new if path == old else path for path in self.paths)
        return replace(self, paths=paths, anchor=anchor)


NO_ROOTS = Roots()
"""Sources stay as they are."""


def _folders(path: str) -> Iterator[str]:
    """All folders and URLs that a path is below, each with and without a slash at its end."""
    at = path.find("/")
    while 0 <= at < len(path) - 1:
        yield path[:at]
        yield path[: at + 1]
        at = path.find("/", at + 1)


def below(root: str, path: str) -> str | None:
    """The path relative to a folder or URL that it lies in; None where it does not."""
    folder = root if root.endswith("/") else f"{root}/"
    return path[len(folder) :] if path.startswith(folder) and len(path) > len(folder) else None


def join(root: str, name: str) -> str:
    """The path of a name below a folder or URL."""
    return f"{root}{name}" if root.endswith("/") else f"{root}/{name}"


def _is_whole(text: str) -> bool:
    """Whether a stored source is not below a root."""
    if text.startswith("/") or text == "-":
        return True
    # Most have no colon, and are asked nothing more.
    return ":" in text and (text.startswith(("pipe:", "-::")) or is_remote(text))


def read_roots(store: AnyPath) -> Roots:
    """The roots of a store, none where it does not say; StoreError where the file is damaged."""
    path = store / SOURCES
    if not path.exists():
        return Roots()
    document = load_object(path)
    roots, anchor = document.get("roots"), document.get("anchor")
    if not isinstance(roots, list) or not all(isinstance(root, str) for root in roots):
        raise StoreError(f"{path} is damaged: its roots are not a list of paths.")
    captions = document.get("captions")
    texts = (text if isinstance(text, str) else None for text in (anchor, captions))
    return Roots(tuple(roots), *texts)


def write_roots(store: AnyPath, roots: Roots) -> None:
    """Writes sources.json atomically."""
    document = {
        "roots": list(roots.paths),
        "anchor": roots.anchor,
        "captions": roots.captions,
    }
    atomic_write(store / SOURCES, [pretty(document).encode() + b"\n"])
