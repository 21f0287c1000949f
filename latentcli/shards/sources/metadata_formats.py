"""Takes files of metadata apart into rows, each with the pictures that it is of and its bytes.

The files are those of Hugging Face's imagefolder (metadata.jsonl, metadata.csv) and of kohya's
scripts (meta_cap.json and meta_lat.json, or captions.json: an object with a picture's name, or its
stem, in front of a caption or an object).
"""

from __future__ import annotations

import csv
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, NamedTuple

from latentcli.core.field_values import MAX_DOCUMENT, Refused, decoded, document_of
from latentcli.core.fields import CAPTION

FILE_NAME = "file_name"
"""The column of the picture's name. Where it is not there, `*_file_name`, `file_names` and
`*_file_names` name several pictures, and stay fields of each of them."""

_NAMING = (FILE_NAME, f"{FILE_NAME}s")
_BLOCK = 2**20
_LARGEST = 16 * MAX_DOCUMENT
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Entry(NamedTuple):
    """One row of a file of metadata."""

    begin: int
    """Offset in the file."""
    data: bytes
    names: Sequence[str]
    """Pictures that it is of, as they are written there."""
    flaw: Refused | None = None
    """Why it is of none."""


class MetadataFormat(ABC):
    """How one kind of file is read; an instance reads one file."""

    caption_names: ClassVar[tuple[str, ...] | None] = None
    """Columns that are captions, where they are others than elsewhere."""
    by_stem: ClassVar[bool] = False
    """Whether a row may name its picture without the suffix."""

    @abstractmethod
    def ranges(self, file: BinaryIO) -> Iterator[tuple[int, bytes, Refused | None]]:
        """Offset and bytes of each row, from where the file stands, or why it is none.

        Refused where the file can only be refused as a whole.
        """

    @abstractmethod
    def row(self, data: bytes) -> tuple[list[str], Mapping[str, Any]]:
        """The pictures that the bytes of a row are of, and the fields that it gives them.

        Refused where it cannot be used.
        """

    def entries(self, file: BinaryIO) -> Iterator[Entry]:
        """The rows from where the file stands; Refused as by `ranges`."""
        for begin, data, flaw in self.ranges(file):
            names = list[str]()
            if flaw is None:
                try:
                    names, _ = self.row(data)
                    flaw = None if names else Refused("broken", f"it has no {FILE_NAME}")
                except Refused as error:
                    flaw = error
            yield Entry(begin, data, names, flaw)


class JsonLines(MetadataFormat):
    """metadata.jsonl: an object a line."""

    def ranges(self, file: BinaryIO) -> Iterator[tuple[int, bytes, Refused | None]]:
        """As MetadataFormat."""
        end = file.tell()
        while line := file.readline(_LARGEST):
            begin, end = end, end + len(line)
            if line.strip():
                yield begin, line, None

    def row(self, data: bytes) -> tuple[list[str], Mapping[str, Any]]:
        """As MetadataFormat."""
        return _parted(_object(document_of(data)))


class Csv(MetadataFormat):
    """metadata.csv: columns with a header, separated by commas. Its values are texts."""

    def __init__(self) -> None:
        self._header: list[str] = []

    def ranges(self, file: BinaryIO) -> Iterator[tuple[int, bytes, Refused | None]]:
        """As MetadataFormat."""
        lines = _Lines(file)
        rows = csv.reader(lines)
        while True:
            row, flaw = list[str](), None
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                flaw = Refused("broken", f"it is not CSV ({error})")
            begin, data = lines.taken()
            if not self._header and flaw is None:
                self._header = _header_of(row)
            elif row or flaw is not None:
                yield begin, data, flaw

    def row(self, data: bytes) -> tuple[list[str], Mapping[str, Any]]:
        """As MetadataFormat. Empty cells are left out."""
        cells = next(csv.reader(io.StringIO(decoded(data), newline="")))
        if len(cells) != len(self._header):
            raise Refused(
                "broken", f"it has {len(cells)} columns, the first line has {len(self._header)}"
            )
        named = zip(self._header, cells, strict=True)
        return _parted({name: cell for name, cell in named if cell})


