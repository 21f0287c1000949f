"""Parses the header blocks of a tar, and says why a member may not be used.

The formats are those of POSIX (ustar, pax), GNU tar and the old v7. Nothing here reads a stream.

Python's `tarfile.TarInfo` is not used: to it, damaged sizes such as 1_0 and +12 are numbers and the
times in the prefix field of GNU's format are folders, and it reads no pax records from bytes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BLOCK = 512
"""Bytes of a header; data is filled up to a multiple of it."""
MOST_NAME_CHARACTERS = 4096
"""Longest name of a member: that of a path on Linux."""
MOST_SHOWN = 200
"""Longest name in a message."""

FILES = frozenset((b"0", b"\0", b"7"))
FOLDERS = frozenset((b"5", b"D"))
LABEL = b"V"
SPARSE = b"S"
LONG_NAMES = {b"L": "long path", b"K": "long link"}
GLOBAL_PAX = b"g"
EXTENSIONS = frozenset((*LONG_NAMES, b"x", b"X", GLOBAL_PAX))
NO_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6", LABEL))
"""Kinds without data blocks, whatever the size in their header."""

_REFUSED_KINDS = {
    b"1": "is a hard link to {link}, and links are not followed",
    b"2": "is a symbolic link to {link}, and links are not followed",
    b"3": "is a character device, not a file",
    b"4": "is a block device, not a file",
    b"6": "is a named pipe, not a file",
    b"M": "is the rest of a file of another volume",
    SPARSE: "is a sparse file; store it as an ordinary one",
}
_PAX_FIELDS = {
    b"path": "path",
    b"linkpath": "link",
    b"size": "size",
    b"GNU.sparse.name": "sparse path",
}

_PAX_RECORD = re.compile(rb"([0-9]{1,9}) ([^=\n]+)=")
_PAX_SIZE = re.compile(rb"[0-9]{0,20}")
_OCTAL = re.compile(rb"[0-7]*")
_TIDY_NAME = re.compile(r"[^/\\.:][^/\\:]*(?:/[^/\\.][^/\\]*)*")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


class BadHeader(Exception):
    """A header that cannot be believed; what is wrong with it, to follow "the tar is damaged: "."""


class NoHeader(BadHeader):
    """A block that is no header, or one that was changed."""


class Header(NamedTuple):
    """What one header block says, together with the extended headers in front of it."""

    name: str
    """As it is in the tar; bytes that are no UTF-8 are surrogate escapes."""
    size: int
    """Bytes of data behind it."""
    kind: bytes
    """The type flag, one byte."""
    link: str
    """Where a link leads."""
    more_map: bool
    """Whether the map of a sparse file goes on in the next block."""

    @property
    def is_skipped(self) -> bool:
        """Whether it stands for no file: a folder, or the label of a volume."""
        slash = self.kind in FILES and self.name.endswith("/") and not self.size
        return slash or self.kind in FOLDERS or self.kind == LABEL


def parse(block: bytes) -> Header:
    """The header of one block of 512 bytes; NoHeader or BadHeader where it is none."""
    if len(block) < BLOCK or not _checksum_fits(block):
        raise NoHeader("the header there has a wrong checksum")
    kind = block[156:157]
    size = _number(block[124:136])
    if size is None:
        raise BadHeader("the header there has a size that is not a number")
    name = _text(block[:100])
    # In GNU's own format the prefix field holds times.
    if block[345] and block[257:262] == b"ustar" and block[262:263] != b" ":
        name = f"{_text(block[345:500])}/{name}"
    link = _text(block[157:257]) if block[157] else ""
    return Header(name, 0 if kind in NO_DATA else size, kind, link, block[482] != 0)


def _checksum_fits(block: bytes) -> bool:
    claimed = _number(block[148:156])
    # The field itself counts as eight spaces.
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    if claimed == total:
        return True
    # Some old tars sum signed bytes.
    negative = sum(byte > 0x7F for byte in block[:148] + block[156:])
    return claimed == total - 256 * negative


def _number(field: bytes) -> int | None:
    """A header's number: octal, or base-256 where its first bit is set; None for any other."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(1 << (8 * len(field) - 1))
        return None if field[0] & 0x40 else value
    digits = field.partition(b"\0")[0].strip(b" ")
    return int(digits or b"0", 8) if _OCTAL.fullmatch(digits) else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def extended(kind: bytes, body: bytes) -> dict[str, str]:
    """What an extended header of this kind adds, to be given to `amended`; or BadHeader."""
    if kind in LONG_NAMES:
        return {LONG_NAMES[kind]: _text(body)}
    values: dict[str, str] = {}
    at = 0
    while match := _PAX_RECORD.match(body, at):
        end = at + int(match[1])
        keyword, value = match[2], body[match.end() : end - 1]
        if end <= match.end() or body[end - 1 : end] != b"\n":
            break
        if keyword == b"size" and not _PAX_SIZE.fullmatch(value):
            break
        if keyword in _PAX_FIELDS:
            values[_PAX_FIELDS[keyword]] = value.decode("utf-8", "surrogateescape")
        if keyword.startswith(b"GNU.sparse."):
            values["sparse"] = "yes"
        at = end
    if body[at:].strip(b"\0"):
        raise BadHeader("the extended header there is not made of pax records")
    return values


def amended(header: Header, values: dict[str, str]) -> Header:
    """The header with the values of its extended headers; an empty value changes nothing."""
    names = ("sparse path", "path", "long path")
    sparse = header.kind in FILES and "sparse" in values
    kind = SPARSE if sparse else header.kind
    size = int(values.get("size") or header.size)
    return Header(
        name=next((values[name] for name in names if values.get(name)), header.name),
        size=0 if kind in NO_DATA else size,
        kind=kind,
        link=values.get("link") or values.get("long link") or header.link,
        more_map=header.more_map and not sparse,
    )


def checked_name(name: str) -> tuple[str, str | None]:
    """The name without `.` parts and double slashes, and what is wrong with it."""
    if len(name) > MOST_NAME_CHARACTERS:
        long = f"has a name of {len(name):,} characters, allowed are {MOST_NAME_CHARACTERS:,}"
        return name[:MOST_NAME_CHARACTERS], long
    if _TIDY_NAME.fullmatch(name):
        return name, None
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        return name, "has an absolute name; names in a tar must be relative"
    if ".." in re.split(r"[/\\]", name):
        return name, "has .. in its name, and would leave its folder"
    tidy = "/".join(part for part in name.split("/") if part not in ("", "."))
    return tidy, None if tidy else "has no name"


def refusal(header: Header, member_bytes: int) -> str | None:
    """Why this member may not be used, to follow its name; None for an ordinary file."""
    if header.kind in _REFUSED_KINDS:
        return _REFUSED_KINDS[header.kind].format(link=shown(header.link))
    if header.kind not in FILES:
        return f"is of the unknown kind {header.kind!r}, not a file"
    if header.name.endswith("/"):
        return "has the name of a folder, but data too"
    if header.size > member_bytes:
        return f"has {header.size:,} bytes, allowed are {member_bytes:,}"
    return None


def shown(name: str) -> str:
    """A name as it stands in a message: printable, and not too long."""
    short = name if len(name) <= MOST_SHOWN else f"{name[:MOST_SHOWN]}..."
    return short if short.isprintable() else repr(short)[1:-1]
