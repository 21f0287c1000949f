"""Dataclasses that are pickled and changed by the order of their fields."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import pytest

from latentcli.core.pickled import changed
from latentcli.core.types import Row

ROW = Row("a", "/a.jpg", "ok", original_size=(4, 3), notes=("n",), sha256="0" * 64, field="jpg")


def test_a_row_stays_what_it_is():
    assert pickle.loads(pickle.dumps(ROW)) == ROW


@pytest.mark.parametrize("name", [field.name for field in fields(Row)])
def test_one_field_is_changed_as_replace_does_it(name):
    assert changed(ROW, name, "x") == replace(ROW, **{name: "x"})
    assert changed(ROW, name, "x") != ROW


def test_an_unknown_field_is_an_error():
    with pytest.raises(ValueError, match="not in tuple"):
        changed(ROW, "colour", "x")
