"""Reads JPEG 2000 files, with the colours that their header boxes tell.

A bare codestream tells no colours and is taken as sRGB.
"""

from __future__ import annotations

from latentcli.core.errors import SampleError
from latentcli.images.colour_space import PROPHOTO, Colours, from_cicp
from latentcli.images.files.boxes import boxes, inside
from latentcli.images.files.stored import Loaded, Stored, open_with_pillow, pixels_of

_ENUMERATED, _RESTRICTED_ICC, _ANY_ICC, _CICP = 1, 2, 3, 5

# sYCC and CMYK are undone by the decoder.
_SPACES: dict[int, Colours] = {12: None, 16: None, 17: None, 18: None, 21: PROPHOTO}
_NAMES = {
    0: "bi-level",
    1: "YCbCr(1)",
    3: "YCbCr(2)",
    4: "YCbCr(3)",
    9: "PhotoYCC",
    11: "CMY",
    13: "YCCK",
    14: "CIELab",
    15: "bi-level(2)",
    19: "CIEJab",
    20: "e-sRGB",
    22: "YPbPr(1125/60)",
    23: "YPbPr(1250/50)",
    24: "e-sYCC",
    25: "scRGB",
}


def read_jp2(data: bytes) -> Stored:
    """A JPEG 2000 file: JP2, JPX, or a codestream."""
    opened = open_with_pillow(data, "JPEG2000")

    def load(notes: list[str]) -> Loaded:
        colours = None if data.startswith(b"\xff\x4f") else _colours(data)
        opened.load()
        return Loaded(pixels_of(opened), colours)

    return Stored("JPEG 2000", opened.size, load)


def _colours(data: bytes) -> Colours:
    """By the first colour box whose method is known; JPX files may have several."""
    headers = (inside(data, b"jp2h"), inside(data, b"jplh", b"cgrp"))
    stated = [bytes(box.body) for header in headers for box in boxes(header) if box.kind == b"colr"]
    for body in stated:
        method = body[0] if body else None
        if method == _ENUMERATED and len(body) >= 7:
            return _enumerated(int.from_bytes(body[3:7], "big"))
        if method in (_RESTRICTED_ICC, _ANY_ICC):
            return body[3:]
        if method == _CICP and len(body) >= 10:
            primaries, transfer = (int.from_bytes(body[at : at + 2], "big") for at in (3, 5))
            return from_cicp(primaries, transfer)
    methods = ", ".join(str(body[0]) for body in stated if body)
    what = f"colours by a method that is not supported ({methods})" if methods else "no colours"
    raise SampleError("decode_image", f"JPEG 2000 file states {what}; convert it to sRGB")


def _enumerated(code: int) -> Colours:
    if code not in _SPACES:
        raise SampleError(
            "decode_image",
            f"JPEG 2000 file has the colours {_NAMES.get(code, f'of code {code}')}, which are not"
            " supported; convert it to sRGB",
        )
    return _SPACES[code]
