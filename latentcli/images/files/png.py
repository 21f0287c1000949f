"""Reads PNG files, with their colours as the third edition of the PNG specification ranks them.

cICP comes first, then iCCP, then sRGB, then gAMA and cHRM; a file that has none of them is sRGB.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from latentcli.images.colour_space import SRGB, Colours, ColourSpace, from_chromaticities, from_cicp
from latentcli.images.files.png_chunks import read_chunks, unpack
from latentcli.images.files.stored import (
    Loaded,
    Stored,
    note_frames,
    open_with_pillow,
    pixels_of,
    turn_of,
)
from latentcli.images.files.two_bytes import two_bytes
from latentcli.images.wide import Wide

_MOST_PROFILE = 16 * 2**20
"""Bytes of a colour profile at most; those of printers have a few million."""

_SRGB_GAMMA, _TOLERANCE = 1 / 2.2, 0.05
"""The gamma that stands for sRGB's curve, and how far from it libpng still takes it so."""


def read_png(data: bytes) -> Stored:
    """A PNG file, or the default picture of a moving one."""
    chunks = read_chunks(data)
    opened = open_with_pillow(chunks.plain, "PNG")

    def load(notes: list[str]) -> Loaded:
        colours = _colours(chunks.colour, notes)
        note_frames(opened, notes)
        values = two_bytes(opened, lambda: open_with_pillow(chunks.plain, "PNG"))
        opened.load()
        if values is not None:
            wide = Wide(values, transparent=opened.info.get("transparency"))
            return Loaded(wide, colours, turn_of(opened))
        return Loaded(pixels_of(opened), colours, turn_of(opened))

    return Stored("PNG", opened.size, load)


def _colours(chunks: Mapping[bytes, bytes], notes: list[str]) -> Colours:
    cicp = chunks.get(b"cICP", b"")
    if len(cicp) == 4 and cicp[2] == 0 and cicp[3] < 2:
        return from_cicp(cicp[0], cicp[1], full_range=cicp[3] == 1)
    if b"cICP" in chunks:
        notes.append("cICP ignored: it is broken")
    if b"iCCP" in chunks:
        profile = unpack(chunks[b"iCCP"].partition(b"\x00")[2][1:], _MOST_PROFILE)
        if profile is not None:
            return profile
        notes.append("colour profile ignored: it is broken or larger than 16 MiB")
    if b"sRGB" not in chunks and (b"gAMA" in chunks or b"cHRM" in chunks):
        return _calibrated(chunks, notes)
    return None


def _calibrated(chunks: Mapping[bytes, bytes], notes: list[str]) -> ColourSpace | None:
    """By gAMA and cHRM; what one of them does not say is as in sRGB."""
    curve = _curve(chunks[b"gAMA"], notes) if b"gAMA" in chunks else "sRGB"
    space = from_chromaticities(SRGB.primaries, curve)
    if b"cHRM" in chunks:
        chrm = chunks[b"cHRM"]
        corners = struct.unpack(">8I", chrm) if len(chrm) == 32 else (0,) * 8
        stated = from_chromaticities(tuple(v / 100_000 for v in corners), curve)
        if stated is None:
            notes.append("cHRM ignored: it spans no colours")
        space = stated or space
    return space


def _curve(gama: bytes, notes: list[str]) -> str | float:
    gamma = int.from_bytes(gama[:4], "big") / 100_000
    if not 0.1 <= gamma <= 10:
        notes.append(f"gAMA ignored: {gamma:g} is not a valid gamma")
        return "sRGB"
    if abs(gamma / _SRGB_GAMMA - 1) <= _TOLERANCE:
        return "sRGB"
    return "linear light" if abs(gamma - 1) < 1e-3 else 1 / gamma
