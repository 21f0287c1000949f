"""Reads BMP files, with the colour profile that the fifth version of their header may hold."""

from __future__ import annotations

from latentcli.images.colour_space import Colours
from latentcli.images.files.stored import Loaded, Stored, open_with_pillow, pixels_of

_HEADER = 14
"""Where the second header begins; offsets in it count from here."""
_SPACE, _CORNERS, _PROFILE = 56, slice(60, 96), 112
_CALIBRATED, _EMBEDDED, _LINKED = b"\x00\x00\x00\x00", b"DEBM", b"KNIL"


def read_bmp(data: bytes) -> Stored:
    """A BMP file."""
    opened = open_with_pillow(data, "BMP")

    def load(notes: list[str]) -> Loaded:
        colours = _colours(data[_HEADER:], notes)
        opened.load()
        return Loaded(pixels_of(opened), colours)

    return Stored("BMP", opened.size, load)


def _colours(header: bytes, notes: list[str]) -> Colours:
    size = int.from_bytes(header[:4], "little")
    space = header[_SPACE : _SPACE + 4] if size >= 108 else b""
    if space == _EMBEDDED and size >= 124:
        start, length = (
            int.from_bytes(header[at : at + 4], "little") for at in (_PROFILE, _PROFILE + 4)
        )
        return header[start : start + length] or None
    if space == _LINKED:
        notes.append("colour profile ignored: it is in another file")
    if space == _CALIBRATED and any(header[_CORNERS]):
        # Programs disagree on what the numbers of this header are.
        notes.append("primaries of the BMP header ignored")
    return None
