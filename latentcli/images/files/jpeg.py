"""Reads JPEG files, and finds those whose data end early or are damaged inside.

Pillow reads the header and drops what libjpeg says of the data, so a picture of which half is
missing looks whole to it where an end marker follows. The pixels come from simplejpeg: the same
library and the same values in the same time, with libjpeg's warnings.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from latentcli.images.colour_space import ADOBE_RGB
from latentcli.images.files.jpeg_scans import find_gaps, without_profile
from latentcli.images.files.stored import (
    Loaded,
    Stored,
    is_adobe_rgb,
    note_frames,
    open_with_pillow,
    turn_of,
)

_END = b"\xff\xd9"
_TAIL = 4096
"""Bytes at the end in which an end marker is looked for; some programs write something behind."""
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_CHANNELS = {"GRAY": 1, "RGB": 3, "CMYK": 4}
# What libjpeg says where pixels are lost. Its other warnings also come with whole pictures.
_LOST = ("premature end", "bad huffman", "bad arithmetic", "instead of rst")


def read_jpeg(data: bytes) -> Stored:
    """A JPEG file; a stereo or burst file (MPO) gives its first picture."""
    opened = open_with_pillow(data, "JPEG")

    def load(notes: list[str]) -> Loaded:
        note_frames(opened, notes)
        profile = opened.info.get("icc_profile")
        sound = data
        if profile is None and "icc_profile" in opened.info:
            notes.append("colour profile ignored: it is broken")
            sound = without_profile(data)
        values = _decode(sound, opened.size, _SPACES[opened.mode], notes)
        if opened.mode == "CMYK":
            values = 255 - values  # Adobe stores inks inverted, and all others follow
        image = Image.fromarray(values[..., 0] if opened.mode == "L" else values, opened.mode)
        is_adobe = profile is None and image.mode == "RGB" and is_adobe_rgb(opened)
        return Loaded(image, ADOBE_RGB if is_adobe else profile, turn_of(opened))

    return Stored("JPEG", opened.size, load)


def _decode(
    data: bytes, size: tuple[int, int], space: str, notes: list[str]
) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, C]; ValueError where pixels are lost."""
    gaps = find_gaps(data)
    if gaps.parts or (gaps.detail and _END not in data[-_TAIL:]):
        raise ValueError("premature end of JPEG data: scans are missing")
    if gaps.detail:
        notes.append("JPEG data may be damaged: the last bits of some values are missing")
    # Many whole files lack their end marker, which is no loss.
    whole = data if data.endswith(_END) else data + _END
    try:
        return np.asarray(simplejpeg.decode_jpeg(whole, space))
    except ValueError as error:
        if any(word in str(error).lower() for word in _LOST):
            raise
        values = _written(whole, size, space)
        if values is None:
            raise
        notes.append(f"JPEG data may be damaged: {error}")
        return values


def _written(data: bytes, size: tuple[int, int], space: str) -> npt.NDArray[np.uint8] | None:
    """The pixels in spite of a warning; None where libjpeg did not write all of them.

    Behind a warning, the binding takes an error for another one. It ends the decoding, and pixels
    that were not written are what the memory held before. So it is done over two grounds.
    """
    width, height = size
    length = width * height * _CHANNELS[space]
    black, white = (
        np.asarray(
            simplejpeg.decode_jpeg(
                data, space, strict=False, buffer=np.full(length, ground, np.uint8)
            )
        )
        for ground in (0, 255)
    )
    return black if np.array_equal(black, white) else None
