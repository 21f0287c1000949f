"""Locates the bytes of each file in a tar without reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from latentcli.shards.tar import header as tar_header
from latentcli.shards.tar.header import BLOCK, BadHeader, Header, amended, extended, parse, refusal
from latentcli.shards.tar.write import END

_MOST_EXTENDED = 2**20
_MOST_PADDING = 20 * BLOCK
"""Zeros behind the end mark: `tar` fills its last record up to this size."""


@dataclass(frozen=True, slots=True)
class Span:
    """A file in a tar."""

    name: str
    begin: int
    """First byte, from the start of the tar."""
    end: int


def scan_tar(read: Callable[[int, int], bytes], size: int) -> Iterator[Span]:
    """The files of a tar of `size` bytes, of which `read` gives begin to end.

    ValueError where it is cut, has a damaged header or no end mark, or holds something else than
    files and folders. So an end is always the end.
    """
    at, values = 0, dict[str, str]()
    while (block := read(at, min(at + BLOCK, size))) != END[:BLOCK]:
        begin, header = at + BLOCK, _header(block, at)
        if header.kind not in tar_header.EXTENSIONS:
            header, values = amended(header, values), {}
        at = begin + header.size + -header.size % BLOCK
        if at > size:
            raise ValueError(f"it is truncated: {header.name!r} goes on to byte {at}")
        if header.kind in tar_header.EXTENSIONS:
            values |= _extended(header, read, begin)
        elif not header.is_skipped:
            if problem := refusal(header, size):
                raise ValueError(f"{header.name!r} {problem}")
            yield Span(header.name, begin, begin + header.size)
    rest = read(at, min(at + _MOST_PADDING, size))
    if len(rest) < len(END) or values:
        raise ValueError("it is truncated: its end mark is cut")
    if any(rest) or at + len(rest) != size:
        raise ValueError("something follows its end mark")


def _header(block: bytes, at: int) -> Header:
    if len(block) < BLOCK:
        raise ValueError("it is truncated: it has no end mark")
    try:
        return parse(block)
    except BadHeader as error:
        raise ValueError(f"at byte {at}, {error}") from error


def _extended(header: Header, read: Callable[[int, int], bytes], begin: int) -> dict[str, str]:
    if header.size > _MOST_EXTENDED or header.kind == tar_header.GLOBAL_PAX:
        raise ValueError(f"it has an extended header of {header.size} bytes that it cannot have")
    try:
        return extended(header.kind, read(begin, begin + header.size))
    except BadHeader as error:
        raise ValueError(f"at byte {begin}, {error}") from error
