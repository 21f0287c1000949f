"""Reads the header of a JPEG XL codestream: its size, and whether it moves (ISO/IEC 18181-1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from latentcli.images.files.boxes import boxes

_CODESTREAM = b"\xff\x0a"
_HEADER_BYTES = 128

_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIZE = ((9, 1), (13, 1), (18, 1), (30, 1))
_PREVIEW = ((6, 1), (8, 65), (10, 321), (12, 1345))
_PREVIEW_OF_8 = ((0, 16), (0, 32), (5, 1), (9, 33))
"""(bits, what is added) of each of four forms of a number."""


@dataclass(frozen=True, slots=True)
class JxlHeader:
    """What is known of a file before it is decoded."""

    size: tuple[int, int]
    """(W, H) as stored, so before orientation."""
    is_animated: bool


class _Bits:
    """A file's bits, each byte from the lowest up."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("premature end of the header")
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        self._left -= count
        return value

    def number(self, forms: tuple[tuple[int, int], ...]) -> int:
        bits, added = forms[self.take(2)]
        return self.take(bits) + added


def read_header(data: bytes) -> JxlHeader:
    """The header of a file, with boxes or without; ValueError where it is none."""
    bits = _Bits(_start_of_codestream(data))
    size = _size(bits)
    is_animated = False
    if not bits.take(1) and bits.take(1):  # not all as usual, and with the fields that are rare
        bits.take(3)  # orientation
        if bits.take(1):
            _size(bits)  # of the picture on a screen
        if bits.take(1):
            _preview_size(bits)
        is_animated = bool(bits.take(1))
    return JxlHeader(size, is_animated)


def _start_of_codestream(data: bytes) -> bytes:
    start = data[:_HEADER_BYTES]
    if not start.startswith(_CODESTREAM):
        start = b""
        for box in boxes(data):
            # The codestream may lie in parts, each with its number before it.
            skip = {b"jxlc": 0, b"jxlp": 4}.get(box.kind)
            if skip is not None:
                start = bytes(box.body[skip : skip + _HEADER_BYTES])
                break
    if not start.startswith(_CODESTREAM):
        raise ValueError("there is no codestream")
    return start[len(_CODESTREAM) :]


def _size(bits: _Bits) -> tuple[int, int]:
    if bits.take(1):
        return _sides(bits, lambda: 8 * (bits.take(5) + 1))
    return _sides(bits, lambda: bits.number(_SIZE))


def _preview_size(bits: _Bits) -> tuple[int, int]:
    if bits.take(1):
        return _sides(bits, lambda: 8 * bits.number(_PREVIEW_OF_8))
    return _sides(bits, lambda: bits.number(_PREVIEW))


def _sides(bits: _Bits, side: Callable[[], int]) -> tuple[int, int]:
    """(W, H): the height, then the width, or its ratio to the height."""
    height = side()
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    over, under = _RATIOS[ratio - 1]
    return height * over // under, height
