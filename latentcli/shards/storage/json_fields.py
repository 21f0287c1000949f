"""Reads dataclasses from JSON objects, each field checked against its own annotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field as dataclass_field
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Noun = TypeVar("Noun")
Check = Callable[[Mapping[str, Any], str], Any]

_ABSENT = (None, ())
"""Defaults that stand for fields which are not in the object."""
_JSON: dict[Any, tuple[type | None, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    tuple: (list,),
    NoneType: (None,),
}
"""What stands in JSON for a type; for all others it is an object."""


def later(default: Noun) -> Noun:
    """A field of a dataclass that files of earlier versions lack; then it is the default."""
    return dataclass_field(default=default, metadata={"later": True})


def to_object(noun: Any) -> dict[str, Any]:
    """Values by field, in their order; None and () are left out where they are the default."""
    named, values_of = _named(type(noun))  # type: ignore[arg-type]
    values = zip(named, values_of(noun), strict=True)
    return {name: value for (name, needed), value in values if needed or value not in _ABSENT}


def from_object(kind: type[Noun], document: Any) -> Noun:
    """The dataclass; ValueError says what is wrong with the document. More fields are no error."""
    if not isinstance(document, dict):
        raise ValueError(f"a {kind.__name__.lower()} is {document!r:.60}, expected an object")
    checks = _checks(kind)  # type: ignore[arg-type]
    # A record has a thousand rows, and most of them lack most of the fields.
    return kind(**{n: check(document, n) for n, needed, check in checks if needed or n in document})


def field(document: Mapping[str, Any], name: str, *kinds: type | None) -> Any:
    """A field of one of these types (None: may be absent); ValueError says what is wrong."""
    value = document.get(name)
    if (value is None and None in kinds) or type(value) in kinds:
        return value
    allowed = " or ".join("null" if kind is None else kind.__name__ for kind in kinds)
    found = repr(value) if name in document else "absent"
    raise ValueError(f"{name} is {found[:60]}, expected {allowed}")


@cache
def _named(kind: Any) -> tuple[list[tuple[str, bool]], Callable[[Any], tuple[Any, ...]]]:
    """(field, whether it must be there) of a dataclass, and what gives the values of all."""
    named = [(name, needed) for name, needed, _ in _checks(kind)]
    if len(named) == 1:
        return named, lambda noun: (getattr(noun, named[0][0]),)
    return named, attrgetter(*(name for name, _ in named))


@cache
def _checks(kind: Any) -> list[tuple[str, bool, Check]]:
    """(field, whether it must be there, what reads it) of a dataclass."""
    hints = get_type_hints(kind)
    return [
        (
            item.name,
            item.default not in _ABSENT and not item.metadata.get("later"),
            _check(hints[item.name], item.default == ()),
        )
        for item in fields(kind)
    ]


def _check(hint: Any, may_be_empty: bool) -> Check:
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kinds = [kind for of in options for kind in _JSON.get(get_origin(of) or of, (dict,))]
    kinds += [None] * may_be_empty
    nothing = () if may_be_empty else None
    convert = _conversion(options[0])

    def check(document: Mapping[str, Any], name: str) -> Any:
        value = document.get(name)
        if type(value) not in kinds:
            value = field(document, name, *kinds)
        if value is None:
            return nothing
        return value if convert is None else convert(value, name)

    return check


def _conversion(hint: Any) -> Callable[[Any, str], Any] | None:
    """What makes the value of a nested dataclass or a tuple; None where it stays as it is."""
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value, _: from_object(hint, value)
    if get_origin(hint) is not tuple:
        return None
    of, *more = get_args(hint)
    if isinstance(of, type) and is_dataclass(of):
        return lambda values, _: tuple(from_object(of, value) for value in values)
    count = None if more == [...] else 1 + len(more)
    allowed = {of}

    def items(values: list[Any], name: str) -> tuple[Any, ...]:
        if count not in (None, len(values)) or not allowed.issuperset(map(type, values)):
            what = "texts" if of is str else f"{count or 'some'} integers"
            raise ValueError(f"{name} is {values!r:.60}, expected {what}")
        return tuple(values)

    return items