class CaptionObject(MetadataFormat):
    """captions.json and kohya's files: one object, of captions or of objects, by picture."""

    caption_names = (CAPTION, "tags")
    by_stem = True

    def ranges(self, file: BinaryIO) -> Iterator[tuple[int, bytes, Refused | None]]:
        """As MetadataFormat; it is one JSON text, so a fault anywhere refuses all of it."""
        scan = _Scanner(file)
        scan.take("{")
        while scan.next() == '"':
            scan.begin()
            scan.value()
            scan.take(":")
            scan.value()
            yield (*scan.taken(), None)
            if scan.next() != "}":
                scan.take(",")
        scan.take("}")
        if scan.next():
            raise Refused("broken", f"it has more after its end, at byte {scan.offset:,}")

    def row(self, data: bytes) -> tuple[list[str], Mapping[str, Any]]:
        """As MetadataFormat."""
        ((name, value),) = document_of(b"{%b}" % data).items()
        return [name], {CAPTION: value} if isinstance(value, str) else _object(value)


METADATA: dict[str, type[MetadataFormat]] = {
    "metadata.jsonl": JsonLines,
    "metadata.csv": Csv,
    "captions.json": CaptionObject,
    "meta_lat.json": CaptionObject,
    "meta_cap.json": CaptionObject,
}
"""Names of the files; of two in a folder, the first has precedence."""


def _parted(row: Mapping[str, Any]) -> tuple[list[str], Mapping[str, Any]]:
    """The pictures that a row is of, and what else it says."""
    if FILE_NAME in row:
        fields = {name: value for name, value in row.items() if name != FILE_NAME}
        return _texts(row[FILE_NAME]), fields
    values = (value for name, value in row.items() if name.endswith(_NAMING))
    return [name for value in values for name in _texts(value)], row


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text]


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused("broken", f"it is {value!r:.40}, expected a JSON object")
    return value


def _header_of(row: list[str]) -> list[str]:
    if not any(name.endswith(_NAMING) for name in row):
        raise Refused("broken", f"its first line names no column {FILE_NAME}")
    if len(set(row)) < len(row):
        raise Refused("broken", "its first line names a column twice")
    return row


class _Lines:
    """The lines of a file as texts, and the bytes of those taken since the last look."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._parts: list[bytes] = []
        self._begin = file.tell()

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(_LARGEST):
            self._parts.append(line)
            yield line.decode("utf-8", "surrogateescape")

    def taken(self) -> tuple[int, bytes]:
        """Offset and bytes of the lines since the last call."""
        begin, data = self._begin, b"".join(self._parts)
        self._begin, self._parts = begin + len(data), []
        return begin, data


class _Scanner:
    """Goes over one large JSON text without holding more than a part of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._before = file.tell()
        # As Latin-1 a letter is a byte, and JSON's own signs are what they are.
        self._text = ""
        self._at = self._begin = 0

    @property
    def offset(self) -> int:
        """Where in the file it stands."""
        return self._before + self._at

    def begin(self) -> None:
        """Holds the text from here on."""
        self._begin = self._at

    def taken(self) -> tuple[int, bytes]:
        """Offset and bytes of what it went over since `begin`."""
        return self._before + self._begin, self._text[self._begin : self._at].encode("latin-1")

    def next(self) -> str:
        """The next letter that is no white space; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, letter: str) -> None:
        """Goes over a letter; Refused where another one stands there."""
        if self.next() != letter:
            raise Refused("broken", f"it is not a JSON object: no {letter} at byte {self.offset:,}")
        self._at += 1

    def value(self) -> None:
        """Goes over a value; Refused where there is none."""
        self.next()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
                # A number at the end may be cut.
                if end < len(self._text):
                    self._at = end
                    return
            except (ValueError, RecursionError) as error:
                if len(self._text) - self._at > _LARGEST:
                    raise self._flaw() from error
            if not self._more():
                raise self._flaw()

    def _flaw(self) -> Refused:
        return Refused("broken", f"it is not JSON: no value at byte {self.offset:,}")

    def _more(self) -> bool:
        block = self._file.read(_BLOCK).decode("latin-1")
        self._before += self._begin
        self._text = self._text[self._begin :] + block
        self._at, self._begin = self._at - self._begin, 0
        return bool(block)
