"""Reads the members of a tar in one pass, as from a pipe, each sound or refused.

Nothing is raised for what is in a tar, nothing is sought, and no more than one member is held.
Python's `tarfile` is not used: it takes a tar that was cut for one that has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from latentcli.core.first_bytes import described, is_text, looks_like
from latentcli.shards.tar import header as tar_header
from latentcli.shards.tar.header import BLOCK, BadHeader, Header, NoHeader

_ZEROS = bytes(BLOCK)
_CHUNK = 64 << 10
_LARGEST_READ = 8 << 20

_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")
_MAGIC = slice(257, 262)
_NAME_AND_MODE = 108
"""Bytes at the start of a header that hold a zero: nothing but text there is no header."""


class ByteStream(Protocol):
    """Anything that gives bytes like a pipe."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, perhaps fewer; none at the end. OSError where it fails."""
        ...


@dataclass(frozen=True, slots=True)
class TarLimits:
    """How much of one tar is held at most, in bytes."""

    member_bytes: int = 1 << 30
    """One member; a larger one is refused and skipped."""
    sample_bytes: int = 2 << 30
    """All members of one sample with their headers; a larger sample is refused."""
    header_bytes: int = 1 << 20
    """One extended header (a long name, pax records); at a larger one the tar is given up."""


DEFAULT_LIMITS = TarLimits()


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One thing that was met in a tar."""

    name: str
    """Relative, without `.` parts; bytes that are no UTF-8 are surrogate escapes. That of a
    refused member may be as it is in the tar. Empty where no member was met."""
    data: bytes
    problem: str | None = None
    """Why a member is refused or the tar is given up, in plain words; then there is no data."""
    kind: str = "member"
    """member; end, at an end mark; or broken, which is the last entry of its tar."""


def read_members(stream: ByteStream, limits: TarLimits = DEFAULT_LIMITS) -> Iterator[TarEntry]:
    """Every file of the tar in its order; folders and volume labels are left out.

    A member that must not be used (a link, a device, a name that leaves its folder, too large,
    sparse) has a problem, and reading goes on behind it. Damage, a cut, a read that fails and an
    end without end mark give one last entry of kind `broken`, named after the member that was
    being read. Each end mark gives an entry of kind `end`: another tar may follow (`cat a b`),
    and so may zeros. Anything else after an end mark makes the tar `broken` there: it may have
    been a tar, and nothing is dropped unsaid.
    """
    try:
        yield from _entries(_Bytes(stream), limits)
    except _Broken as broken:
        yield TarEntry(broken.name, b"", str(broken), "broken")


class _Broken(Exception):
    """The tar cannot be read on."""

    def __init__(self, sentence: str, name: str = "") -> None:
        super().__init__(sentence)
        self.name = name


class _Bytes:
    """Exact reads from a stream that gives what it likes."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._held = b""
        self._at = 0
        self._error: str | None = None
        self.position = 0
        """Bytes taken so far."""

    def take(self, size: int) -> bytes:
        """The next `size` bytes; fewer only where the stream ends or fails."""
        end = self._at + size
        if end <= len(self._held):
            piece = self._held[self._at : end]
            self._at = end
        else:
            piece = self._gather(size)
        self.position += len(piece)
        return piece

    def skip(self, size: int) -> bool:
        """Pass over `size` bytes, holding few; False where the stream ends or fails first."""
        while size > 0:
            passed = len(self.take(min(size, _LARGEST_READ)))
            if not passed:
                return False
            size -= passed
        return True

    @property
    def failed(self) -> bool:
        """Whether the stream failed, and did not merely end."""
        return self._error is not None

    def broken(self, where: str, name: str = "") -> _Broken:
        """What to raise after a read that gave too little."""
        at = f"at byte {self.position:,}, {where}"
        if self._error is None:
            return _Broken(f"the tar is cut short {at}", name)
        return _Broken(f"reading the tar failed {at}: {self._error}", name)

    def _gather(self, size: int) -> bytes:
        pieces = [self._held[self._at :]]
        missing = size - len(pieces[0])
        self._held, self._at = b"", 0
        while missing > 0 and (piece := self._read(missing)):
            if len(piece) > missing:
                self._held, self._at = piece, missing
                piece = piece[:missing]
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _read(self, missing: int) -> bytes:
        if self._error is not None:
            return b""
        try:
            # A claimed size must not become memory before the bytes are there.
            return self._stream.read(min(max(missing, _CHUNK), _LARGEST_READ))
        except (OSError, EOFError) as error:
            self._error = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return b""


