"""Texts that are refused, touched or of another mode, and how often metadata is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tarjobkit
from jobkit import encode, encode_job, toy_pictures

from latentcli import open_store
from latentcli.cli.caption_words import REFUSED, caption_lines
from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.config import SyncJob
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.encode.sync import run_sync
from latentcli.jobs.runtime.reporter import SILENT
from latentcli.shards.sources import metadata_index

WANTED: list[dict[str, Any]] = [
    {"caption": "zero"},
    {"caption": "one"},
    {"caption": "two", "n": 2},
    {"caption": "three", "text": "three"},
    {},
    {},
]


@pytest.fixture
def source(tmp_path):
    """Six pictures: texts, a document, a row of metadata, none, and a text that is refused."""
    folder = toy_pictures(tmp_path / "pictures", 6, sizes=[(64, 48)]) / "000"
    (folder / "000000.txt").write_text("zero\n")
    (folder / "000001.caption").write_text("one")
    (folder / "000002.json").write_text('{"caption": "two", "n": 2}')
    (folder / "metadata.jsonl").write_text('{"file_name": "000003.jpg", "text": "three"}\n')
    (folder / "000005.txt").write_bytes(b"\xe4")
    return folder


def fields_of(store: Path) -> list[dict[str, Any]]:
    """The fields of every sample, in the order of the store."""
    there = open_store(store)
    return [there.fields(key) for key in there]


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_is_refused_is_told(source, tmp_path, model):
    rows = (source / "metadata.jsonl").read_text() + '{"file_name": "gone.jpg"}\n{\n'
    (source / "metadata.jsonl").write_text(rows)
    document = encode(source, tmp_path / "store", model)
    captions = document["captions"]
    assert fields_of(tmp_path / "store") == WANTED
    examples = captions.pop("examples")
    assert examples.pop("broken")[0].startswith(f"{source}/metadata.jsonl, row 3: it is not JSON")
    assert examples == {
        "missing": ["000004"],
        "not_utf8": ["000005: 000005.txt: it is not UTF-8 text"],
        "unused_rows": [f"{source}/metadata.jsonl: gone.jpg"],
    }
    assert captions == {
        "mode": "auto",
        "with_caption": 4,
        "missing": 1,
        "empty": 0,
        "not_utf8": 1,
        "too_long": 0,
        "broken": 1,
        "unreadable": 0,
        "unused_rows": 1,
    }


def test_the_summary(source, tmp_path, model):
    lines = list(caption_lines(encode(source, tmp_path / "store", model)))
    assert lines == [
        "Captions: 4 images have one.",
        "Texts not taken: 1 not UTF-8, such as 000005: 000005.txt: it is not UTF-8 text.",
    ]
    for path in source.iterdir():
        if path.suffix != ".jpg":
            path.unlink()
    assert list(caption_lines(encode(source, tmp_path / "bare", model))) == []
    assert list(caption_lines(encode(source, tmp_path / "none", model, captions="none"))) == []


def test_captions_that_a_mistyped_name_takes_away_are_told(source, tmp_path, model):
    store = tmp_path / "store"
    encode(source, store, model)
    told = (
        "Captions: no image has one. --captions txtt takes only fields named txtt, and files such"
        " as NAME.txtt beside NAME.jpg; --captions auto takes the usual ones."
    )
    assert told in caption_lines(encode(source, store, model, captions="txtt"))
    assert told in caption_lines(encode(source, tmp_path / "new", model, captions=".txtt"))
    (source / "000004.tags").write_text("x, y")
    assert list(caption_lines(encode(source, tmp_path / "tags", model, captions="tags"))) == [
        "Captions: 1 image has one."
    ]


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
def test_a_text_that_was_only_touched_writes_no_shard(source, tmp_path, model, form):
    store = tmp_path / "store"
    encode(source, store, model, shard_format=form)
    before = times(store / "shards")
    (source / "000000.txt").write_text("zero")
    assert encode(source, store, model, shard_format=form)["texts"] == 1
    assert times(store / "shards") == before
    before = times(store)
    assert encode(source, store, model, shard_format=form)["texts"] == 0
    assert times(store) == before


def test_the_mode_stays_that_of_the_store(source, tmp_path, model):
    store = tmp_path / "store"
    (source / "000004.tags").write_text("x, y")
    document = encode(source, store, model, captions="tags")
    assert document["captions"]["mode"] == "tags" and document["captions"]["with_caption"] == 1
    wanted = [{}, {}, {"n": 2}, {"text": "three"}, {"caption": "x, y"}, {}]
    assert fields_of(store) == wanted
    assert encode(source, store, model)["texts"] == 0
    assert run_sync(SyncJob(store=str(store)))["texts"] == 0
    plan = run_encode(encode_job(source, store, model, dry_run=True), SILENT)
    assert plan["texts"] == 0
    plan = run_encode(encode_job(source, store, model, dry_run=True, captions="auto"), SILENT)
    assert plan["texts"] == 2
    assert fields_of(store) == wanted
    encode(source, store, model, captions="auto")
    assert fields_of(store) == WANTED
    assert encode(source, store, model, captions="none")["captions"] is None
    assert fields_of(store) == [{}] * 6


def test_no_mode(source, tmp_path, model):
    with pytest.raises(UsageError, match="--captions is 'a/b'"):
        encode(source, tmp_path / "store", model, captions="a/b")


def test_a_store_that_says_no_mode_gets_texts_by_encode(source, tmp_path, model):
    store = tmp_path / "store"
    encode(source, store, model, captions="none")
    roots = json.loads((store / "sources.json").read_text())
    (store / "sources.json").write_text(json.dumps(roots | {"captions": None}))
    assert run_sync(SyncJob(store=str(store)))["texts"] == 0
    assert fields_of(store) == [{}] * 6
    assert encode(source, store, model)["encoded"] == 0
    assert fields_of(store) == WANTED


def test_a_picture_that_fails_has_no_fields(source, tmp_path, model):
    store = tmp_path / "store"
    encode(source, store, model)
    (source / "000000.jpg").write_bytes(b"\xff\xd8 cut")
    encode(source, store, model)
    there = open_store(store)
    assert there.row("000000").status == "failed" and there.fields("000000") == {}
    assert there.fields("000001") == WANTED[1]


def test_new_changed_and_renamed_pictures_with_texts(source, tmp_path, model):
    store = tmp_path / "store"
    encode(source, store, model)
    other = toy_pictures(tmp_path / "other", 9, sizes=[(64, 48)]) / "000"
    shutil.copy(other / "000007.jpg", source / "000000.jpg")
    (source / "000000.txt").write_text("another")
    shutil.copy(other / "000008.jpg", source / "000008.jpg")
    (source / "000008.txt").write_text("new")
    for suffix in ("jpg", "json"):
        (source / f"000002.{suffix}").rename(source / f"moved.{suffix}")
    document = encode(source, store, model)
    assert (document["encoded"], document["renamed"]) == (2, 1)
    there = open_store(store)
    keys = ("000000", "000001", "000003", "000004", "000005", "000008", "moved")
    wanted = [{"caption": "another"}, WANTED[1], *WANTED[3:], {"caption": "new"}, WANTED[2]]
    assert {key: there.fields(key) for key in there} == dict(zip(keys, wanted, strict=True))
    assert encode(source, store, model)["texts"] == 0


def test_texts_that_cannot_be_read_end_the_job(source, tmp_path, model):
    """A loop of links is trouble that may pass, unlike a text that may not be read."""
    (source / "000004.txt").symlink_to("000004.txt")
    with pytest.raises(StoreError, match=r"000004\.txt cannot be read: .*--captions none"):
        encode(source, tmp_path / "store", model)
    assert encode(source, tmp_path / "store", model, captions="none")["encoded"] == 2
    assert fields_of(tmp_path / "store") == [{}] * 6


def test_metadata_is_read_as_a_whole_once(source, tmp_path, model, monkeypatch):
    """Rows are read by their place; only the index goes over the file, and not for each unit."""
    made: list[str] = []
    original = metadata_index.MetadataIndex._read

    def counting(self: Any, *columns: Any) -> None:
        made.append(self.name)
        original(self, *columns)

    monkeypatch.setattr(metadata_index.MetadataIndex, "_read", counting)
    encode(source, tmp_path / "store", model, samples_per_shard=1)
    assert made == ["metadata.jsonl"]
    (source / "000000.txt").write_text("another")
    encode(source, tmp_path / "store", model, samples_per_shard=1)
    assert made == ["metadata.jsonl"] * 2


def test_captions_of_clips(tmp_path, model):
    clipkit = pytest.importorskip("clipkit")
    pytest.importorskip("av")
    folder = clipkit.clips_in(tmp_path / "clips", lengths=(3, 4))
    first, second = sorted(folder.iterdir())
    first.with_suffix(".txt").write_text("a clip")
    document = encode(folder, tmp_path / "store", model, samples_per_shard=None)
    assert fields_of(tmp_path / "store") == [{"caption": "a clip"}, {}]
    assert next(caption_lines(document)) == "Captions: 1 clip has one."
    assert second.exists()


def test_a_tar_to_safetensors_without_captions(tmp_path, model):
    source = tarjobkit.make_tar(tmp_path / "a.tar", tarjobkit.members(2))
    store = tmp_path / "store"
    encode(source, store, model, samples_per_shard=None, captions="none")
    assert fields_of(store) == [{}] * 2 and not list(store.glob("shards/*.fields.jsonl"))


def test_a_run_without_texts_to_read_does_not_tell_of_none():
    counts = dict.fromkeys(["with_caption", *REFUSED], 0) | {"examples": {}, "broken": 1}
    told = list(caption_lines({"captions": counts, "encoded": 0}))
    assert told == ["Texts not taken: 1 broken."]
