"""What a reader says of a store that lacks units, or has damaged ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import storekit
from storekit import run_job

from latentcli.core.errors import StoreError, UsageError
from latentcli.shards.layout import record_path, shard_path
from latentcli.shards.store.commit import read_record, replace_fields
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.store.manifest import read_manifest, write_manifest
from latentcli.shards.store.reader import StoreReader
from latentcli.shards.store.roots import NO_ROOTS


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """10 inputs in units of 4, 4 and 2; img/0003 failed."""
    folder = tmp_path_factory.mktemp("store") / "store"
    run_job(folder)
    return folder


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


def keys(reader: StoreReader) -> list[str]:
    """What can be read; the lengths and look-ups must agree."""
    found = list(reader)
    assert len(reader) == len(found) == reader.presence.encoded
    for key in found:
        assert key in reader
        assert (reader.tensors(key)[f"{key}/latent"] == storekit.latent(key)).all()
    return found


def test_a_whole_store_is_known_by_one_listing(whole, monkeypatch):
    def read_record(*_: object) -> None:
        raise AssertionError("a record was read")

    monkeypatch.setattr("latentcli.shards.store.presence.read_record", read_record)
    reader = StoreReader(whole)
    assert reader.presence.is_whole and reader.presence.describe() == ""
    assert len(reader) == 9 and list(reader.units) == [0, 1, 2]


def test_a_unit_that_is_not_there(store):
    record_path(store, 1).unlink()
    shard_path(store, 1).unlink()
    reader = StoreReader(store)
    there = reader.presence
    assert keys(reader) == ["img/0000", "img/0001", "img/0002", "img/0008", "img/0009"]
    assert (list(there.left), there.missing, there.unreadable) == ([1], 4, 0)
    assert not there.is_whole and "unit 1: not encoded" in there.describe()
    with pytest.raises(StoreError, match=r"no key 'img/0005', but it is not complete .*unit 1"):
        reader.tensors("img/0005")


def test_a_shard_that_is_gone_and_one_that_is_cut(store):
    shard_path(store, 0).unlink()
    cut = shard_path(store, 1)
    cut.write_bytes(cut.read_bytes()[:-10])
    reader = StoreReader(store)
    there = reader.presence
    assert keys(reader) == ["img/0008", "img/0009"]
    assert (list(there.recorded), there.unreadable, there.missing) == ([0, 1], 7, 0)
    assert list(there.damaged) == [0, 1] and "000000.safetensors is missing" in there.damaged[0]
    assert "000001.safetensors is damaged: it has" in there.damaged[1]
    assert "img/0001" not in reader and reader.metadata["unit"] == "2"
    assert [row.key for row in reader.unit_rows(1)] == [f"img/{i:04d}" for i in range(4, 8)]


@pytest.mark.parametrize("first", ["list", "look"])
def test_a_record_that_is_no_record(store, first):
    """Its size is not in the manifest, so it is known of once the records have been read."""
    record_path(store, 2).write_text("{")
    reader = StoreReader(store)
    assert len(reader) == 9
    there = reader.look_closely() if first == "look" else (list(reader), reader.presence)[1]
    assert (list(there.units), there.missing, list(there.left)) == ([0, 1], 2, [])
    assert "000002.json is damaged" in there.damaged[2] and not there.recorded
    assert len(keys(reader)) == 7
    with pytest.raises(StoreError, match=r"no key 'img/0008', but .*000002\.json"):
        reader.tensors("img/0008")


def test_two_records_that_are_none(store):
    for unit in (0, 2):
        record_path(store, unit).write_text("{}")
    assert keys(StoreReader(store)) == [f"img/{i:04d}" for i in range(4, 8)]


def test_a_record_that_is_damaged_while_it_is_read(store):
    """What was found sound before is not passed over: nobody would hear of it."""
    reader = StoreReader(store)
    assert reader.look_closely().is_whole
    record_path(store, 2).write_text("{")
    with pytest.raises(StoreError, match=r"000002\.json"):
        list(reader)


def test_many_damaged_units_are_told_in_a_few_words(store, tmp_path):
    run_job(tmp_path / "many", count=12, per_unit=1)
    for unit in (0, 1, 2, 4, 5):
        shard_path(tmp_path / "many", unit).unlink()
    for unit in (6, 7, 8, 9):
        record_path(tmp_path / "many", unit).unlink()
    said = StoreReader(tmp_path / "many").presence.describe()
    assert said.count(" is missing;") == 3 and "2 more damaged units" in said
    assert said.endswith("units 6, 7, 8 and 1 more: not encoded, or the files are gone")


def test_a_running_store_misses_what_is_listed(store):
    record_path(store, 1).unlink()
    storekit.replace_status(store)
    there = StoreReader(store).presence
    assert (list(there.left), there.missing, there.is_whole) == ([1], 4, False)
    assert there.describe().endswith("unit 1: not encoded, or the files are gone")
    before = read_manifest(store)
    write_manifest(store, replace(before, totals=replace(before.totals, shards=1)))
    assert StoreReader(store).presence.describe() == "unit 1: not encoded yet"
    storekit.run_job(store)
    storekit.replace_status(store)
    assert StoreReader(store).presence.is_whole


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_without_its_input_list(store, damage):
    """A finished store counts what belongs to it; one that is not finished cannot know it."""
    (store / "inputs.jsonl").unlink()
    if damage == "damaged":
        (store / "inputs.jsonl").write_text("garbage\n")
    assert StoreReader(store).presence.is_whole
    record_path(store, 1).unlink()
    there = StoreReader(store).presence
    assert (there.missing, there.left, there.is_known) == (4, [], True)
    assert "no commit record" in there.describe()
    storekit.replace_status(store)
    there = StoreReader(store).presence
    assert not there.is_whole and "without its inputs.jsonl" in there.describe()
    assert len(keys(StoreReader(store))) == 5


def test_units_that_have_no_inputs_any_more_are_not_missing(store):
    """Sync may take all inputs of a unit away; its number stays free."""
    record_path(store, 1).unlink()
    shard_path(store, 1).unlink()
    totals = {"inputs": 6, "encoded": 5, "failed": 1, "shards": 2}
    manifest = json.loads((store / "manifest.json").read_text())
    size = sum(shard_path(store, unit).stat().st_size for unit in (0, 2))
    (store / "manifest.json").write_text(
        json.dumps(manifest | {"totals": totals | {"bytes": size}})
    )
    assert StoreReader(store).presence.is_whole
    storekit.replace_status(store)
    inputs = InputList.open(store / "inputs.jsonl")
    write_inputs(store / "inputs.jsonl", [row for row in inputs if row.unit != 1])
    assert StoreReader(store).presence.is_whole


def captioned(store, unit: int):
    """Gives the samples of a unit captions; the file that they are in."""
    fields = {f"img/{i:04d}": {"caption": f"number {i}"} for i in range(4, 8)}
    written = replace_fields(store, read_record(store, unit), fields, NO_ROOTS)
    return store / "shards" / written.fields.file


def test_captions_that_are_gone_take_no_latents_away(store):
    path = captioned(store, 1)
    assert StoreReader(store).look_closely().is_whole
    path.unlink()
    reader = StoreReader(store)
    assert len(keys(reader)) == 9 and reader.misses_fields()
    there = reader.look_closely()
    assert (there.missing, there.unreadable, list(there.units)) == (0, 0, [0, 1, 2])
    assert not there.is_whole and path.name in there.without_fields[1]
    with pytest.raises(StoreError, match=path.name):
        reader.recorded_fields("img/0005")


def test_captions_are_checked_with_their_shard(store):
    path = captioned(store, 1)
    path.write_bytes(path.read_bytes().replace(b"number 5", b"number 6"))
    assert StoreReader(store).recorded_fields("img/0005") == {"caption": "number 6"}
    reader = StoreReader(store, check="open")
    with pytest.raises(StoreError, match=f"{path.name} is not what was written"):
        reader.recorded_fields("img/0005")


def flip(store, unit: int) -> None:
    """Changes a byte of a shard's tensors and leaves its size."""
    path = shard_path(store, unit)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_digests_are_checked_where_that_is_asked_for(store):
    flip(store, 1)
    assert StoreReader(store).tensors("img/0005")  # read without a word
    reader = StoreReader(store, check="open")
    assert reader.tensors("img/0001") and reader.tensors("img/0008")
    with pytest.raises(StoreError) as told:
        reader.tensors("img/0005")
    assert "000001.safetensors is not what was written" in str(told.value)
    assert f"verify --repair {store}" in str(told.value)
    with pytest.raises(StoreError, match="not what was written"):
        reader.tensors("img/0006")  # and again, as long as it is so