def _entries(source: _Bytes, limits: TarLimits) -> Iterator[TarEntry]:
    shared: dict[str, str] = {}
    own: dict[str, str] = {}
    ended = False
    while True:
        block = source.take(BLOCK)
        if ended and not block.strip(b"\0"):
            if source.failed:
                raise source.broken("after an end mark")
            if not block:
                return
            continue
        if block == _ZEROS:
            _check_end_mark(source, pending=bool(own))
            yield TarEntry("", b"", kind="end")
            ended, shared = True, {}
            continue
        header = _header(source, block, ended)
        ended = False
        if header.kind in tar_header.EXTENSIONS:
            values = _extended(source, header, limits)
            (shared if header.kind == tar_header.GLOBAL_PAX else own).update(values)
            continue
        if shared or own:
            header = tar_header.amended(header, {**shared, **own})
            own = {}
        if header.is_skipped:
            _skip(source, header)
        else:
            yield _member(source, header, limits)


def _check_end_mark(source: _Bytes, pending: bool) -> None:
    at = source.position - BLOCK
    second = source.take(BLOCK)
    if len(second) < BLOCK and not second.strip(b"\0"):
        raise source.broken("inside its end mark")
    if second != _ZEROS or pending:
        raise _Broken(f"the tar is damaged at byte {at:,}: zeros are where a header should be")


def _header(source: _Bytes, block: bytes, ended: bool) -> Header:
    at = source.position - len(block)
    if len(block) < BLOCK and source.failed:
        raise source.broken("where a header should be")
    if len(block) < BLOCK and not ended:
        raise _no_block(source, block)
    try:
        return tar_header.parse(block)
    except BadHeader as error:
        if ended:
            what = f"the tar has data after its end mark, at byte {at:,}, that is not a tar"
        elif at == 0 and isinstance(error, NoHeader) and block[_MAGIC] != b"ustar":
            what = _no_tar(block)
        else:
            what = f"the tar is damaged at byte {at:,}: {error}"
        raise _Broken(what) from None


def _no_block(source: _Bytes, block: bytes) -> _Broken:
    whole_text = len(block) >= _NAME_AND_MODE and is_text(block[:_NAME_AND_MODE])
    if source.position == len(block) and (looks_like(block) or whole_text):
        return _Broken(_no_tar(block))
    if block:
        return source.broken("inside a header")
    if source.position:
        return _Broken(f"the tar ends at byte {source.position:,} without its end mark")
    return _Broken("the tar is empty: it has 0 bytes")


def _no_tar(block: bytes) -> str:
    unpack = "; unpack it first" if block.startswith(_PACKED) else ""
    return f"this is not a tar: {described(block)}{unpack}"


def _extended(source: _Bytes, header: Header, limits: TarLimits) -> dict[str, str]:
    at = source.position - BLOCK
    if header.size > limits.header_bytes:
        raise _Broken(
            f"the tar has an extended header of {header.size:,} bytes at byte {at:,}, allowed are"
            f" {limits.header_bytes:,}"
        )
    body = source.take(header.size)
    if len(body) < header.size or not source.skip(-header.size % BLOCK):
        raise source.broken("inside an extended header")
    try:
        return tar_header.extended(header.kind, body)
    except BadHeader as error:
        raise _Broken(f"the tar is damaged at byte {at:,}: {error}") from None


def _member(source: _Bytes, header: Header, limits: TarLimits) -> TarEntry:
    name, problem = tar_header.checked_name(header.name)
    problem = problem or tar_header.refusal(header, limits.member_bytes)
    if problem is not None:
        _skip(source, header)
        return TarEntry(name, b"", f"member {tar_header.shown(header.name)} {problem}")
    data = source.take(header.size)
    if len(data) < header.size or not source.skip(-header.size % BLOCK):
        raise source.broken(f"inside member {tar_header.shown(header.name)}", name)
    return TarEntry(name, data)


def _skip(source: _Bytes, header: Header) -> None:
    sound = True
    more_map = header.kind == tar_header.SPARSE and header.more_map
    while sound and more_map:
        block = source.take(BLOCK)
        sound = len(block) == BLOCK
        more_map = sound and block[504] != 0
    if not (sound and source.skip(header.size + -header.size % BLOCK)):
        name = "" if header.is_skipped else tar_header.checked_name(header.name)[0]
        raise source.broken(f"inside member {tar_header.shown(header.name)}", name)
