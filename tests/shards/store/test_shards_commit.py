"""Units that take the place of others: their files' names, and what a killed job left of them."""

from __future__ import annotations

import errno
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from rewritekit import NEW, OLD, bring_to, captions, check_seen, latents, seen_in
from storekit import tree

from latentcli.core.types import InputRow
from latentcli.shards.layout import (
    INPUTS,
    SHARDS,
    record_path,
    second_name,
    second_units,
    shard_name,
)
from latentcli.shards.store.commit import read_record, replace_fields
from latentcli.shards.store.input_list import write_inputs
from latentcli.shards.store.roots import NO_ROOTS, Roots
from latentcli.shards.store.settle import delete_unit, mark_units, settle


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    store = tmp_path_factory.mktemp("old") / "store"
    bring_to(store, OLD)
    return store


@pytest.fixture
def store(old, tmp_path):
    return shutil.copytree(old, tmp_path / "store")


def names(store):
    return sorted(path.name for path in (store / SHARDS).iterdir())


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
def test_what_was_written_anew_is_what_is_written_at_first(tmp_path, form):
    bring_to(tmp_path / "old", OLD, form)
    check_seen(tmp_path / "old", OLD)
    bring_to(tmp_path / "old", NEW, form)
    check_seen(tmp_path / "old", OLD)
    bring_to(tmp_path / "new", NEW, form)
    assert tree(tmp_path / "old") == tree(tmp_path / "new")
    assert second_units(names(tmp_path / "old")) == []


def test_a_unit_that_is_as_it_should_be_is_not_touched(store):
    with ExitStack() as held:
        # A filesystem gives the number of a file again once nobody has it open.
        before = {path: held.enter_context(path.open("rb")) for path in (store / SHARDS).iterdir()}
        bring_to(store, {**OLD, 1: NEW[1]})
        changed = {
            path.name
            for path, old in before.items()
            if not path.samefile(f"/proc/self/fd/{old.fileno()}")
        }
    assert changed == {"000001.json", "000001.fields.jsonl"}


def test_an_old_unit_is_whole_until_the_new_record_is(store, monkeypatch):
    """The new shard has the second name, and the old record stands."""

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("latentcli.shards.store.commit.write_record", fail)
    with pytest.raises(KeyboardInterrupt):
        bring_to(store, NEW)
    monkeypatch.undo()
    assert {"000000.safetensors", "000000.1.safetensors"} <= set(names(store))
    assert seen_in(store, read_record(store, 0)) == (latents(OLD[0]), captions(OLD[0]))
    settle(store, NO_ROOTS, ".safetensors")
    assert tree(store)["shards/000000.safetensors"] is not None
    assert second_units(names(store)) == []


def test_a_damaged_record_costs_what_was_about_to_be_named(store):
    shutil.copy(store / SHARDS / shard_name(0), store / SHARDS / second_name(0, ".safetensors"))
    shutil.copy(store / SHARDS / shard_name(1), store / SHARDS / second_name(1, ".safetensors"))
    record_path(store, 0).write_text("{")
    record_path(store, 1).unlink()
    left = [name for name in names(store) if ".1." not in name]
    settle(store, NO_ROOTS, ".safetensors")
    assert names(store) == left


def test_settling_what_is_settled_changes_nothing(store):
    before = {path: path.stat().st_ino for path in (store / SHARDS).iterdir()}
    settle(store, NO_ROOTS, ".safetensors")
    assert {path: path.stat().st_ino for path in (store / SHARDS).iterdir()} == before


def test_a_record_keeps_its_sources_whoever_writes_it_anew(store):
    roots = Roots(("/in",))
    record = read_record(store, 1)
    written = replace_fields(store, record, captions(NEW[1]), roots)
    assert '"source": "c"' in record_path(store, 1).read_text()
    assert read_record(store, 1, roots) == written
    assert [row.source for row in written.rows] == ["/in/c", "/in/d"]


def test_a_unit_is_deleted_with_all_its_files(store):
    delete_unit(store, 0, ".safetensors")
    delete_unit(store, 0, ".safetensors")
    assert names(store) == [name for name in names(store) if not name.startswith("000000")]
    assert "000001.json" in names(store)


@pytest.mark.parametrize("listed", [(0, 1), (1,), None], ids=["before", "after", "no list"])
def test_a_marked_unit_goes_where_the_list_has_lost_it(store, listed):
    before = names(store)
    if listed is not None:
        write_inputs(store / INPUTS, [InputRow(str(unit), "/in", unit) for unit in listed])
    mark_units(store, [0])
    record_path(store, 0).unlink() if listed == (1,) else None
    settle(store, NO_ROOTS, ".safetensors")
    gone = "000000" if listed == (1,) else "none"
    assert names(store) == [name for name in before if not name.startswith(gone)]


def test_a_record_that_is_out_of_reach_may_name_what_is_there(store, monkeypatch):
    """A network file system that does not answer for a moment must not cost a shard."""
    shutil.copy(store / SHARDS / shard_name(0), store / SHARDS / second_name(0, ".safetensors"))
    before, whole = names(store), Path.read_bytes

    def read_bytes(path):
        if path == record_path(store, 0):
            raise TimeoutError(errno.ETIMEDOUT, "timed out")
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    settle(store, NO_ROOTS, ".safetensors")
    assert names(store) == before


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
def test_fields_of_what_was_there_before_do_not_stay(tmp_path, form):
    bring_to(tmp_path / "store", OLD, form)
    record_path(tmp_path / "store", 3).unlink()
    bring_to(tmp_path / "store", {**OLD, 3: NEW[3]}, form)
    assert "000003.fields.jsonl" not in names(tmp_path / "store")
