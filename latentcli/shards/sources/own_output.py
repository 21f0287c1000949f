"""Marks the folders that pictures are written to, and recognises what this program has written.

A file is known by the words that stand in its first or last bytes. So that not every file of every
source has to be opened, only those of folders that hold a MARK are. Stores and reports are folders
of which all is ours; they are known by the files that they have anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from latentcli.core.mark import MADE_BY
from latentcli.shards.layout import INPUTS, MANIFEST, SHARDS
from latentcli.shards.sources.heads import at_once, ends_of, head_of

MARK = ".latentcli"
"""File of a folder that holds pictures or videos which this program wrote."""
REPORT_MARK = "about.txt"
REPORT_NOTE = (
    "The pictures of a report by latentcli: open ../index.html in a browser.\n"
    "This folder and that page are replaced when a report is written here again.\n"
)
"""The file that the folder of a report's pictures holds, by which it is known."""
TELLING = frozenset((MARK, MANIFEST, INPUTS, SHARDS, REPORT_MARK))
"""Names by which a folder may be known."""

_ABOUT = (
    "Pictures and videos in this folder that carry the words 'made by latentcli' in their metadata"
    " were written\nby latentcli. Those are left out when it searches a folder for inputs.\n"
)
OUTPUT, INNER, SHARED = (
    f"{_ABOUT}The folder: {what}.\n".encode()
    for what in ("made for them", "made for them, inside of another such", "not made for them")
)
"""What a MARK says: the folder of an output was made by this program; one of those inside of it;
or a folder that was there before, with other things in it."""


def make_own_folder(path: Path, top: Path) -> None:
    """Makes the folder of a picture below `top`, a job's output, and marks it if it has no mark.

    `top` and the folders in between are marked too where they are missing or empty. OSError where
    one cannot be made, as FileExistsError where it is a file.
    """
    if (path / MARK).exists():
        return
    top.parent.mkdir(parents=True, exist_ok=True)
    between = [folder for folder in path.parents if folder == top or top in folder.parents]
    for folder in (*reversed(between), path):
        folder.mkdir(exist_ok=True)
        is_shared = any(folder.iterdir())
        if folder == path or not is_shared:
            mark(folder, SHARED if is_shared else OUTPUT if folder == top else INNER)


def mark(folder: Path, text: bytes = SHARED) -> None:
    """Marks a folder that is there, unless it is marked."""
    with suppress(FileExistsError), (folder / MARK).open("xb") as file:
        file.write(text)


def mark_of(folder: str) -> bytes:
    """What a folder's MARK says; an unknown text is that of a SHARED one."""
    text = head_of(f"{folder}/{MARK}")
    return text if text in (OUTPUT, INNER) else SHARED


def is_own(path: str, size: int = -1) -> bool:
    """Whether this program wrote a file; `size` is asked for if it is -1."""
    return MADE_BY.encode() in ends_of(path, size)


def own_files(paths: Sequence[str], sizes: Sequence[int] = ()) -> Iterator[bool]:
    """The same of each of some files; several of them are read at a time."""
    return at_once(is_own, paths, sizes or [-1] * len(paths))


def kind_of_folder(folder: str, names: Collection[str]) -> str | None:
    """The reason of REASONS by which a folder is left out as a whole; `names` are in it."""
    if SHARDS in names and is_store(folder, names):
        return "stores"
    if REPORT_MARK in names and head_of(f"{folder}/{REPORT_MARK}") == REPORT_NOTE.encode():
        return "reports"
    return None


def is_store(folder: str, names: Collection[str]) -> bool:
    """Whether a folder with these names in it is a latent store; its manifest may be damaged."""
    about = head_of(f"{folder}/{MANIFEST}") if MANIFEST in names else b""
    first = head_of(f"{folder}/{INPUTS}") if INPUTS in names else b""
    return (b'"spec_hash"' in about and b'"latent_space"' in about) or (
        b'"key"' in first and b'"unit"' in first
    )
