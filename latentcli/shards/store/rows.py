"""Converts rows of a commit record to plain JSON values and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from latentcli.core.types import Row
from latentcli.shards.storage.json_files import field


def row_to_json(row: Row) -> dict[str, Any]:
    """Plain values of a row; what it does not have is left out."""
    values = {item.name: getattr(row, item.name) for item in fields(row)}
    return {name: value for name, value in values.items() if value is not None and value != ()}


def row_from_json(document: Any) -> Row:
    """The row; ValueError says what is wrong with the document."""
    if not isinstance(document, dict):
        raise ValueError(f"a row is {document!r:.60}, expected an object")
    # A record has a thousand rows, and most of them lack most of the fields.
    checks = (item for item in _ROW_FIELDS.items() if item[0] in document or item[0] in _NEEDED)
    row = Row(**{name: check(document, name) for name, check in checks})
    if row.status not in ("ok", "failed"):
        raise ValueError(f"status is {row.status!r}, expected ok or failed")
    return row


def _text(document: Mapping[str, Any], name: str) -> Any:
    return field(document, name, str)


def _optional_text(document: Mapping[str, Any], name: str) -> Any:
    return field(document, name, str, None)


def _integers(count: int | None) -> Callable[[Mapping[str, Any], str], Any]:
    def check(document: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
        values = field(document, name, list, None)
        if values is None:
            return None
        if count not in (None, len(values)) or not set(map(type, values)) <= {int}:
            raise ValueError(f"{name} is {values!r:.60}, expected {count or 'some'} integers")
        return tuple(values)

    return check


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = field(document, name, list, None) or []
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is {values!r:.60}, expected texts")
    return tuple(values)


_ROW_FIELDS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "key": _text,
    "source": _text,
    "status": _text,
    "stage": _optional_text,
    "error": _optional_text,
    "original_size": _integers(2),
    "resized_size": _integers(2),
    "crop": _integers(4),
    "latent_shape": _integers(None),
    "frame_rate": _optional_text,
    "time_base": _optional_text,
    "notes": _texts,
    "sha256": _optional_text,
}
_NEEDED = ("key", "source", "status")