def test_a_digest_is_checked_once_in_a_process(store, monkeypatch):
    from latentcli.shards.store import open_shards
    from latentcli.shards.store import reader as module

    seen: list[str] = []
    real = module.difference

    def difference(path, *recorded):
        seen.append(path.name)
        return real(path, *recorded)

    monkeypatch.setattr(module, "difference", difference)
    monkeypatch.setattr(open_shards, "limit", lambda: 1)
    reader = StoreReader(store, check="open")
    for _ in range(3):
        for key in reader:
            reader.tensors(key)
    assert seen == [f"00000{unit}.safetensors" for unit in range(3)]
    monkeypatch.setattr("os.getpid", lambda: -1)  # as in the child of a fork
    reader.tensors("img/0005")
    assert seen[3:] == ["000001.safetensors"]


def test_wrong_checks_are_refused(store):
    with pytest.raises(UsageError, match="check is 'always'; allowed are none and open"):
        StoreReader(store, check="always")
    with pytest.raises(UsageError, match="single shard without one"):
        StoreReader(shard_path(store, 1), check="open")


def test_where_every_shard_is_damaged(store):
    for unit in range(3):
        path = shard_path(store, unit)
        path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(StoreError, match=r"000000\.safetensors is damaged"):
        StoreReader(store).metadata  # noqa: B018
