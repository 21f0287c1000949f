"""New, failed and changed inputs of a store that is there already."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from functools import partial

import fsspec
import pytest
import torch
from jobkit import (
    encode,
    interrupt_after,
    latents_of,
    rows_of,
    toy_pictures,
    tree,
)
from tarjobkit import make_tar, members

from latentcli.cli.sync import summary
from latentcli.core.errors import Interrupted, StoreError
from latentcli.jobs.config import SyncJob
from latentcli.jobs.encode.sync import run_sync
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.latent_store import open_store
from latentcli.shards.store.verify import verify_shards


def test_new_inputs_are_appended(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 9), tmp_path / "store"
    encode(pictures, store, model)
    before = {path: path.stat().st_mtime_ns for path in (store / "shards").iterdir()}
    first = (store / "inputs.jsonl").read_bytes()
    shutil.copy(pictures / "000" / "000001.jpg", pictures / "000" / "000000b.jpg")
    toy_pictures(pictures / "later", 4)
    notes: list[str] = []
    found = encode(pictures, store, model, Reporter(note=notes.append))
    assert (found["encoded"], found["skipped"], found["shards"]) == (5, 9, 5)
    assert any("made: 5; appended" in note for note in notes)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (store / "inputs.jsonl").read_bytes().startswith(first)
    assert [row["key"] for row in rows_of(store)[9:]] == [
        "000/000000b",
        *(f"later/000/{i:06d}" for i in range(4)),
    ]
    assert list(verify_shards(store)) == []


def test_a_lost_list_is_made_again_and_nothing_is_encoded_again(model, tmp_path):
    """Units 0 and 2 keep their latents; unit 1 has no record, so its inputs count as new."""
    pictures, store = toy_pictures(tmp_path / "pictures", 10), tmp_path / "store"
    encode(pictures, store, model)
    for name in ("inputs.jsonl", "shards/000001.json", "shards/000001.safetensors"):
        (store / name).unlink()
    before = latents_of(store)
    with pytest.raises(StoreError, match=r"no inputs\.jsonl, .* rebuilds the list"):
        encode(pictures, store, model, dry_run=True)
    notes: list[str] = []
    found = encode(pictures, store, model, Reporter(note=notes.append))
    assert (found["encoded"], found["skipped"], found["failed"]) == (4, 6, 0)
    assert any(
        "rebuilt from the commit records (2), which name its inputs (6)" in note for note in notes
    )
    after = latents_of(store)
    assert len(after) == 10 and all(torch.equal(after[name], before[name]) for name in before)
    assert list(verify_shards(store)) == []
    notes.clear()
    assert encode(pictures, store, model, Reporter(note=notes.append))["encoded"] == 0
    assert not notes


def test_a_lost_list_of_tars(model, tmp_path):
    (tmp_path / "tars").mkdir()
    for number in range(2):
        make_tar(tmp_path / "tars" / f"{number}.tar", members(3, first=3 * number))
    store = tmp_path / "store"
    encode(tmp_path / "tars", store, model, samples_per_shard=None)
    before, listed = tree(store), (store / "inputs.jsonl").read_bytes()
    (store / "inputs.jsonl").unlink()
    assert encode(tmp_path / "tars", store, model, samples_per_shard=None)["encoded"] == 0
    assert tree(store) == before and (store / "inputs.jsonl").read_bytes() == listed


def test_an_interrupted_append_is_not_called_complete(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 8), tmp_path / "store"
    encode(pictures, store, model)
    toy_pictures(pictures / "later", 12)
    with pytest.raises(Interrupted):
        encode(pictures, store, model, interrupt_after(3))
    opened = open_store(store)
    assert len(opened) == len(list(opened))
    assert json.loads((store / "manifest.json").read_text())["status"] == "running"
    encode(pictures, store, model)
    assert len(open_store(store)) == 20


def test_failed_inputs_are_tried_again_where_asked(mixed, model, tmp_path):
    pictures, store = tmp_path / "pictures", tmp_path / "store"
    shutil.copytree(mixed, pictures)
    encode(pictures, store, model)
    before = {path: path.stat().st_ino for path in (store / "shards").iterdir()}
    shutil.copy(pictures / "000" / "000009.jpg", pictures / "000" / "000010.jpg")
    found = encode(pictures, store, model, retry="none")
    assert (found["encoded"], found["failed"], found["changed"]) == (0, 2, 1)
    os.utime(pictures / "000" / "000010.jpg", ns=(7, 7))
    found = encode(pictures, store, model, retry="failed")
    assert (found["encoded"], found["failed"]) == (1, 1)
    assert "000/000010/latent" in latents_of(store)
    assert list(verify_shards(store)) == []
    after = {path: path.stat().st_ino for path in (store / "shards").iterdir()}
    assert {path.stem for path in after if after[path] != before[path]} == {"000002", "000005"}
    # The list has the repaired file as it is now, so nobody is told that it changed.
    notes: list[str] = []
    assert encode(pictures, store, model, Reporter(note=notes.append))["changed"] == 0
    assert notes == []


def test_inputs_that_changed_before_their_turn_are_listed_as_they_were_encoded(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 12), tmp_path / "store"
    encode(pictures, store, model)
    (store / "shards" / "000001.json").unlink()
    shutil.copy(pictures / "000" / "000000.jpg", pictures / "000" / "000005.jpg")
    notes: list[str] = []
    found = encode(pictures, store, model, Reporter(note=notes.append))
    assert (found["encoded"], found["changed"], notes) == (4, 0, [])
    encode(pictures, tmp_path / "fresh", model)
    assert tree(store) == tree(tmp_path / "fresh")


def latents(store):
    opened = open_store(store)
    return {key: opened[key] for key in opened}


@pytest.mark.parametrize("whole", [False, True])
def test_a_changed_input_is_encoded_again(model, tmp_path, whole):
    pictures, store = toy_pictures(tmp_path / "pictures", 12), tmp_path / "store"
    encode(pictures, store, model)
    before = tree(store)
    shutil.copy(pictures / "000" / "000000.jpg", pictures / "000" / "000005.jpg")
    notes: list[str] = []
    encode(pictures, store, model, Reporter(note=notes.append), retry="none")
    assert any("000005.jpg" in note and "--retry none" in note for note in notes)
    assert tree(store) == before
    found = encode(pictures, store, model, whole_shards=whole)
    assert found["encoded"] == (4 if whole else 1) and found["skipped"] == 12 - found["encoded"]
    latents = latents_of(store)
    assert torch.equal(latents["000/000005/latent"], latents["000/000000/latent"])
    changed = {name for name, data in tree(store).items() if data != before[name]}
    assert changed == {
        "inputs.jsonl",
        "manifest.json",
        "shards/000001.json",
        "shards/000001.safetensors",
    }
    encode(pictures, tmp_path / "fresh", model)
    assert tree(store) == tree(tmp_path / "fresh")
    assert encode(pictures, store, model)["encoded"] == 0


@pytest.mark.parametrize("shard_format", ["safetensors", "webdataset"])
def test_a_renamed_input_keeps_its_latent(model, tmp_path, shard_format):
    pictures, store = toy_pictures(tmp_path / "pictures", 12), tmp_path / "store"
    encode(pictures, store, model, shard_format=shard_format)
    before = latents(store)
    (pictures / "000" / "000005.jpg").rename(pictures / "cat.jpg")
    notes: list[str] = []
    found = encode(pictures, store, model, Reporter(note=notes.append), shard_format=shard_format)
    assert (found["encoded"], found["renamed"], found["gone"]) == (0, 1, 0)
    assert any("another name" in note and "cat" in note for note in notes)
    before["cat"] = before.pop("000/000005")
    after = latents(store)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in after)
    assert list(verify_shards(store)) == []
    found = encode(pictures, store, model, shard_format=shard_format)
    assert (found["encoded"], found["renamed"]) == (0, 0)


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
def test_a_renamed_tar_keeps_its_latents(model, tmp_path, form):
    tar = make_tar(tmp_path / "tars" / "a.tar", members(5, bad_every=3))
    make_tar(tmp_path / "tars" / "b.tar", members(2))
    store = tmp_path / "store"
    options = {"samples_per_shard": None, "shard_format": form}
    run = partial(encode, tmp_path / "tars", store, model, **options)
    run()
    opened = open_store(store)
    before = {key: opened[key] for key in opened}
    (tmp_path / "tars" / "later").mkdir()
    tar.rename(tmp_path / "tars" / "later" / "c.tar")
    assert (found := run())["encoded"] == 0 and found["renamed"] == 1
    opened = open_store(store)
    assert {key.replace("later/c/", "a/") for key in opened} == before.keys()
    for key in opened:
        assert torch.equal(opened[key], before[key.replace("later/c/", "a/")])
    assert list(verify_shards(store)) == [] and run()["encoded"] == 0


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
def test_units_of_a_remote_store_are_written_anew_as_those_of_a_folder(model, tmp_path, form):
    pictures, name = toy_pictures(tmp_path / "pictures", 12), uuid.uuid4().hex
    (pictures / "000" / "000009.txt").write_text("a caption")
    stores = [tmp_path / "store", f"memory://{name}/store"]
    files = fsspec.filesystem("memory")
    for round in range(2):
        for store in stores:
            encode(pictures, store, model, shard_format=form)
        remote = {p.removeprefix(f"/{name}/store/"): files.cat(p) for p in files.find(f"/{name}")}
        assert remote == {path: data for path, data in tree(stores[0]).items() if data is not None}
        if round == 0:
            (pictures / "000" / "000001.jpg").rename(pictures / "cat.jpg")
            shutil.copy(pictures / "000" / "000000.jpg", pictures / "000" / "000005.jpg")
            (pictures / "000" / "000009.txt").unlink()
    files.rm(f"/{name}", recursive=True)


def test_a_moved_dataset_goes_on(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 9), tmp_path / "store"
    encode(pictures, store, model)
    records = [path.read_bytes() for path in sorted((store / "shards").glob("*.json"))]
    assert not any(str(tmp_path).encode() in record for record in records)
    moved = tmp_path / "elsewhere" / "photos"
    shutil.copytree(pictures, moved, copy_function=shutil.copy)
    shutil.rmtree(pictures)
    toy_pictures(moved / "later", 2)
    found = encode(moved, store, model)
    assert (found["encoded"], found["skipped"], found["gone"]) == (2, 9, 0)
    assert json.loads((store / "sources.json").read_text())["roots"] == [str(moved)]
    assert {row["source"].split("/")[0] for row in rows_of(store)} == {"000", "later"}
    encode(moved, tmp_path / "fresh", model)
    latents, fresh = latents_of(store), latents_of(tmp_path / "fresh")
    assert latents.keys() == fresh.keys()
    assert all(torch.equal(latents[name], fresh[name]) for name in fresh)


def test_what_changed_in_a_renamed_dataset_is_encoded_again(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 9), tmp_path / "store"
    last = pictures / "000" / "000008.jpg"
    data = last.read_bytes()
    encode(pictures, store, model)
    last.write_bytes(data[:-20] + bytes(18) + data[-2:])
    pictures.rename(tmp_path / "photos")
    found = encode(tmp_path / "photos", store, model)
    assert (found["encoded"], found["skipped"], found["gone"]) == (1, 8, 0)


def test_a_store_of_other_inputs_is_not_added_to(model, tmp_path):
    store = tmp_path / "store"
    encode(toy_pictures(tmp_path / "a", 3), store, model)
    before = tree(store)
    other = toy_pictures(tmp_path / "b", 6)
    for number in range(3):
        (other / "000" / f"{number + 3:06d}.jpg").rename(other / "000" / f"{number:06d}.jpg")
    with pytest.raises(StoreError, match="other inputs"):
        encode(other, store, model)
    assert tree(store) == before


def as_before_sources(store, pictures):
    """Makes a store what it was when sources were absolute and nothing else was known."""
    (store / "sources.json").unlink()
    manifest = store / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 1'))
    for path in [store / "inputs.jsonl", *(store / "shards").glob("*.json")]:
        text = path.read_text()
        path.write_text(text.replace('"source": "', f'"source": "{pictures}/'))


def test_a_store_of_the_format_before_is_gone_on_with(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 9), tmp_path / "store"
    encode(pictures, store, model)
    as_before_sources(store, pictures)
    before = tree(store)
    assert encode(pictures, store, model, captions="none")["encoded"] == 0
    assert tree(store) == before | {"sources.json": tree(store)["sources.json"]}
    (pictures / "000" / "000002.txt").write_text("a caption")
    (pictures / "000" / "000008.jpg").rename(pictures / "z.jpg")
    toy_pictures(pictures / "later", 2)
    found = encode(pictures, store, model, captions="auto")
    assert (found["encoded"], found["renamed"], found["texts"]) == (2, 1, 1)
    assert json.loads((store / "manifest.json").read_text())["format_version"] == 2
    assert open_store(store).fields("000/000002") == {"caption": "a caption"}
    assert list(verify_shards(store)) == [] and len(latents(store)) == 11


def test_what_a_pattern_leaves_out_does_not_give_its_latent_to_a_copy(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 3), tmp_path / "store"
    encode(pictures, store, model)
    shutil.copy(pictures / "000" / "000001.jpg", pictures / "z.jpg")
    notes: list[str] = []
    found = encode(pictures, store, model, Reporter(note=notes.append), exclude=("000001.jpg",))
    assert (found["encoded"], found["renamed"], found["gone"]) == (1, 0, 1)
    assert {"000/000001/latent", "z/latent"} <= latents_of(store).keys()
    assert any("drops those whose files are no longer there" in note for note in notes)
    assert encode(pictures, store, model)["encoded"] == 0


def test_of_a_copied_dataset_it_is_told_that_sizes_alone_were_compared(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 3), tmp_path / "store"
    encode(pictures, store, model)
    moved = tmp_path / "moved"
    shutil.copytree(pictures, moved, copy_function=shutil.copy)
    for path in moved.rglob("*.jpg"):
        os.utime(path, (1, 1))
    found = run_sync(SyncJob(store=str(store), sources=(str(moved),), dry_run=True))
    assert found["copied"] and "only their sizes were compared" in "".join(summary(found))
    notes: list[str] = []
    encode(moved, store, model, Reporter(note=notes.append))
    assert any("--compare digest also finds inputs that were edited" in note for note in notes)
    notes.clear()
    pictures.rename(tmp_path / "back")
    encode(tmp_path / "back", store, model, Reporter(note=notes.append), compare="digest")
    assert not any("only their sizes were compared" in note for note in notes)


def test_other_captions_of_tars_that_are_done_are_told(model, tmp_path):
    store, notes = tmp_path / "store", list[str]()
    make_tar(tmp_path / "tars" / "a.tar", members(2))
    tell, plain = Reporter(note=notes.append), {"samples_per_shard": None}
    encode(tmp_path / "tars", store, model, **plain)
    encode(tmp_path / "tars", store, model, tell, captions="none", **plain)
    assert any("keep their texts (--captions auto)" in note for note in notes)
    notes.clear()
    encode(tmp_path / "tars", store, model, tell, **plain)
    assert not any("keep their texts" in note for note in notes)
