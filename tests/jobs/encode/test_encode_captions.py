"""Captions and other fields go along with pictures, and follow them without encoding."""

from __future__ import annotations

import json
import shutil

import pytest
import webdataset
from jobkit import encode, toy_pictures, tree
from tarjobkit import make_tar, picture, standard_streams

from latentcli import LatentDataset, open_store
from latentcli.jobs.config import SyncJob
from latentcli.jobs.encode.sync import run_sync
from latentcli.shards.store.verify import verify_shards

FORMATS = ("safetensors", "webdataset")


@pytest.fixture
def pictures(tmp_path):
    """Eight pictures: texts beside four of them, metadata of all but one."""
    folder = toy_pictures(tmp_path / "pictures", 8)
    own = folder / "000"
    (own / "000000.txt").write_text("a cat")
    (own / "000001.caption").write_text("a dog")
    (own / "000002.json").write_text(json.dumps({"caption": "a hen", "score": 0.5}))
    (own / "000003.txt").write_text("")
    rows = [{"file_name": f"{n:06d}.jpg", "text": f"meta {n}", "id": n} for n in range(7)]
    (own / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def fields(store):
    opened = open_store(store)
    return {key.removeprefix("000/"): opened.fields(key) for key in opened}


def run(pictures, store, model, **options):
    found = encode(pictures, store, model, **options)
    assert list(verify_shards(store)) == []
    return found


@pytest.mark.parametrize("form", FORMATS)
def test_what_belongs_to_pictures_is_in_the_store(pictures, model, tmp_path, form):
    store = tmp_path / "store"
    found = run(pictures, store, model, shard_format=form)
    shutil.rmtree(pictures)
    told = fields(store)
    assert told["000000"] == {"caption": "a cat", "id": 0, "text": "meta 0"}
    assert told["000001"]["caption"] == "a dog"
    assert told["000002"] == {"caption": "a hen", "score": 0.5, "id": 2, "text": "meta 2"}
    assert told["000003"]["caption"] == "meta 3"
    assert told["000006"]["caption"] == "meta 6" and told["000007"] == {}
    counts = found["captions"]
    assert (counts["with_caption"], counts["missing"], counts["empty"]) == (7, 1, 1)
    assert counts["examples"]["missing"] == ["000/000007"]
    items = {item["key"]: item["caption"] for item in LatentDataset(store)}
    assert items["000/000000"] == "a cat" and items["000/000007"] == ""


def test_captions_are_not_told_as_left_out_unless_nobody_reads_them(pictures, model, tmp_path):
    (pictures / "000" / "notes.txt").write_text("of no picture")
    assert run(pictures, tmp_path / "store", model)["left_out_by"] == {".txt": 1}
    every = {".caption": 1, ".json": 1, ".jsonl": 1, ".txt": 3}
    assert run(pictures, tmp_path / "bare", model, captions="none")["left_out_by"] == every
    assert run(pictures, tmp_path / "bare", model)["left_out_by"] == every  # as the store says


def test_tar_shards_have_captions_as_members(pictures, model, tmp_path):
    store = tmp_path / "store"
    run(pictures, store, model, shard_format="webdataset")
    shards = [str(path) for path in sorted((store / "shards").glob("*.tar"))]
    samples = {s["__key__"]: s for s in webdataset.WebDataset(shards, shardshuffle=False)}
    assert samples["000/000000"]["txt"] == b"a cat"
    assert json.loads(samples["000/000002"]["json"])["score"] == 0.5
    assert "txt" not in samples["000/000007"]


@pytest.mark.parametrize("form", FORMATS)
def test_texts_that_changed_are_taken_without_encoding(pictures, model, tmp_path, form):
    store, own = tmp_path / "store", pictures / "000"
    run(pictures, store, model, shard_format=form)
    before = tree(store)
    assert run(pictures, store, model, shard_format=form)["texts"] == 0
    assert tree(store) == before
    (own / "000000.txt").write_text("another cat")
    (own / "000007.txt").write_text("the last")
    (own / "000001.caption").unlink()
    found = run(pictures, store, model, shard_format=form)
    assert (found["encoded"], found["texts"], found["skipped"]) == (0, 2, 8)
    told = fields(store)
    assert told["000000"]["caption"] == "another cat" and told["000007"] == {"caption": "the last"}
    assert told["000001"]["caption"] == "meta 1"
    after = tree(store)
    shards = {name for name in before if name.endswith(".safetensors")}
    assert all(after[name] == before[name] for name in shards)
    encode(pictures, tmp_path / "fresh", model, shard_format=form)
    assert after == tree(tmp_path / "fresh")


def test_sync_takes_texts_too(pictures, model, tmp_path):
    store, own = tmp_path / "store", pictures / "000"
    run(pictures, store, model)
    (own / "000000.txt").write_text("another cat")
    (own / "000005.jpg").unlink()
    (own / "000006.jpg").rename(own / "cat.jpg")
    (own / "cat.txt").write_text("renamed")
    found = run_sync(SyncJob(store=str(store)))
    assert (found["dropped"], found["renamed"], found["texts"]) == (1, 1, 2)
    told = fields(store)
    assert told["000000"]["caption"] == "another cat" and told["cat"] == {"caption": "renamed"}
    assert "000005" not in told and list(verify_shards(store)) == []
    assert run(pictures, store, model)["encoded"] == 0


@pytest.mark.parametrize("form", FORMATS)
def test_another_mode_gives_other_captions(pictures, model, tmp_path, form):
    store = tmp_path / "store"
    run(pictures, store, model, shard_format=form, captions="none")
    assert not any(fields(store).values()) and not list((store / "shards").glob("*.jsonl"))
    found = run(pictures, store, model, shard_format=form, captions="text")
    assert found["encoded"] == 0 and fields(store)["000000"]["caption"] == "meta 0"
    run(pictures, store, model, shard_format=form, captions="none")
    assert not any(fields(store).values())


def test_a_changed_picture_whose_text_changed_too_is_still_to_be_encoded(pictures, model, tmp_path):
    store, own = tmp_path / "store", pictures / "000"
    run(pictures, store, model)
    shutil.copy(own / "000004.jpg", own / "000000.jpg")
    (own / "000000.txt").write_text("another cat")
    found = run_sync(SyncJob(store=str(store)))
    assert (found["changed"], found["texts"]) == (1, 1)
    assert fields(store)["000000"]["caption"] == "another cat"
    assert run(pictures, store, model)["encoded"] == 1
    opened = open_store(store)
    assert opened["000/000000"].equal(opened["000/000004"])


def test_a_changed_picture_keeps_the_captions_of_its_shard(pictures, model, tmp_path):
    store, own = tmp_path / "store", pictures / "000"
    run(pictures, store, model)
    before = fields(store)
    shutil.copy(own / "000004.jpg", own / "000001.jpg")
    assert run(pictures, store, model)["encoded"] == 1
    assert fields(store) == before


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("mode", "caption"), [("auto", "short"), ("long", "a long one")])
def test_captions_of_tars(model, tmp_path, form, mode, caption):
    members = [
        ("0.png", picture(0)),
        ("0.txt", b"short"),
        ("0.long", b"a long one"),
        ("0.json", b'{"score": 2}'),
        ("1.png", picture(1)),
    ]
    make_tar(tmp_path / "a.tar", members)
    store = tmp_path / "store"
    options = {"samples_per_shard": None, "shard_format": form, "captions": mode}
    found = run(tmp_path / "a.tar", store, model, **options)
    assert (found["captions"]["with_caption"], found["captions"]["missing"]) == (1, 1)
    assert open_store(store).fields("a/0") == {"caption": caption, "score": 2}
    assert open_store(store).fields("a/1") == {}
    if form == "webdataset":
        (sample, _) = webdataset.WebDataset(
            str(store / "shards" / "000000.tar"), shardshuffle=False
        )
        assert sample["txt"] == b"short" and sample["long"] == b"a long one"


def test_captions_go_along_in_a_stream(pictures, model, tmp_path):
    with standard_streams(tmp_path / "ends") as ends:
        encode(pictures, "-", model, samples_per_shard=None)
    path = tmp_path / "out.tar"
    path.write_bytes(ends.output)
    samples = {s["__key__"]: s for s in webdataset.WebDataset(str(path), shardshuffle=False)}
    assert samples["000/000000"]["txt"] == b"a cat"
