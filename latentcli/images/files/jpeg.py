"""Reads JPEG files, and finds those whose data end early or are damaged inside.

Pillow reads the header and drops what libjpeg says of the data, so a picture of which half is
missing looks whole to it where an end marker follows. The pixels come from simplejpeg: the same
library and the same values in the same time, with libjpeg's warnings.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from latentcli.images.colour_space import ADOBE_RGB, changes_nothing
from latentcli.images.files.jpeg_scans import find_gaps, frame_of, without_profile
from latentcli.images.files.stored import (
    SIDEWAYS,
    Loaded,
    Stored,
    is_adobe_rgb,
    note_frames,
    open_with_pillow,
    turn_of,
)
from latentcli.images.icc_matrix import space_of_profile
from latentcli.images.reduction import Reduction, reduced_size
from latentcli.images.rgb import Rgb, Values, size_of

JPEG_END = b"\xff\xd9"
_TAIL = 4096
"""Bytes at the end in which an end marker is looked for; some programs write something behind."""
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_CHANNELS = {"GRAY": 1, "RGB": 3, "CMYK": 4}
_EVEN = {(1, 1), (2, 2)}
"""Samplings across and down, of luma and chroma, of which a reduction keeps what it can."""
_HUFFMAN = (0xC0, 0xC1, 0xC2)
"""Frames of Huffman codes: baseline, extended and progressive."""
# What libjpeg says where pixels are lost. Its other warnings also come with whole pictures.
_LOST = ("premature end", "bad huffman", "bad arithmetic", "instead of rst")


def read_jpeg(data: bytes) -> Stored:
    """A JPEG file; a stereo or burst file (MPO) gives its first picture."""
    opened = open_with_pillow(data, "JPEG")

    def load(notes: list[str]) -> Loaded:
        return load_reduced(notes, lambda size: 1)

    def load_reduced(notes: list[str], reduction: Reduction) -> Loaded:
        note_frames(opened, notes)
        profile = opened.info.get("icc_profile")
        sound = data
        if profile is None and "icc_profile" in opened.info:
            notes.append("colour profile ignored: it is broken")
            sound = without_profile(data)
        turn = turn_of(opened)
        values = _decode(sound, opened, _factor(opened, turn, reduction), notes)
        is_adobe = profile is None and opened.mode == "RGB" and is_adobe_rgb(opened)
        colours = ADOBE_RGB if is_adobe else profile
        whole = None if size_of(values) == opened.size else opened.size
        return Loaded(_picture(values, opened.mode), colours, turn, whole)

    return Stored("JPEG", opened.size, load, load_reduced, lambda: _is_plain(data, opened))


def _picture(values: Values, mode: str) -> Rgb:
    """What simplejpeg gives of a mode, as the other formats give it."""
    if mode == "CMYK":
        return Image.fromarray(255 - values, mode)  # Adobe inverts inks, and all others follow
    return Image.fromarray(values[..., 0], mode) if mode == "L" else values


def _is_plain(data: bytes, opened: ImageFile.ImageFile) -> bool:
    """Whether it is upright 8-bit grey or YCbCr in sRGB, by Huffman codes, as nearly all files are.

    Colours are of luma's size or half of it both ways, and their names leave no doubt what they
    are, since decoders differ where these do.
    """
    layers, profile = getattr(opened, "layer", ()), opened.info.get("icc_profile")
    names = tuple(name for name, *_ in layers)
    return (
        opened.mode in ("L", "RGB")
        and {(across, down) for _, across, down, _ in layers} <= _EVEN
        and (opened.mode == "L" or "jfif" in opened.info or names == (1, 2, 3))
        and opened.info.get("adobe_transform", 1) == 1
        and frame_of(data) in _HUFFMAN
        and ("icc_profile" not in opened.info or (profile is not None and _is_srgb(profile)))
        and not getattr(opened, "is_animated", False)
        and turn_of(opened) == 1
        and not is_adobe_rgb(opened)
    )


@lru_cache(maxsize=16)
def _is_srgb(profile: bytes) -> bool:
    space = space_of_profile(profile)
    return space is not None and changes_nothing(space)


def _factor(opened: ImageFile.ImageFile, turn: int, reduction: Reduction) -> int:
    """By what the picture is divided while it is decoded.

    1 where colours are halved along one side only: the decoder then halves them once more.
    """
    samplings = {(across, down) for _, across, down, _ in getattr(opened, "layer", ())}
    if opened.mode not in ("L", "RGB") or not samplings <= _EVEN:
        return 1
    width, height = opened.size
    factor = reduction((height, width) if turn in SIDEWAYS else (width, height))
    # A last pixel that lies partly outside must not become a first one.
    while turn != 1 and (width % factor or height % factor):
        factor //= 2
    return factor


def _decode(data: bytes, opened: ImageFile.ImageFile, factor: int, notes: list[str]) -> Values:
    """uint8 [H, W, C], divided by the factor if all is well; ValueError where pixels are lost."""
    gaps = find_gaps(data)
    if gaps.parts or (gaps.detail and JPEG_END not in data[-_TAIL:]):
        raise ValueError("premature end of JPEG data: scans are missing")
    if gaps.detail:
        notes.append("JPEG data may be damaged: the last bits of some values are missing")
    # Many whole files lack their end marker, which is no loss.
    whole = data if data.endswith(JPEG_END) else data + JPEG_END
    space = _SPACES[opened.mode]
    if factor > 1 and not gaps.detail:
        reduced = _reduced(whole, reduced_size(opened.size, factor), space, factor)
        if reduced is not None:
            return reduced
    try:
        return np.asarray(simplejpeg.decode_jpeg(whole, space))
    except ValueError as error:
        if any(word in str(error).lower() for word in _LOST):
            raise
        values = _written(whole, opened.size, space)
        if values is None:
            raise
        notes.append(f"JPEG data may be damaged: {error}")
        return values


def _reduced(data: bytes, size: tuple[int, int], space: str, factor: int) -> Values | None:
    """uint8 [H, W, C] of `size`; None where anything is wrong, for the whole picture to tell."""
    width, height = size
    try:
        values = simplejpeg.decode_jpeg(
            data, space, min_height=height, min_width=width, min_factor=factor
        )
    except ValueError:
        return None
    return np.asarray(values) if values.shape[:2] == (height, width) else None


def _written(data: bytes, size: tuple[int, int], space: str) -> Values | None:
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
