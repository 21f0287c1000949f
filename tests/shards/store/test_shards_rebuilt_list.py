"""A store that has lost its input list gets it again from its commit records."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import storekit
from storekit import run_job

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow, Row
from latentcli.shards.layout import INPUTS, record_path
from latentcli.shards.store.commit import CommitRecord, read_record, write_record
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import read_manifest
from latentcli.shards.store.rebuilt_list import (
    is_list_lost,
    key_of_tar,
    rebuild_inputs,
    rows_of_records,
)
from latentcli.shards.store.roots import NO_ROOTS, Roots
from latentcli.shards.store.unit_state import DONE, unit_states


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "store"
    run_job(folder)
    return folder


@pytest.fixture
def store(whole, tmp_path):
    """10 inputs in units of 4, whose list is gone."""
    copy = shutil.copytree(whole, tmp_path / "store")
    (copy / INPUTS).unlink()
    return copy


def names(rows) -> list[tuple[str, str, int]]:
    return [(row.key, row.source, row.unit) for row in rows]


def test_the_list_names_what_it_named(whole, store):
    assert is_list_lost(store) and not is_list_lost(whole)
    rebuilt = rebuild_inputs(store, NO_ROOTS)
    assert (rebuilt.units, rebuilt.inputs) == (3, 10)
    assert "the commit records (3), which name its inputs (10)" in rebuilt.note
    again, before = InputList.open(store / INPUTS), InputList.open(whole / INPUTS)
    assert names(again) == names(before) and not is_list_lost(store)
    assert {(row.size, row.mtime_ns) for row in again} == {(-1, -1)}


def test_nothing_is_done_again(store):
    rebuild_inputs(store, NO_ROOTS)
    inputs = InputList.open(store / INPUTS)
    spec = read_manifest(store).spec_hash
    assert {state.state for state in unit_states(store, spec, inputs)} == {DONE}
    before = storekit.tree(store / "shards")
    run_job(store)
    assert storekit.tree(store / "shards") == before


def test_units_without_a_record_leave_a_gap(store):
    record_path(store, 1).unlink()
    assert rebuild_inputs(store, NO_ROOTS).units == 2
    assert InputList.open(store / INPUTS).numbers == [0, 2]


def test_a_list_beside_the_store(store, tmp_path):
    """For a plan, which writes nothing to the store."""
    rebuild_inputs(store, NO_ROOTS, tmp_path / "list.jsonl")
    assert len(InputList.open(tmp_path / "list.jsonl", NO_ROOTS)) == 10 and is_list_lost(store)


def test_sources_are_whole_in_memory_and_relative_in_the_file(store):
    roots = Roots(paths=("/data",))
    for unit in range(3):
        write_record(store, read_record(store, unit), roots)
    assert '"source": "img/0000.jpg"' in record_path(store, 0).read_text()
    rebuild_inputs(store, roots)
    assert '"source": "img/0000.jpg"' in (store / INPUTS).read_text()
    assert next(iter(InputList.open(store / INPUTS, roots))).source == "/data/img/0000.jpg"


def test_a_damaged_record_is_refused(store):
    record_path(store, 1).write_text("{")
    with pytest.raises(StoreError, match=r"000001\.json is damaged.*Delete that record"):
        rebuild_inputs(store, NO_ROOTS)
    assert not (store / INPUTS).exists()
    record_path(store, 1).unlink()
    assert rebuild_inputs(store, NO_ROOTS).units == 2


def test_a_store_without_records_has_lost_nothing(tmp_path):
    assert not is_list_lost(tmp_path)


RECORD = CommitRecord(7, "hash", "000007.tar", 1, "0", 1, 1, 0, None, (Row("x", "", "ok"),))


@pytest.mark.parametrize(
    ("source", "key", "sample", "expected"),
    [
        ("/data/a/000.tar", "a/000", "a/000/s1", "a/000"),
        ("/data/a/000.tar", None, "a/000/s1", "a/000"),
        ("/data/a/000.tar", None, "000/000/s1", "000"),
        ("/data/a/000.tar.gz", None, "000/s1", "000"),
        ("-", None, "s1", "stdin/000007"),
    ],
)
def test_units_of_tars(source, key, sample, expected):
    record = replace(RECORD, source=source, key=key, rows=(Row(sample, f"{source}::s1", "ok"),))
    assert key_of_tar(record) == expected


def test_the_row_of_a_tar(store):
    record = replace(read_record(store, 0), source="/data/000.tar", key="000")
    write_record(store, record, NO_ROOTS)
    assert next(rows_of_records(store, NO_ROOTS)) == InputRow("000", "/data/000.tar", 0)
