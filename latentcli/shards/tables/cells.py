"""Takes a picture out of a table's cell, and makes the files of a sample of the other cells."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from latentcli.core.errors import SampleError
from latentcli.core.types import Member
from latentcli.shards.storage.json_files import one_line

KEY_NAMES = ("__key__", "key", "id", "file_name")
"""Columns that a row may have its key from: the first of them that it has."""
CAPTION_NAMES = ("caption", "text", "txt", "prompt")
"""Columns that a row may have its caption from: the first of them that it has."""
LONGEST_PATH = 4096

_DATA_URL = re.compile(r"data:[\w.+/-]*;base64,", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}\s*", re.ASCII)
# JPEG, PNG, GIF, RIFF (WebP), both orders of TIFF, BMP; AVIF and HEIC have their mark behind that.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM")


def picture_in(value: Any, column: str) -> bytes | str:
    """The bytes of a cell's picture, or the path that it gives; SampleError where it has neither.

    A text is a path, unless it is a data: URL, or base64 that begins as pictures do.
    """
    if isinstance(value, Mapping):
        inner = value.get("bytes")
        value = value.get("path") if inner is None else inner
    if value is None or value == "":
        raise SampleError("read", f"its column {column} is empty (null)")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise SampleError(
            "read", f"its column {column} holds {type(value).__name__}, and not bytes or a path"
        )
    return _text_picture(value, column)


def _text_picture(text: str, column: str) -> bytes | str:
    mark = _DATA_URL.match(text)
    if mark:
        try:
            return base64.b64decode(text[mark.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise SampleError(
                "read", f"its column {column} is not valid base64: {error}"
            ) from error
    if _BASE64.fullmatch(text):
        data = _decoded(text)
        if data is not None:
            return data
    if len(text) > LONGEST_PATH:
        raise SampleError(
            "read",
            f"its column {column} is a text of {len(text):,} characters: neither a path nor a"
            " picture in base64",
        )
    return text


def _decoded(text: str) -> bytes | None:
    """The bytes of base64; None where it is none, or no picture's."""
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if data.startswith(_SIGNATURES) or data[4:8] == b"ftyp" else None


def key_in(values: Mapping[str, Any], number: int) -> str:
    """A row's key, which need not be printable or unique: of a key column, or its number.

    Of `file_name` the suffix is left out.
    """
    for name in KEY_NAMES:
        value = values.get(name)
        if isinstance(value, int | str) and not isinstance(value, bool) and value != "":
            stem, dot, suffix = str(value).rpartition(".")
            named = name == "file_name" and dot and stem and "/" not in suffix
            return stem if named else str(value)
    return f"{number:08d}"


def members_of(values: Mapping[str, Any], column: str) -> tuple[Member, ...]:
    """What a row holds beside its picture: the caption as txt, and all columns as json.

    The caption is in both, so that it is found by the name of its column too. Bytes are left out.
    """
    names = (name for name in CAPTION_NAMES if name != column)
    caption = next((name for name in names if isinstance(values.get(name), str)), None)
    rest = {
        name: _plain(value)
        for name, value in values.items()
        if name != column and not isinstance(value, bytes)
    }
    members = [Member("txt", _encoded(values[caption]))] if caption is not None else []
    if rest:
        members.append(Member("json", one_line(rest).encode()))
    return tuple(members)


def _encoded(text: str) -> bytes:
    """The bytes of a text as the table has them."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """A value as JSON has it: times and decimals as text, and no bytes."""
    if isinstance(value, Mapping):
        items = value.items()
        return {str(name): _plain(item) for name, item in items if not isinstance(item, bytes)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if not isinstance(item, bytes)]
    if isinstance(value, str):
        return _encoded(value).decode("utf-8", "replace")
    if value is None or isinstance(value, bool | int | float):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
