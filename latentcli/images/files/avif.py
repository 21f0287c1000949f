"""Reads AVIF files, with the colours that their boxes tell by numbers where no profile does.

A file that tells no colours is sRGB, as MIAF says (ISO/IEC 23000-22, 7.3.6.4).
"""

from __future__ import annotations

from collections.abc import Iterator

from latentcli.images.colour_space import Colours, from_cicp
from latentcli.images.files.boxes import Box, boxes, inside
from latentcli.images.files.stored import (
    Loaded,
    Stored,
    note_frames,
    open_with_pillow,
    pixels_of,
    turn_of,
)

_SAMPLE_ENTRY = 78
"""Bytes of a visual sample entry before its boxes."""


def read_avif(data: bytes) -> Stored:
    """An AVIF picture, or the first frame of a sequence."""
    opened = open_with_pillow(data, "AVIF")

    def load(notes: list[str]) -> Loaded:
        colours: Colours = opened.info.get("icc_profile")
        if not colours and (codes := nclx_of(data)):
            colours = from_cicp(*codes)
        note_frames(opened, notes)
        opened.load()
        return Loaded(pixels_of(opened), colours, turn_of(opened))

    return Stored("AVIF", opened.size, load)


def nclx_of(data: bytes) -> tuple[int, int] | None:
    """Codes of primaries and transfer of the picture that is shown; None where none are told."""
    # libavif, too, decodes the track where the first brand is that of sequences.
    stated = _of_track(data) if data[8:12] == b"avis" else _of_item(data)
    for box in stated:
        if box.kind == b"colr" and bytes(box.body[:4]) == b"nclx":
            primaries, transfer = (int.from_bytes(box.body[at : at + 2], "big") for at in (4, 6))
            return primaries, transfer
    return None


def _of_track(data: bytes) -> Iterator[Box]:
    """The boxes of the sample entries of all tracks, of which alpha's tells no colours."""
    for track in boxes(inside(data, b"moov")):
        entries = inside(track.body, b"mdia", b"minf", b"stbl", b"stsd")
        for entry in boxes(entries, skip=8):
            yield from boxes(entry.body, skip=_SAMPLE_ENTRY)


def _of_item(data: bytes) -> Iterator[Box]:
    """The properties of the primary item; then, for a grid, those of its tiles."""
    meta = inside(data, b"meta")
    primary = int.from_bytes(inside(meta, b"pitm", skip=4)[4:], "big")
    properties = inside(meta, b"iprp", skip=4)
    shared = list(boxes(inside(properties, b"ipco")))
    for item in (primary, *_tiles(inside(meta, b"iref", skip=4), primary)):
        for box in boxes(properties):
            if box.kind == b"ipma":
                yield from (shared[i - 1] for i in _associated(box.body, item) if i <= len(shared))


def _tiles(references: memoryview, grid: int) -> Iterator[int]:
    """The items that a derived picture is made of."""
    wide = 4 if bytes(references[:1]) == b"\x01" else 2
    for box in boxes(references, skip=4):
        if box.kind == b"dimg" and int.from_bytes(box.body[:wide], "big") == grid:
            for at in range(wide + 2, len(box.body) - wide + 1, wide):
                yield int.from_bytes(box.body[at : at + wide], "big")


def _associated(ipma: memoryview, item: int) -> Iterator[int]:
    """Places of an item's properties in the shared list, from 1 on."""
    id_size = 4 if bytes(ipma[:1]) > b"\x00" else 2
    size = 2 if ipma[3:4] and ipma[3] & 1 else 1
    at = 8
    while at + id_size < len(ipma):
        owner, count = int.from_bytes(ipma[at : at + id_size], "big"), ipma[at + id_size]
        at += id_size + 1
        if owner == item:
            for place in range(at, at + count * size, size):
                index = int.from_bytes(ipma[place : place + size], "big") & (
                    0x7FFF if size == 2 else 0x7F
                )
                if index:
                    yield index
        at += count * size
