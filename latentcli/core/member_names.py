"""Builds the name of a tar member from a sample's key and a field, and splits it again.

Readers of WebDataset tars end the key at the first dot after the last slash, and skip names that
look hidden to them. So in a key such dots, and whatever else would be taken amiss, become %XX.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\\\]|%(?=[0-9A-Fa-f]{2})")
# An absolute name, an empty folder, no name at all.
_SLASH = re.compile("^/|/(?=/)|/$")
_UP = re.compile(r"(?:^|(?<=/))\.{1,2}(?=/)")
_DOT = re.compile(r"\.(?=[^/]*$)")
_DRIVE = re.compile("(?<=^[A-Za-z]):")
# webdataset skips folders such as __MACOSX__ at the top, HF datasets files that begin with __.
_HIDDEN = re.compile("^_(?=_)|(?<=/)_(?=_[^/]*$)")
_ESCAPED = re.compile("(?:%[0-9A-F]{2})+")


def member_name(key: str, field: str) -> str:
    """`<key>.<field>`, escaped: a relative path without `..`; ValueError where it cannot be one.

    Escaped are dots in the last component of the key, what would make the name hidden, absolute
    or lead out of its folder, control characters, bytes that are no UTF-8, and in both parts
    what looks like %XX already.
    """
    if not key or "/" in field:
        raise ValueError(f"key {key!r} and field {field!r} do not make a valid name in a tar")
    safe = _UP.sub(lambda dots: "%2E" * len(dots[0]), _printable(key))
    for rule, text in ((_SLASH, "%2F"), (_DOT, "%2E"), (_DRIVE, "%3A"), (_HIDDEN, "%5F")):
        safe = rule.sub(text, safe)
    return f"{safe}.{_printable(field)}"


def _printable(text: str) -> str:
    return _UNSAFE.sub(_percent, text)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode(errors="surrogateescape"))


def key_of_member(name: str) -> tuple[str, str]:
    """(key, field) that `member_name` was given; ValueError for a name without both."""
    folder, slash, file = name.rpartition("/")
    stem, dot, field = file.partition(".")
    if not stem or not dot:
        raise ValueError(f"{name!r} is not named <key>.<field>")
    return plain(folder + slash + stem), plain(field)


def plain(text: str) -> str:
    """A text before it was escaped: %XX as what they stand for."""
    return _ESCAPED.sub(
        lambda match: bytes.fromhex(match[0].replace("%", "")).decode(errors="surrogateescape"),
        text,
    )
