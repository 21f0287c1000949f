"""The file of a unit's fields: its bytes, look-ups by key, and what is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from array import array

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentcli.core.errors import StoreError
from latentcli.shards.storage.paths import path_of
from latentcli.shards.store import fields as fields_module
from latentcli.shards.store.fields import FieldsFile, iter_fields, write_fields

ROWS = [
    ("b/1", {"caption": 'a "cat"\non a mat\u2028', "n": [1, {"x": None}]}),
    ("a", {"key": "its own", "caption": "猫"}),
    ("none", {}),
    ("c", {"z": 1.5, "b": True}),
]


def test_the_bytes(tmp_path):
    path = tmp_path / "000000.fields.jsonl"
    digest = write_fields(path, ROWS)
    data = path.read_bytes()
    assert (digest.bytes, digest.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert data.decode().split("\n") == [
        '{"key":"b/1","fields":{"caption":"a \\"cat\\"\\non a mat\u2028","n":[1,{"x":null}]}}',
        '{"key":"a","fields":{"caption":"猫","key":"its own"}}',
        '{"key":"c","fields":{"b":true,"z":1.5}}',
        "",
    ]
    again = [(key, dict(reversed(fields.items()))) for key, fields in ROWS]
    assert write_fields(tmp_path / "again", again) == digest


def test_look_ups(tmp_path):
    path = tmp_path / "fields"
    write_fields(path, ROWS)
    file = FieldsFile(path)
    assert len(file) == 3
    for key, fields in reversed(ROWS):
        assert file.get(key) == fields
    assert file.get("unknown") == {}
    assert list(iter_fields(path)) == [row for row in ROWS if row[1]]
    write_fields(path, [])
    assert len(FieldsFile(path)) == 0 and FieldsFile(path).get("a") == {}


@pytest.mark.parametrize(
    "others",
    [
        [("x", {"n": 1}), *ROWS],  # every line is at another place
        [("a", {"caption": "other"})],  # the file is shorter
        [("c", {"b": False, "z": 2.5}), ("b/1", ROWS[0][1])],
        [("B/1", ROWS[0][1]), *ROWS[1:]],  # another key is at the very place
    ],
)
def test_another_file_in_the_place_of_one_is_read(tmp_path, others):
    path = tmp_path / "fields"
    write_fields(path, ROWS)
    file = FieldsFile(path)
    write_fields(path, others)
    old, new = dict(ROWS), dict(others)
    for key in old.keys() | new.keys():
        assert file.get(key) in (old.get(key, {}), new.get(key, {}))
    write_fields(path, ROWS)
    file = FieldsFile(path)
    write_fields(path, others)
    keys = sorted(old.keys() | new.keys())
    for key, fields in zip(keys, file.many(keys), strict=True):
        assert fields in (old.get(key, {}), new.get(key, {}))
    path.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        file.get(others[0][0])


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(texts, st.dictionaries(texts, texts | st.integers()), max_size=8))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_texts(tmp_path, rows):
    write_fields(tmp_path / "fields", rows.items())
    file = FieldsFile(tmp_path / "fields")
    assert {key: file.get(key) for key in rows} == rows
    assert file.many([*rows, *rows, "no key"]) == [*rows.values(), *rows.values(), {}]
    assert list(iter_fields(tmp_path / "fields")) == [row for row in rows.items() if row[1]]


def test_keys_of_one_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(fields_module, "key_hash", len)
    write_fields(tmp_path / "fields", [("ab", {"n": 1}), ("cd", {"n": 2}), ("e", {"n": 3})])
    file = FieldsFile(tmp_path / "fields")
    keys, expected = ("cd", "ab", "e", "xy"), [{"n": 2}, {"n": 1}, {"n": 3}, {}]
    assert [file.get(key) for key in keys] == expected == file.many(keys)


def test_memory(tmp_path):
    write_fields(tmp_path / "fields", ((f"{i}", {"caption": "x" * 500}) for i in range(2000)))
    file = FieldsFile(tmp_path / "fields")
    arrays = [value for value in vars(file).values() if isinstance(value, array)]
    assert sum(len(own) * own.itemsize for own in arrays) == 20 * 2000
    others = [value for value in vars(file).values() if not isinstance(value, array)]
    assert sum(map(sys.getsizeof, others)) < 1000


@pytest.mark.parametrize(
    ("value", "reason"), [(float("inf"), "inf is not a JSON number"), (b"x", "not a JSON value")]
)
def test_values_that_are_refused(tmp_path, value, reason):
    with pytest.raises(ValueError, match=reason):
        write_fields(tmp_path / "fields", [("a", {"x": value})])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-5] + b"\n",
        lambda data: data.replace(b'{"key":', b'{"kex":', 1),
        lambda data: data.replace(b'"a"', b'"\\ud8"', 1),
        lambda data: data.replace(b'"a"', b'"\xff"', 1),
        lambda data: b"\0" + data,
    ],
)
def test_damage_is_told(tmp_path, damage):
    path = tmp_path / "fields"
    write_fields(path, ROWS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match="fields is damaged"):
        list(iter_fields(path))
    with pytest.raises(StoreError, match="fields is damaged"):
        FieldsFile(path)


def test_damage_after_it_was_opened(tmp_path):
    path = tmp_path / "fields"
    write_fields(path, ROWS)
    file = FieldsFile(path)
    path.write_bytes(b"x" * 300)
    for keys in (["a"], ["none", "c", "a"]):
        with pytest.raises(StoreError, match="is damaged"):
            file.many(keys)
    path.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        file.get("a")
    with pytest.raises(StoreError, match="cannot be read"):
        FieldsFile(path)


def test_a_remote_file(tmp_path):
    url = f"memory://{tmp_path.name}"
    path = path_of(f"{url}/000000.fields.jsonl")
    write_fields(path, ROWS)
    with fsspec.open(f"{url}/000000.fields.jsonl") as file:
        assert json.loads(file.readline())["key"] == "b/1"
    found = FieldsFile(path)
    assert [found.get(key) for key, _ in ROWS] == [fields for _, fields in ROWS]
