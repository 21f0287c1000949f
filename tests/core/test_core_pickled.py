"""Dataclasses that are pickled and changed by the order of their fields."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest

from latentcli.core.pickled import changed, of_fields
from latentcli.core.types import Row

ROW = Row("a", "/a.jpg", "ok", original_size=(4, 3), notes=("n",), sha256="0" * 64, field="jpg")


@pytest.mark.parametrize("same", [pickle.loads(pickle.dumps(ROW)), changed(ROW, "field", "jpg")])
def test_a_row_stays_what_it_is(same):
    assert type(same) is Row
    assert (same, repr(same), hash(same)) == (ROW, repr(ROW), hash(ROW))
    with pytest.raises(FrozenInstanceError):
        same.key = "b"


@pytest.mark.parametrize("name", [field.name for field in fields(Row)])
def test_one_field_is_changed_as_replace_does_it(name):
    assert changed(ROW, name, "x") == replace(ROW, **{name: "x"})
    assert changed(ROW, name, "x") != ROW


def test_an_unknown_field_is_an_error():
    with pytest.raises(ValueError, match="not in tuple"):
        changed(ROW, "colour", "x")


def test_what_checks_itself_is_not_made_without_its_check():
    @dataclass(frozen=True, slots=True)
    class Checked:
        number: int

        def __post_init__(self) -> None:
            raise ValueError

    with pytest.raises(TypeError, match="Checked has a __post_init__"):
        of_fields(Checked, 1)
