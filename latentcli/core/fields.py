"""Reads the fields of a sample, its caption first, from texts and JSON that came with it.

Fields are JSON values by name. `caption`, where a sample has one, is text without white space
around it, and never empty. What cannot be used is refused with a reason, and the next one is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from latentcli.core.errors import UsageError
from latentcli.core.field_values import (
    MAX_DOCUMENT,
    Kind,
    Refused,
    caption_of,
    document_of,
    flaw_of,
    text_of,
)
from latentcli.core.types import Member

CAPTION = "caption"
DOCUMENT = "json"
"""Suffix of a document: a JSON object of fields, or one text."""
LABEL = "cls"
"""Suffix of a class, a whole number as a rule."""

_NAME = re.compile(r"[^\s/\\\x00-\x1f]+")


class Problem(NamedTuple):
    """Something that was refused."""

    kind: Kind
    where: str
    """A file, a member or a row."""
    reason: str


@dataclass(frozen=True, slots=True)
class CaptionRule:
    """Where captions are looked for; the first that is there and can be used is taken."""

    suffixes: tuple[str, ...]
    """Of files and members that are a caption as a whole."""
    names: tuple[str, ...]
    """Of fields of a document. The first that it has decides, also where it is null."""


AUTO = CaptionRule(("txt", "caption"), (CAPTION, "text"))


def caption_rule(mode: str) -> CaptionRule | None:
    """The rule of auto, of none (no rule), or of the name of a suffix or field.

    UsageError for what can be no name.
    """
    if mode in ("auto", "none"):
        return AUTO if mode == "auto" else None
    name = mode.removeprefix(".")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--captions is {mode!r}; it is auto, none, the suffix of the files that hold captions,"
            " such as tags, or the name of a column or field, such as prompt."
        )
    return CaptionRule((), AUTO.names) if name == DOCUMENT else CaptionRule((name,), (name,))


@dataclass(slots=True)
class Gathered:
    """The fields of one sample, from sources that are asked in the order of their precedence."""

    rule: CaptionRule
    others: dict[str, Any] = field(default_factory=dict)
    """All fields but the caption."""
    caption: str | None = None
    problems: list[Problem] = field(default_factory=list)
    _bytes: int = 0

    @property
    def fields(self) -> dict[str, Any]:
        """The fields, the caption first; empty where nothing belongs to the sample."""
        return ({} if self.caption is None else {CAPTION: self.caption}) | self.others

    def add_text(self, where: str, data: bytes) -> None:
        """Takes a text that is a caption as a whole, where there is none yet."""
        if self.caption is None:
            try:
                self.caption = text_of(data)
            except Refused as error:
                self.refuse(where, error)

    def add_document(self, where: str, data: bytes) -> None:
        """Takes the fields of a JSON document that are not there yet."""
        try:
            value = document_of(data)
        except Refused as error:
            self.refuse(where, error)
            return
        if not isinstance(value, str | dict):
            self.refuse(where, Refused("broken", "it is neither a JSON object nor a text"))
            return
        self.add_fields(where, {CAPTION: value} if isinstance(value, str) else value)

    def add_fields(
        self, where: str, fields: Mapping[str, Any], names: tuple[str, ...] | None = None
    ) -> None:
        """Takes fields that are not there yet; `names` are those of captions, if not the rule's.

        A field whose value `flaw_of` names is refused alone.
        """
        name = next((name for name in names or self.rule.names if name in fields), None)
        value = None if name is None else fields[name]
        if isinstance(value, list) and value:
            # Several captions of one picture: the first is taken, and all of them stay.
            if name == CAPTION:
                self._keep(where, "captions", value)
            value = value[0]
        if value is not None and self.caption is None:
            try:
                self.caption = caption_of(value)
            except Refused as error:
                self.refuse(where, error)
        for other, content in fields.items():
            if other != CAPTION:
                self._keep(where, other, content)

    def _keep(self, where: str, name: str, value: Any) -> None:
        if name in self.others:
            return
        if flaw := flaw_of({name: value}):
            self.refuse(where, Refused("broken", f"{name!r:.40}: {flaw}"))
            return
        size = len(_compact({name: value}))
        if self._bytes + size > MAX_DOCUMENT - len(_compact({CAPTION: None})):
            self.refuse(
                where, Refused("too_long", f"{name!r:.40}: the fields have too many bytes together")
            )
            return
        self._bytes += size
        self.others[name] = value

    def refuse(self, where: str, error: Refused) -> None:
        """Notes what was refused."""
        self.problems.append(Problem(error.kind, where, error.reason))


def gather_members(members: Iterable[Member], rule: CaptionRule) -> Gathered:
    """What the members of a sample in a tar say of it, whatever their order."""
    # Readers of tars compare fields without case.
    data = {member.field.lower(): member.data for member in members}
    found = Gathered(rule)
    for suffix in rule.suffixes:
        if suffix in data:
            found.add_text(suffix, data[suffix])
    if DOCUMENT in data:
        found.add_document(DOCUMENT, data[DOCUMENT])
    if LABEL in data:
        try:
            found.add_fields(LABEL, {LABEL: _label(text_of(data[LABEL]))})
        except Refused as error:
            found.refuse(LABEL, error)
    return found


def _label(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text


def is_of_fields(field: str, rule: CaptionRule = AUTO) -> bool:
    """Whether a member of a tar is one that `gather_members` looks at."""
    return field.lower() in (*rule.suffixes, DOCUMENT, LABEL)


def fields_of_members(members: Iterable[Member], rule: CaptionRule = AUTO) -> dict[str, Any]:
    """The fields of a sample in a tar: of its txt, caption, json and cls members."""
    return gather_members(members, rule).fields


def members_of_fields(fields: Mapping[str, Any]) -> tuple[Member, ...]:
    """Members of which `fields_of_members` makes the same fields: a txt caption, the rest json.

    Equal fields give equal bytes. ValueError for a value that `flaw_of` names.
    """
    if flaw := flaw_of(fields):
        raise ValueError(f"fields cannot be written: {flaw}")
    members = []
    others = {name: value for name, value in fields.items() if name != CAPTION}
    if CAPTION in fields:
        members.append(Member(AUTO.suffixes[0], fields[CAPTION].encode()))
    elif any(name in others for name in AUTO.names):
        # Without this, the next reader would take another field for the caption.
        others[CAPTION] = None
    if others:
        members.append(Member(DOCUMENT, _compact(others)))
    return tuple(members)


def _compact(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(
        fields, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).encode()
