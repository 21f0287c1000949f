from __future__ import annotations

import os
import pickle
from collections import deque
from dataclasses import replace

import pytest
from harness.processor import processor_seconds
from hypothesis import given
from hypothesis import strategies as st
from storekit import found

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow
from latentcli.shards.sources.find_inputs import assign_units
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.store.roots import Roots, write_roots


@given(st.lists(st.tuples(st.text(), st.binary(max_size=6)), max_size=12), st.integers(1, 5))
def test_rows_come_back(tmp_path_factory, names, per_unit):
    path = tmp_path_factory.mktemp("list") / "inputs.jsonl"
    rows = [
        InputRow(key, os.fsdecode(source), i // per_unit, i, -1)
        for i, (key, source) in enumerate(names)
    ]
    write_inputs(path, rows)
    inputs = InputList.open(path)
    assert list(inputs) == rows
    assert len(inputs) == len(rows)
    assert inputs.units == -(-len(rows) // per_unit)
    for unit in range(inputs.units):
        of_unit = [row for row in rows if row.unit == unit]
        assert inputs.rows(unit) == of_unit
        assert inputs.count(unit) == len(of_unit)
        assert inputs.rows(unit, 1, 2) == of_unit[1:3]


def test_a_key_cannot_look_like_a_unit(tmp_path):
    rows = [InputRow('", "unit": 7, "x": "', '/"unit": 9', 0)]
    write_inputs(tmp_path / "list", rows)
    assert list(InputList.open(tmp_path / "list")) == rows


def test_units_out_of_order_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="unit 0 follows one of unit 1"):
        write_inputs(tmp_path / "list", [InputRow("a", "/a", 1), InputRow("b", "/b", 0)])
    assert list(tmp_path.iterdir()) == []


def test_units_may_have_no_inputs(tmp_path):
    rows = [InputRow("a", "/a", 1), InputRow("b", "/b", 1), InputRow("c", "/c", 4)]
    write_inputs(tmp_path / "list", rows)
    inputs = InputList.open(tmp_path / "list")
    assert list(inputs) == rows and len(inputs) == 3
    assert (inputs.units, inputs.numbers) == (5, [1, 4])
    assert [inputs.count(unit) for unit in range(5)] == [0, 2, 0, 0, 1]
    assert inputs.rows(0) == inputs.rows(3) == []


units_of = st.lists(st.integers(0, 9), max_size=12).map(sorted)


@given(units_of, st.sampled_from([Roots(), Roots(("/in", "s3://b"))]))
def test_any_units_may_have_lost_all_inputs(tmp_path_factory, units, roots):
    store = tmp_path_factory.mktemp("store")
    write_roots(store, roots)
    rows = [
        InputRow(f"k{i}", f"{'/in' if i % 2 else 's3://b'}/{i}", unit, i, -1, "ab" * (i % 3), i % 2)
        for i, unit in enumerate(units)
    ]
    rows = [replace(row, sha256=row.sha256 or None) for row in rows]
    write_inputs(store / "inputs.jsonl", rows, roots)
    inputs = InputList.open(store / "inputs.jsonl")
    assert list(inputs) == rows and len(inputs) == len(rows)
    assert inputs.units == (units[-1] + 1 if units else 0)
    assert inputs.numbers == sorted(set(units))
    for unit in range(inputs.units):
        of_unit = [row for row in rows if row.unit == unit]
        assert inputs.rows(unit) == of_unit and inputs.count(unit) == len(of_unit)
        assert inputs.rows(unit, 1, 1) == of_unit[1:2]
    text = (store / "inputs.jsonl").read_text()
    assert ("/in" in text or "s3://" in text) == bool(rows and not roots.paths)
    assert pickle.loads(pickle.dumps(inputs)).numbers == inputs.numbers


GOOD = b'{"key": "a", "source": "/a", "unit": 0, "size": 1, "mtime_ns": 2}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        GOOD[:-1],
        GOOD + GOOD[:20],
        GOOD.replace(b'"unit": 0', b'"unit": 10000000'),
        GOOD.replace(b'"unit": 0', b'"unit": 2') + GOOD,
        GOOD[:-2] + b', "stamp": "x"}\n',
        GOOD.replace(b'"unit": 0', b'"unit": -1'),
        GOOD.replace(b'"key": "a", ', b""),
        GOOD.replace(b'"a"', b"5"),
        GOOD.replace(b'"/a"', b"/a"),
        GOOD.replace(b'"size": 1', b'"size": true'),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, content):
    path = tmp_path / "inputs.jsonl"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"inputs\.jsonl is damaged"):
        list(InputList.open(path))


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        InputList.open(tmp_path / "inputs.jsonl")


def test_a_long_list_opens_fast_and_travels_light(tmp_path):
    path = tmp_path / "inputs.jsonl"
    write_inputs(path, assign_units(found(100_000), 1000))
    inputs = InputList.open(path)
    opening = processor_seconds(lambda: InputList.open(path))
    assert opening < processor_seconds(lambda: deque(inputs, 0)) / 3  # which makes every row
    sent = pickle.dumps(inputs)
    assert len(sent) < 10_000
    assert pickle.loads(sent).rows(50, 3, 1) == inputs.rows(50)[3:4]
