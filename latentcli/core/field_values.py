"""Takes texts and JSON values as fields of samples, or refuses them with a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Literal

MAX_CAPTION = 64 * 2**10
"""Bytes of a caption in UTF-8: far more than any text encoder reads."""
MAX_DOCUMENT = 2**20
"""Bytes of a document."""
MAX_DEPTH = 32
"""Lists and objects within each other."""

Kind = Literal["empty", "not_utf8", "too_long", "broken", "unreadable"]

_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_UTF_32 = b"\xff\xfe\0\0"


class Refused(ValueError):
    """A text or document that cannot be used; says which policy refused it, and why."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


def text_of(data: bytes) -> str:
    """A caption: UTF-8, or UTF-16 with its mark, with plain line ends and nothing around it.

    Refused where it is empty, longer than MAX_CAPTION or in another encoding, which is not guessed.
    """
    if len(data) > MAX_CAPTION:
        raise Refused("too_long", f"it has more than {MAX_CAPTION:,} bytes")
    return caption_of(decoded(data))


def decoded(data: bytes) -> str:
    """A text in UTF-8, or in UTF-16 with its mark; Refused for everything else."""
    encoding = "utf-8"
    if data.startswith(tuple(_MARKS)) and not data.startswith(_UTF_32):
        encoding = next(code for mark, code in _MARKS.items() if data.startswith(mark))
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Refused("not_utf8", "it is not UTF-8 text") from error
    # UTF-16 without its mark is sound UTF-8, with a zero behind each letter.
    if "\0" in text:
        raise Refused("not_utf8", "it is not text: it holds zero bytes")
    return text


def caption_of(value: Any) -> str:
    """A field's value as a caption; Refused where it is no text, empty, or too long."""
    if not isinstance(value, str) or not _is_whole(value):
        raise Refused("broken", f"the caption is {value!r:.40}, expected text")
    text = value.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise Refused("empty", "it is empty")
    if len(text.encode()) > MAX_CAPTION:
        raise Refused("too_long", f"the caption has more than {MAX_CAPTION:,} bytes")
    return text


def document_of(data: bytes) -> Any:
    """The value of a JSON text; Refused where it is none, or has more than MAX_DOCUMENT bytes."""
    if len(data) > MAX_DOCUMENT:
        raise Refused("too_long", f"it has more than {MAX_DOCUMENT:,} bytes")
    text = decoded(data)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused("broken", f"it is not JSON ({error})") from error


def flaw_of(value: Any, depth: int = 0) -> str | None:
    """Why a value cannot be a field: a number that is not finite, nested too deep, half a letter.

    None where nothing is wrong with it.
    """
    if depth > MAX_DEPTH:
        return f"it is nested more than {MAX_DEPTH} levels deep"
    if isinstance(value, str):
        return None if _is_whole(value) else "a text in it holds half of a UTF-16 surrogate pair"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is not a JSON number"
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            return "a name in it is not text"
        inner: Iterable[Any] = chain(value, value.values())
    elif isinstance(value, list | tuple):
        inner = value
    else:
        known = value is None or isinstance(value, bool | int)
        return None if known else f"{value!r:.40} is not a JSON value"
    return next((flaw for item in inner if (flaw := flaw_of(item, depth + 1))), None)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
