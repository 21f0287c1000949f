"""A store follows its inputs without encoding: what is gone goes, what is renamed stays."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from jobkit import decode, encode, rows_of, toy_pictures, tree
from tarjobkit import make_tar, members

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.config import SyncJob
from latentcli.jobs.encode.sync import run_sync
from latentcli.jobs.store.latent_store import open_store
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.verify import verify_shards

FORMATS = ("safetensors", "webdataset")


def sync(store, *sources, **options):
    found = run_sync(SyncJob(store=str(store), sources=tuple(map(str, sources)), **options))
    if not found["dry_run"]:
        assert list(verify_shards(store)) == []
    return found


def latents(store):
    opened = open_store(store)
    return {key: opened[key] for key in opened}


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def pictures(tmp_path):
    return toy_pictures(tmp_path / "pictures", 12)


@pytest.mark.parametrize("form", FORMATS)
def test_deleted_inputs_go_and_no_other_shard_is_touched(model, tmp_path, pictures, form):
    store = tmp_path / "store"
    encode(pictures, store, model, shard_format=form)
    before, files = latents(store), tree(store)
    (pictures / "000" / "000005.jpg").unlink()
    found = sync(store)
    assert (found["dropped"], found["rewritten"], found["deleted"]) == (1, 1, 0)
    assert found["dropped_sources"] == [str(pictures / "000" / "000005.jpg")]
    before.pop("000/000005")
    same(latents(store), before)
    changed = {name for name, data in tree(store).items() if data != files[name]}
    suffix = {"safetensors": "safetensors", "webdataset": "tar"}[form]
    assert changed == {
        "inputs.jsonl",
        "manifest.json",
        "shards/000001.json",
        f"shards/000001.{suffix}",
    }
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["status"] == "complete" and manifest["totals"]["encoded"] == 11
    encode(pictures, tmp_path / "fresh", model, shard_format=form)
    fresh = json.loads((tmp_path / "fresh" / "manifest.json").read_text())
    assert manifest["channels"]["mean"] == pytest.approx(fresh["channels"]["mean"], abs=1e-9)
    assert manifest["channels"]["std"] == pytest.approx(fresh["channels"]["std"], abs=1e-9)
    assert sync(store)["dropped"] == 0


def test_a_shard_without_inputs_goes_too(model, tmp_path, pictures):
    store = tmp_path / "store"
    encode(pictures, store, model)
    for number in range(4, 8):
        (pictures / "000" / f"{number:06d}.jpg").unlink()
    found = sync(store)
    assert (found["dropped"], found["rewritten"], found["deleted"]) == (4, 0, 1)
    assert not list((store / "shards").glob("000001*"))
    found = encode(pictures, store, model)
    assert (found["encoded"], found["skipped"], found["gone"]) == (0, 8, 0)
    toy_pictures(pictures / "later", 5)
    found = encode(pictures, store, model)
    assert found["encoded"] == 5 and list(verify_shards(store)) == []
    assert len(open_store(store)) == 13 == len(latents(store))
    for path in (pictures / "later" / "000").iterdir():
        path.unlink()
    assert sync(store)["deleted"] == 2
    assert len(open_store(store)) == 8


def test_renamed_inputs_keep_their_latents(model, tmp_path, pictures):
    store = tmp_path / "store"
    encode(pictures, store, model)
    before = latents(store)
    (pictures / "000" / "000005.jpg").rename(pictures / "cat.jpg")
    (pictures / "000" / "000006.jpg").unlink()
    found = sync(store)
    assert (found["dropped"], found["renamed"], found["rewritten"]) == (1, 1, 1)
    before.pop("000/000006")
    before["cat"] = before.pop("000/000005")
    same(latents(store), before)
    assert encode(pictures, store, model)["encoded"] == 0


def test_failed_inputs_that_are_gone_go(mixed, model, tmp_path):
    shutil.copytree(mixed, tmp_path / "pictures")
    store = tmp_path / "store"
    failed = encode(tmp_path / "pictures", store, model)["failed"]
    (tmp_path / "pictures" / "000" / "000010.jpg").unlink()
    sync(store)
    assert encode(tmp_path / "pictures", store, model)["failed"] == failed - 1


def test_a_dry_run_changes_nothing(model, tmp_path, pictures):
    store = tmp_path / "store"
    encode(pictures, store, model)
    (pictures / "000" / "000005.jpg").unlink()
    files = tree(store)
    found = sync(store, dry_run=True)
    assert (found["dropped"], found["rewritten"]) == (1, 0) and tree(store) == files


def test_more_than_allowed_is_not_dropped(model, tmp_path, pictures):
    store = tmp_path / "store"
    encode(pictures, store, model)
    files = tree(store)
    for number in range(7):
        (pictures / "000" / f"{number:06d}.jpg").unlink()
    with pytest.raises(StoreError, match=r"7 of the 12 inputs.*--max-drop 50% allows 6"):
        sync(store)
    assert tree(store) == files
    assert sync(store, max_drop="7")["dropped"] == 7


def test_a_dataset_that_is_not_mounted_is_not_taken_for_gone(model, tmp_path, pictures):
    store = tmp_path / "store"
    encode(pictures, store, model)
    files = tree(store)
    pictures.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is not there, where the inputs of the store were"):
        sync(store)
    assert tree(store) == files
    (tmp_path / "elsewhere" / "000" / "000005.jpg").unlink()
    found = sync(store, tmp_path / "elsewhere")
    assert found["moved"] and found["dropped"] == 1
    assert encode(tmp_path / "elsewhere", store, model)["encoded"] == 0


def test_what_the_sources_do_not_give_goes_only_where_they_are_named(model, tmp_path, pictures):
    store = tmp_path / "store"
    toy_pictures(pictures / "later", 3)
    encode(pictures, store, model)
    assert sync(store)["dropped"] == 0
    assert sync(store, pictures / "000")["dropped"] == 3
    assert len(latents(store)) == 12


def test_changed_and_new_inputs_are_left_for_encode(model, tmp_path, pictures):
    store = tmp_path / "store"
    encode(pictures, store, model)
    before = latents(store)
    shutil.copy(pictures / "000" / "000000.jpg", pictures / "000" / "000005.jpg")
    toy_pictures(pictures / "later", 2)
    found = sync(store, pictures)
    assert (found["changed"], found["new"], found["dropped"]) == (1, 2, 0)
    same(latents(store), before)
    assert encode(pictures, store, model)["encoded"] == 3


def test_new_inputs_do_not_leave_a_store_unfinished(model, tmp_path, pictures):
    store = tmp_path / "store"
    encode(pictures, store, model)
    (pictures / "000" / "000005.jpg").unlink()
    toy_pictures(pictures / "later", 2)
    found = sync(store)
    assert (found["dropped"], found["unfinished"]) == (1, 0)
    assert json.loads((store / "manifest.json").read_text())["status"] == "complete"


def test_a_sync_that_was_killed_at_its_end_is_finished(model, tmp_path, pictures):
    store = tmp_path / "store"
    encode(pictures, store, model)
    before = tree(store)
    manifest = store / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    sync(store)
    assert tree(store) == before


def test_a_decoded_picture_is_no_new_name_of_an_input(model, tmp_path, pictures):
    store, own = tmp_path / "store", pictures / "000"
    encode(pictures, store, model)
    decode(store, pictures / "decoded")
    shutil.copy(next((pictures / "decoded").rglob("*.png")), own / "taken.png")
    encode(pictures, store, model, include_output=True)
    copied = json.dumps([row["key"] for row in rows_of(store)])
    assert "000/taken" in copied
    (own / "taken.png").unlink()
    assert sync(store, pictures)["renamed"] == 0


@pytest.mark.parametrize("form", FORMATS)
def test_tars_go_as_a_whole(model, tmp_path, form):
    for name, count in (("a", 3), ("b", 4), ("c", 2)):
        make_tar(tmp_path / "tars" / f"{name}.tar", members(count))
    store = tmp_path / "store"
    options = {"samples_per_shard": None, "shard_format": form}
    encode(tmp_path / "tars", store, model, **options)
    (tmp_path / "tars" / "b.tar").unlink()
    (tmp_path / "tars" / "c.tar").rename(tmp_path / "tars" / "d.tar")
    found = sync(store)
    assert (found["dropped"], found["renamed"], found["deleted"]) == (1, 1, 1)
    assert sorted({row["key"].split("/")[0] for row in rows_of(store)}) == ["a", "d"]
    assert encode(tmp_path / "tars", store, model, **options)["encoded"] == 0


def test_a_store_that_is_not_finished_stays_so(model, tmp_path, pictures):
    store = tmp_path / "store"
    encode(pictures, store, model)
    (store / "shards" / "000002.json").unlink()
    (pictures / "000" / "000001.jpg").unlink()
    found = run_sync(SyncJob(store=str(store)))
    assert (found["dropped"], found["unfinished"]) == (1, 1)
    assert json.loads((store / "manifest.json").read_text())["status"] == "running"
    assert encode(pictures, store, model)["encoded"] == 4
    assert list(verify_shards(store)) == [] and len(latents(store)) == 11


@pytest.mark.parametrize("named", [False, True])
def test_a_closed_folder_is_not_an_empty_one(model, tmp_path, pictures, monkeypatch, named):
    encode(pictures, tmp_path / "store", model)
    (pictures / "000" / "000005.jpg").unlink()
    before, whole = tree(tmp_path / "store"), os.scandir

    def scandir(path):
        if str(path) == str(pictures / "000"):
            raise PermissionError(13, "Permission denied")
        return whole(path)

    toy_pictures(pictures / "others", 2)
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match=r"1 folder of the sources cannot be listed"):
        sync(tmp_path / "store", *[pictures] * named)
    assert tree(tmp_path / "store") == before


@pytest.mark.parametrize("named", [False, True])
def test_inputs_that_only_their_bytes_or_an_option_told_are_kept(model, tmp_path, pictures, named):
    encode(pictures, tmp_path / "first", model)
    decode(tmp_path / "first", pictures / "decoded")
    (pictures / "000" / "000005.jpg").rename(pictures / "000" / "picture")
    store = tmp_path / "store"
    assert encode(pictures, store, model, include_output=True)["encoded"] == 24
    before = tree(store)
    assert sync(store, *[pictures] * named)["dropped"] == 0
    assert tree(store) == before


def test_a_sync_ends_where_another_job_has_the_store(model, tmp_path, pictures, monkeypatch):
    """It was stopped for so long that its lease was taken over, before it has changed anything."""
    store = tmp_path / "store"
    encode(pictures, store, model)
    (pictures / "000" / "000005.jpg").unlink()
    before = tree(store)

    def taken_over(lock):
        raise StoreError("taken over")

    monkeypatch.setattr(StoreLock, "check", taken_over)
    with pytest.raises(StoreError, match="taken over"):
        sync(store)
    assert tree(store) == before


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("killed", [False, True])
def test_of_two_inputs_of_equal_bytes_each_has_its_own_caption(
    model, tmp_path, monkeypatch, form, killed
):
    """One is renamed and the other one goes, with captions of one size and time."""
    pictures, store = toy_pictures(tmp_path / "pictures", 3), tmp_path / "store"
    one, two = (pictures / "000" / f"00000{number}.jpg" for number in (0, 1))
    shutil.copy(one, two)
    for path, text in ((one, "a cat"), (two, "a dog")):
        path.with_suffix(".txt").write_text(text)
        os.utime(path.with_suffix(".txt"), ns=(7, 7))
    encode(pictures, store, model, shard_format=form)
    for path in (two, two.with_suffix(".txt")):
        path.rename(pictures / f"dog{path.suffix}")
    if killed:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("latentcli.jobs.encode.rewrite.rewrite", interrupted)
            sync(store)
    one.unlink()
    assert sync(store)["dropped"] == 1
    opened = open_store(store)
    assert {key: opened.fields(key) for key in opened} == {
        "000/000002": {},
        "dog": {"caption": "a dog"},
    }
    assert sync(store)["texts"] == 0


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_wrong_share_is_told_by_the_name_of_its_option(tmp_path):
    with pytest.raises(UsageError, match=r"^--max-drop is '5x'"):
        run_sync(SyncJob(store=str(tmp_path), max_drop="5x"))
