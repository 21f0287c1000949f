"""Opens a tar shard of a store: its metadata, tensors and other members."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.core.member_names import key_of_member
from latentcli.core.types import Member
from latentcli.shards.storage.paths import read_part
from latentcli.shards.tar.scan import Span, scan_tar
from latentcli.shards.tar.write import DOCUMENT, LATENT
from latentcli.shards.tensors.file import Header, SafetensorsFile, read_header
from latentcli.shards.tensors.packed import FilePart, PackedMember

Read = Callable[[int, int], bytes]


class TarShard(SafetensorsFile):
    """An open tar, of which only headers are read until a tensor is asked for.

    Tensors are named `<key>/<part>` with the exact keys of the store, in the order of the tar.
    `metadata` is what all its samples say of themselves; it is empty where there are no samples.
    StoreError where the tar is cut or a header damaged, where a name or key comes twice, and
    where samples of several jobs were put together.
    """

    def _read_header(self, read: Read, size: int) -> Header:
        self._members: dict[str, dict[str, Span]] = {}
        """By name of the sample, then by field."""
        self._samples: dict[str, str] = {}
        """Name of the sample by key."""
        header = Header({}, {}, 0)
        with self._scanning(read) as scan:
            for span in scan_tar(scan, size):
                sample, field = key_of_member(span.name)
                fields = self._members.setdefault(sample, {})
                if field in fields:
                    raise ValueError(f"it holds {span.name!r} twice")
                fields[field] = span
                if field == LATENT:
                    header = self._with_sample(header, sample, _header_of(scan, span), span.begin)
        return header

    def _with_sample(self, shard: Header, sample: str, own: Header, begin: int) -> Header:
        """The header of the shard with one more sample, whose member begins at `begin`."""
        metadata = dict(own.metadata)
        key = metadata.pop("key", None)
        if key is None or any("/" in part for part in own.entries):
            raise ValueError(f"the latents of {sample!r} do not say what their key is")
        if key in self._samples:
            raise ValueError(f"{sample!r} and {self._samples[key]!r} both are of key {key!r}")
        if self._samples and metadata != shard.metadata:
            raise ValueError(f"{sample!r} was made by another job than the samples before it")
        self._samples[key] = sample
        for part, entry in own.entries.items():
            shift = begin + own.start
            shard.entries[f"{key}/{part}"] = replace(
                entry, begin=entry.begin + shift, end=entry.end + shift
            )
        return Header(metadata, shard.entries, 0)

    @contextmanager
    def _scanning(self, read: Read) -> Iterator[Read]:
        if isinstance(self.path, Path):
            yield read
            return
        # One request for many headers.
        with self.path.open("rb") as file:
            yield lambda begin, end: (file.seek(begin), file.read(end - begin))[1]

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, what its `.latent.json` says) of each sample; {} where it has none."""
        for key, sample in self._samples.items():
            span = self._members[sample].get(DOCUMENT)
            yield key, {} if span is None else self._document(span)

    def _document(self, span: Span) -> dict[str, Any]:
        try:
            document = json.loads(self._bytes(span))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.path} is damaged: {span.name!r} is not JSON.") from error
        if not isinstance(document, dict):
            raise StoreError(f"{self.path} is damaged: {span.name!r} is not a JSON object.")
        return document

    def others(self, key: str, wanted: Callable[[str], bool] = bool) -> tuple[Member, ...]:
        """The members passed on with a sample, in their order; StoreError for an unknown key.

        Only those are read whose field is wanted.
        """
        return tuple(
            Member(field, self._bytes(span)) for field, span in self._others(key) if wanted(field)
        )

    def packed_others(self, key: str) -> tuple[PackedMember, ...]:
        """The same members, which are read when they are written; as `others`."""
        return tuple(
            PackedMember(field, FilePart(self.path, span.begin, span.end - span.begin))
            for field, span in self._others(key)
        )

    def _others(self, key: str) -> list[tuple[str, Span]]:
        if key not in self._samples:
            raise StoreError(f"{self.path} has no key {key!r}.")
        fields = self._members[self._samples[key]]
        return [item for item in fields.items() if item[0] not in (LATENT, DOCUMENT)]

    def _bytes(self, span: Span) -> bytes:
        return bytes(read_part(self.path, span.begin, span.end))


def _header_of(read: Read, span: Span) -> Header:
    try:
        return read_header(
            lambda begin, end: read(span.begin + begin, span.begin + end), span.end - span.begin
        )
    except ValueError as error:
        raise ValueError(f"{span.name!r}: {error}") from error
