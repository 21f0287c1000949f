"""New, failed and changed inputs of a store that is there already."""

from __future__ import annotations

import json
import shutil

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

from latentcli.core.errors import Interrupted, StoreError
from latentcli.jobs.runtime.reporter import Reporter
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
    assert any("5 inputs are new" in note for note in notes)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (store / "inputs.jsonl").read_bytes().startswith(first)
    assert [row["key"] for row in rows_of(store)[9:]] == [
        "000/000000b",
        *(f"later/000/{i:06d}" for i in range(4)),
    ]
    assert list(verify_shards(store)) == []


def test_an_interrupted_append_is_not_called_complete(model, tmp_path):
    from latentcli import open_store

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
    found = encode(pictures, store, model)
    assert (found["encoded"], found["failed"]) == (0, 2)
    found = encode(pictures, store, model, retry="failed")
    assert found["failed"] == 1 and "000/000010/latent" in latents_of(store)
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


def test_changed_inputs_are_told_and_encoded_again_where_asked(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 12), tmp_path / "store"
    encode(pictures, store, model)
    before = tree(store)
    shutil.copy(pictures / "000" / "000000.jpg", pictures / "000" / "000005.jpg")
    notes: list[str] = []
    encode(pictures, store, model, Reporter(note=notes.append))
    assert any("000005.jpg" in note and "--retry changed" in note for note in notes)
    assert tree(store) == before
    encode(pictures, store, model, retry="changed")
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


def test_a_store_of_other_inputs_is_not_added_to(model, tmp_path):
    store = tmp_path / "store"
    encode(toy_pictures(tmp_path / "a", 3), store, model)
    before = tree(store)
    with pytest.raises(StoreError, match="other inputs"):
        encode(toy_pictures(tmp_path / "b", 3), store, model)
    assert tree(store) == before
