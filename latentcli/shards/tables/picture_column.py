"""Finds the column of a table that holds the pictures, or the clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from latentcli.shards.tables.table import BYTES, OTHER, PICTURE, TEXT, UNKNOWN, Column, NoPictures

SHOWN = 20
"""Columns that a message names."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for in a table."""

    what: str
    feature: str
    """Of the Hugging Face metadata."""
    names: tuple[str, ...]
    """Usual names of columns of bytes or paths; the first decides among several."""
    path_names: tuple[str, ...]
    """Usual names of columns of paths."""


PICTURES = Wanted(
    "pictures",
    "Image",
    ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes"),
    ("file_name", "filename", "image_path", "image_file", "file_path", "filepath", "path"),
)
CLIPS = Wanted(
    "clips",
    "Video",
    ("video", "clip", "mp4", "webm", "mov", "mkv", "video_bytes", "bytes"),
    ("file_name", "filename", "video_path", "video_file", "file_path", "filepath", "path"),
)


def picture_column(columns: Sequence[Column], wanted: Wanted, asked: str | None = None) -> str:
    """The name of the column that is asked for, or else of the only one that can be meant.

    That is, of the first of these kinds that there is: a column that the file itself marks as
    pictures; one of bytes with a usual name; one of {bytes, path}; one of text with a usual name;
    one of text with a usual name of paths. Of several of one kind it is the one named `image`.
    NoPictures where there is none, or where it is not clear which.
    """
    if asked is not None:
        return _asked(columns, wanted, asked)
    kinds: tuple[Callable[[Column], bool], ...] = (
        lambda column: column.feature == wanted.feature,
        lambda column: column.holds in (PICTURE, BYTES) and column.name.lower() in wanted.names,
        lambda column: column.holds == PICTURE,
        lambda column: column.holds in (TEXT, UNKNOWN) and column.name.lower() in wanted.names,
        lambda column: column.holds == TEXT and column.name.lower() in wanted.path_names,
    )
    for is_kind in kinds:
        found = [column.name for column in columns if column.holds != OTHER and is_kind(column)]
        if wanted.names[0] in found or len(found) == 1:
            return wanted.names[0] if wanted.names[0] in found else found[0]
        if found:
            raise NoPictures(
                f"it has several columns of {wanted.what}, {' and '.join(found)}: say which with"
                " --image-field"
            )
    raise NoPictures(
        f"it has no column of {wanted.what} under a usual name; its columns are {_names(columns)}."
        " --image-field names the one to take"
    )


def others_like(columns: Sequence[Column], wanted: Wanted, chosen: str) -> list[str]:
    """The other columns that could have been meant."""
    return [
        column.name
        for column in columns
        if column.name != chosen and (column.feature == wanted.feature or column.holds == PICTURE)
    ]


def _asked(columns: Sequence[Column], wanted: Wanted, asked: str) -> str:
    # A name in another case will do where there is no other.
    found = next((column for column in columns if column.name == asked), None)
    alike = [column for column in columns if column.name.lower() == asked.lower()]
    if found is None and len(alike) == 1:
        found = alike[0]
    if found is None:
        raise NoPictures(f"it has no column {asked!r}; its columns are {_names(columns)}")
    if found.holds == OTHER:
        raise NoPictures(
            f"its column {found.name!r} holds no {wanted.what}: these are bytes, paths or {PICTURE}"
        )
    return found.name


def _names(columns: Sequence[Column]) -> str:
    names = ", ".join(column.name for column in columns[:SHOWN])
    more = f" and {len(columns) - SHOWN:,} more" if len(columns) > SHOWN else ""
    return names + more if names else "none"
