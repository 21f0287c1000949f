"""Makes tars, good and bad, for tests, and streams that give them in odd ways."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping

BLOCK = 512
END = bytes(2 * BLOCK)
PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp"))
FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}

Files = Iterable[tuple[str, bytes]]


def tar(files: Files, form: str = "ustar", end: bytes = END) -> bytes:
    """A tar of regular files as Python's own writer makes it, with as little padding as can be."""
    return b"".join(python_member(name, data, form) for name, data in files) + end


def python_member(name: str, data: bytes, form: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(FORMATS[form], "utf-8", "surrogateescape") + padded(data)


def member(
    name: str | bytes,
    data: bytes = b"",
    kind: bytes = b"0",
    size: int | bytes | None = None,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """A header made by hand with whatever it is told to say, and its data."""
    name = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    number = len(data) if size is None else size
    field = number.ljust(12, b"\0") if isinstance(number, bytes) else b"%011o\0" % number
    head = name.ljust(100, b"\0") + 3 * b"0000644\0" + field + b"%011o\0" % 0
    tail = kind + link.ljust(100, b"\0") + magic.ljust(8, b"\0") + bytes(80)
    tail += prefix.ljust(155, b"\0")
    total = sum(head) + sum(tail) + 8 * 0x20
    return (head + b"%06o\0 " % total + tail).ljust(BLOCK, b"\0") + padded(data)


def base_256(value: int) -> bytes:
    """A size field of twelve bytes as GNU tar writes large and negative numbers."""
    return (value if value < 0 else value | 1 << 95).to_bytes(12, "big", signed=value < 0)


def pax(records: Mapping[str, str | bytes], kind: bytes = b"x") -> bytes:
    """An extended header for the member that follows, or for all (kind g)."""
    body = b"".join(pax_record(key, value) for key, value in records.items())
    return member("./PaxHeaders/x", body, kind)


def pax_record(key: str, value: str | bytes) -> bytes:
    value = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    rest = b" " + key.encode() + b"=" + value + b"\n"
    size = len(rest)
    while size != len(rest) + len(str(size)):
        size = len(rest) + len(str(size))
    return str(size).encode() + rest


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pairs(count: int, seed: int = 0, largest: int = 700) -> list[tuple[str, bytes]]:
    """Members of ordinary samples, a picture and a caption each."""
    chance = random.Random(seed)
    return [
        (f"{at:04d}.{field}", chance.randbytes(chance.randrange(largest)))
        for at in range(count)
        for field in ("jpg", "txt")
    ]


class Drip:
    """A stream that gives at most so many bytes at a time."""

    def __init__(self, data: bytes, most: int = 1) -> None:
        self._inner = io.BytesIO(data)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._inner.read(min(size, self._most))


class Failing:
    """A stream that fails behind its bytes, and again at every later read."""

    def __init__(self, data: bytes, error: BaseException | None = None) -> None:
        self._inner = io.BytesIO(data)
        self._error = error or OSError("the disk is gone")

    def read(self, size: int, /) -> bytes:
        data = self._inner.read(size)
        if size and not data:
            raise self._error
        return data


class Endless:
    """A stream of a start and then so many zeros, that are never held together."""

    def __init__(self, start: bytes, zeros: int, end: bytes = b"") -> None:
        self._start, self._zeros, self._end = io.BytesIO(start), zeros, io.BytesIO(end)

    def read(self, size: int, /) -> bytes:
        data = self._start.read(size)
        if data:
            return data
        some = min(size, self._zeros)
        self._zeros -= some
        return bytes(some) or self._end.read(size)


Mutation = Callable[[random.Random, bytes], bytes]


def flip(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def drop(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randrange(1, 2000) :]


def drop_block(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(0, len(data), BLOCK)
    return data[:at] + data[at + BLOCK :]


def repeat_block(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(0, len(data), BLOCK)
    return data[: at + BLOCK] + data[at:]


def swap_blocks(chance: random.Random, data: bytes) -> bytes:
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    one, other = chance.randrange(len(blocks)), chance.randrange(len(blocks))
    blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


def noise(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.randrange(1, 2000)) + data[at:]


MUTATIONS: tuple[Mutation, ...] = (
    *(flip, cut, drop, drop_block),
    *(repeat_block, swap_blocks, noise),
)


def mutated(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Tars with one to three kinds of damage each."""
    chance = random.Random(seed)
    for _ in range(count):
        bad = data
        for mutation in chance.choices(MUTATIONS, k=chance.randrange(1, 4)):
            bad = mutation(chance, bad) or data[:100]
        yield bad
