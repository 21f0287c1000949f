"""Pictures, keys and captions out of the cells of a table."""

from __future__ import annotations

import base64
import datetime
import decimal
import json

import pytest

from latentcli.core.errors import SampleError
from latentcli.shards.tables.cells import key_in, members_of, picture_in

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(60))
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (PNG, PNG),
        ({"bytes": PNG, "path": "a.png"}, PNG),
        ({"bytes": None, "path": "a.png"}, "a.png"),
        ({"path": "a.png"}, "a.png"),
        ({"bytes": TEXT}, PNG),
        ("sub/a.png", "sub/a.png"),
        (TEXT, PNG),
        ("\n".join((TEXT[:40], TEXT[40:])), PNG),
        (f"data:image/png;base64,{TEXT}", PNG),
        # The name of a file may be made of the letters of base64.
        ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" * 2,) * 2,
    ],
)
def test_a_picture_or_its_path(value, expected):
    assert picture_in(value, "image") == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, r"its column image is empty \(null\)"),
        ("", "is empty"),
        ({"bytes": None, "path": None}, "is empty"),
        ({}, "is empty"),
        (5, "holds int, and not bytes or a path"),
        (["a.png"], "holds list"),
        ("data:image/png;base64,x!", "not valid base64"),
        ("a/" * 5000, "a text of 10,000 characters"),
    ],
)
def test_a_cell_without_a_picture(value, reason):
    with pytest.raises(SampleError, match=reason) as caught:
        picture_in(value, "image")
    assert caught.value.stage == "read"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"__key__": "a/b", "id": "no"}, "a/b"),
        ({"__key__": None, "key": "", "id": 17}, "17"),
        ({"id": "photo.2021.01"}, "photo.2021.01"),
        ({"file_name": "cats/1.2.jpg"}, "cats/1.2"),
        ({"file_name": "a.b/c"}, "a.b/c"),
        ({"file_name": ".jpg"}, ".jpg"),
        ({"id": 1.5, "key": True}, "00000012"),
        ({}, "00000012"),
    ],
)
def test_the_key_of_a_row(values, expected):
    assert key_in(values, 12) == expected


def test_what_a_row_holds_beside_its_picture():
    values = {
        "image": {"bytes": PNG, "path": None},
        "prompt": "later",
        "text": "a cat",
        "thumb": b"bytes",
        "label": 3,
        "score": float("nan"),
        "tags": ["a", "b"],
        "box": {"x": 1, "mask": b"bytes", "at": datetime.date(2020, 1, 2)},
        "price": decimal.Decimal("1.50"),
        "none": None,
    }
    caption, document = members_of(values, "image")
    assert (caption.field, caption.data) == ("txt", b"a cat")
    assert document.field == "json"
    assert json.loads(document.data) == {
        "prompt": "later",
        "text": "a cat",
        "label": 3,
        "score": None,
        "tags": ["a", "b"],
        "box": {"x": 1, "at": "2020-01-02"},
        "price": "1.50",
        "none": None,
    }


def test_captions_are_passed_on_byte_for_byte():
    latin = "caf\udce9"  # as it comes out of a text column that is no UTF-8
    caption, document = members_of({"caption": latin}, "image")
    assert caption.data == b"caf\xe9"
    assert json.loads(document.data) == {"caption": "caf\ufffd"}
    (caption, _) = members_of({"caption": "half \ud800"}, "image")
    assert caption.data == b"half ?"


def test_a_row_of_a_picture_alone_has_nothing_beside_it():
    assert members_of({"image": PNG}, "image") == ()
    (document,) = members_of({"image": PNG, "text": None}, "image")
    assert json.loads(document.data) == {"text": None}
    # A column that is the picture is no caption.
    (document,) = members_of({"text": "a.png", "n": 1}, "text")
    assert json.loads(document.data) == {"n": 1}
