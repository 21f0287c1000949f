"""Decompresses streams of one part or more, no further than they are read."""

from __future__ import annotations

import bz2
import errno
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from latentcli.core.errors import UsageError
from latentcli.core.first_bytes import described

_INPUT = 2**18
"""Compressed bytes that are read at once."""
_GZIP = 31  # zlib's number for a gzip header with the largest window
_XZ_MEMORY = 2**28
"""Bytes of memory that an xz stream may ask for; those of `xz -9` ask for a quarter."""
_ZSTD_WINDOW = 27
"""Logarithm of the largest window of a zstd stream: 128 MiB, as far as `zstd -d` goes by itself."""


class Decompressor(Protocol):
    """What decompresses one part of a stream, such as a gzip member or a zstd frame."""

    @property
    def eof(self) -> bool:
        """Whether the part is at its end."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without more compressed bytes."""

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the end."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most `max_length` bytes more; any exception of the library where they are damaged."""


@dataclass(frozen=True, slots=True)
class Compression:
    """One way of compressing a file."""

    name: str
    endings: tuple[str, ...]
    """Of the names of such files, lower case."""
    begins: bytes
    """First bytes of such a file."""
    decompressor: Callable[[], Decompressor]


class _Gzip:
    """zlib's own object, made to hold back what it had no room for, as the others do."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _open_xz() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _open_zstd() -> Decompressor:
    zstd = _load_zstd()
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
    decompressor: Decompressor = zstd.ZstdDecompressor(options=options)
    return decompressor


def _load_zstd() -> Any:
    """Python's own module, which 3.14 has, or its copy for older ones; UsageError without."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise UsageError(
        "To read files that are compressed with zstd, a package is needed that is not installed:"
        " pip install 'latentcli[zst]'."
    )


COMPRESSIONS = (
    Compression("gzip", (".gz", ".tgz"), b"\x1f\x8b", _Gzip),
    Compression("zstd", (".zst", ".tzst"), b"\x28\xb5\x2f\xfd", _open_zstd),
    Compression("xz", (".xz", ".txz"), b"\xfd7zXZ\0", _open_xz),
    Compression("bzip2", (".bz2", ".tbz2", ".tbz"), b"BZh", bz2.BZ2Decompressor),
)


def compression_of(name: str) -> Compression | None:
    """How a file of this name is compressed; None where it is not."""
    lower = name.lower()
    return next((one for one in COMPRESSIONS if lower.endswith(one.endings)), None)


class Decompressing:
    """The content of a compressed stream; no more is in memory than is asked for at once."""

    def __init__(self, compression: Compression, read: Callable[[int], bytes]) -> None:
        """`read` gives the next compressed bytes. UsageError without the package for it."""
        self._compression = compression
        self._read = read
        self._decompressor = compression.decompressor()
        self._held = b""
        self._began = self._known = False

    def take(self, most: int) -> bytes:
        """Up to `most` bytes, none at the end; OSError where they are damaged or cut."""
        while True:
            if self._decompressor.eof:
                self._next_part()
            data, self._held = self._held, b""
            if not data and self._decompressor.needs_input:
                data = self._read(_INPUT)
                if not data:
                    self._check_end()
                    return b""
            if part := self._decompressed(data, most):
                return part

    def _decompressed(self, data: bytes, most: int) -> bytes:
        compression = self._compression
        try:
            part = self._decompressor.decompress(data, most)
        except Exception as error:  # each library has errors of its own
            reason = f"its {compression.name} data are damaged ({error})"
            if not self._known and not data.startswith(compression.begins):
                reason = f"it is not a {compression.name} file: {described(data)}"
            raise OSError(errno.EIO, reason) from error
        self._began = self._known = True
        return part

    def _check_end(self) -> None:
        if self._began:
            raise OSError(errno.EIO, f"its {self._compression.name} data end too early")

    def _next_part(self) -> None:
        """Goes on behind the end of a part; zeros there are padding."""
        rest = self._decompressor.unused_data.lstrip(b"\0")
        while not rest and (more := self._read(_INPUT)):
            rest = more.lstrip(b"\0")
        self._held, self._began = rest, False
        self._decompressor = self._compression.decompressor()
