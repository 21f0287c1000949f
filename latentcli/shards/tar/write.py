"""Writes encoded samples as a WebDataset tar, whose bytes depend on the samples alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentcli.core.member_names import member_name
from latentcli.core.types import Member
from latentcli.shards.storage.atomic_write import Bytes
from latentcli.shards.storage.json_files import one_line
from latentcli.shards.tar.header import BLOCK
from latentcli.shards.tensors.write import Pieces, safetensors_parts

if TYPE_CHECKING:
    from torch import Tensor

    from latentcli.shards.tensors.packed import PackedMember

LATENT = "latent.safetensors"
"""Field of the member that holds a sample's tensors."""
DOCUMENT = "latent.json"
"""Field of the member that tells where they come from."""

END = bytes(2 * BLOCK)
"""The end mark: a tar without it was cut short."""

_NAME, _PREFIX, _MODE = 100, 155, 0o644
_LARGE = 8**11
"""Sizes from here on do not fit into the octal digits of a header."""
_PAX_NAME = "PaxHeader"


@dataclass(frozen=True, slots=True)
class TarSample:
    """One encoded sample, as it becomes members of a tar."""

    name: str
    """The sample's key for member names, unescaped."""
    tensors: Mapping[str, Tensor | Pieces]
    """By part: latent, latent_flip, class_token, mean and so on."""
    metadata: Mapping[str, str]
    """Strings of the safetensors member; `key` is the exact key in the store."""
    document: Mapping[str, Any]
    """What becomes `<name>.latent.json`, on one line, fields in this order."""
    others: Sequence[Member | PackedMember] = ()
    """Members passed on byte for byte. An old latent among them gives way to the new one."""


def tar_chunks(samples: Iterable[TarSample]) -> Iterator[Bytes]:
    """The bytes of a whole tar; one tensor, or a piece of it, is in memory at a time."""
    for sample in samples:
        yield from sample_chunks(sample)
    yield END


def sample_chunks(sample: TarSample) -> Iterator[Bytes]:
    """The bytes of a sample's members: safetensors, JSON, then the others in their order.

    ValueError where a name or tensor is none that the formats can hold; nothing is yielded then.
    """
    size, chunks = safetensors_parts(sample.tensors, sample.metadata)
    document = one_line(sample.document).encode() + b"\n"
    # webdataset compares fields without case.
    others = [item for item in sample.others if item.field.lower() not in (LATENT, DOCUMENT)]
    names = [member_name(sample.name, field) for field in (LATENT, DOCUMENT)]
    names += [member_name(sample.name, item.field) for item in others]
    yield from member_chunks(names[0], size, chunks)
    yield from member_chunks(names[1], len(document), [document])
    for name, item in zip(names[2:], others, strict=True):
        if isinstance(item, Member):
            yield from member_chunks(name, len(item.data), [item.data])
        else:
            yield from member_chunks(name, item.size, item.pieces())


def member_chunks(name: str, size: int, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
    """The bytes of one member: its header, its `size` bytes of data, and zeros up to a block."""
    yield header(name, size)
    yield from chunks
    if size % BLOCK:
        yield bytes(-size % BLOCK)


def header(name: str, size: int) -> bytes:
    """The header blocks of a regular file: USTAR, behind a PAX header where that is too narrow.

    Time, owner and rights are the same for every file. ValueError for a name that is no UTF-8.
    """
    # Not tarfile's TarInfo.tobuf: stores made so far have these bytes, whatever the Python, and it
    # needs three blocks for each name of more than 100 characters.
    records: dict[str, str] = {}
    prefix, short = _split(name)
    if not name.isascii() or len(short) > _NAME:
        records["path"] = name
        prefix, short = "", name.encode("ascii", "replace")[-_NAME:].decode()
    if size >= _LARGE:
        records["size"] = str(size)
    block = _ustar(prefix, short, 0 if size >= _LARGE else size, b"0")
    if not records:
        return block
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    return _ustar("", _PAX_NAME, len(data), b"x") + data + bytes(-len(data) % BLOCK) + block


def _split(name: str) -> tuple[str, str]:
    """(prefix, name) of a USTAR header; the name is too long where there is no way to split."""
    if len(name) <= _NAME:
        return "", name
    # The last slash that leaves a prefix short enough.
    cut = name.rfind("/", 0, _PREFIX + 1)
    return (name[:cut], name[cut + 1 :]) if cut > 0 else ("", name)


def _record(key: str, value: str) -> bytes:
    """A PAX record, `<length> <key>=<value>`, whose length counts its own digits."""
    body = f" {key}={value}\n".encode()
    size = len(body)
    while size != len(body) + len(str(size)):
        size = len(body) + len(str(size))
    return str(size).encode() + body


def _ustar(prefix: str, name: str, size: int, kind: bytes) -> bytes:
    numbers = [_octal(_MODE, 8), _octal(0, 8), _octal(0, 8), _octal(size, 12), _octal(0, 12)]
    head = name.encode().ljust(_NAME, b"\0") + b"".join(numbers)
    tail = kind + bytes(_NAME) + b"ustar\x0000" + bytes(64) + 2 * _octal(0, 8)
    tail += prefix.encode().ljust(_PREFIX, b"\0")
    total = sum(head) + sum(tail) + 8 * ord(" ")
    return (head + b"%06o\0 " % total + tail).ljust(BLOCK, b"\0")


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)
