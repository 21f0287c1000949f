"""Encodes tables of pictures, Parquet, Arrow and JSON lines: each row counts, none is lost."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from jobkit import decode, encode, failures_of, interrupt_after, rows_of, tree
from tablekit import MAKERS, make_arrow, make_jsonl, make_parquet, rows
from tarjobkit import (
    latents_in,
    make_tar,
    members,
    picture,
    read_tar,
    standard_streams,
    unpacked,
)

from latentcli import open_store
from latentcli.core.errors import Interrupted, StoreError, UsageError
from latentcli.core.types import InputRow
from latentcli.jobs.config import RoundtripJob, VerifyJob
from latentcli.jobs.loader.find_media import SUFFIXES
from latentcli.jobs.loader.readers import READERS
from latentcli.jobs.loader.table_reader import READS
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.inspect import inspect_store
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.store.verify import verify_shards

KINDS = tuple(MAKERS)


def encode_tables(source, store, model, **options):
    """jobkit's settings; of tables, each is a shard."""
    return encode(source, store, model, **{"samples_per_shard": None} | options)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """For each kind, a folder with two tables, of which the second has a bad picture."""
    folder = tmp_path_factory.mktemp("tables")
    for kind, make in MAKERS.items():
        make(folder / kind / f"a.{kind}", rows(7))
        make(folder / kind / "sub" / f"b.{kind}", rows(5, first=7, bad_every=5))
    return folder


@pytest.fixture(scope="module")
def stores(tables, model, tmp_path_factory):
    """A store of tars for each kind, encoded without interruption or workers."""
    folder = tmp_path_factory.mktemp("stores")
    for kind in KINDS:
        encode_tables(tables / kind, folder / kind, model, shard_format="webdataset")
    return folder


def verified(store: Path) -> bool:
    """Whether a store is sound, and its inputs give its latents again."""
    found = run_verify(VerifyJob(store=str(store), device="cpu"))
    assert found["problems"] == []
    return found["reencoded"]["samples"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_a_unit_and_a_row_is_a_sample(stores, tables, kind):
    store = stores / kind
    inputs = [json.loads(line) for line in (store / "inputs.jsonl").read_text().splitlines()]
    assert [(row["key"], row["unit"]) for row in inputs] == [("a", 0), ("sub/b", 1)]
    found = rows_of(store)
    assert [row["key"] for row in found] == [
        *(f"a/{n:08d}" for n in range(7)),
        *(f"sub/b/{n:08d}" for n in range(5)),
    ]
    assert found[3]["source"] == f"{tables / kind / f'a.{kind}'}::3.image"
    (failed,) = failures_of(store).values()
    assert (failed["key"], failed["stage"]) == ("sub/b/00000002", "decode_image")
    manifest = json.loads((store / "manifest.json").read_text())
    assert (manifest["spec"]["tars"], manifest["spec"]["kind"]) == (True, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_store_is_sound_and_its_pictures_come_back(stores, kind, tmp_path):
    assert list(verify_shards(stores / kind)) == []
    assert verified(stores / kind)
    told = inspect_store(str(stores / kind))
    assert (told["encoded"], told["failed"]) == (11, 1)
    done = decode(stores / kind, tmp_path / "out")
    assert (done["decoded"], done["failed"]) == (11, 0)
    assert (tmp_path / "out" / "sub" / "b" / "00000004.png").is_file()


def test_all_kinds_give_the_latents_of_the_same_pictures(stores, model, tmp_path):
    files = [(f"{n:08d}.png", picture(n)) for n in range(7)]
    encode(unpacked(files, tmp_path / "a"), tmp_path / "plain", model, samples_per_shard=100)
    expected = open_store(str(tmp_path / "plain"))
    for kind in KINDS:
        found = open_store(str(stores / kind))
        for key in expected:
            assert torch.equal(found[f"a/{key}"], expected[key]), (kind, key)


@pytest.mark.parametrize("kind", KINDS)
def test_captions_and_columns_travel_along(stores, kind):
    found = read_tar((stores / kind / "shards" / "000001.tar").read_bytes())
    good = [n for n in range(5) if n != 2]
    assert list(found) == [
        f"{n:08d}.{field}"
        for n in good
        for field in ("latent.safetensors", "latent.json", "txt", "json")
    ]
    for n in good:
        assert found[f"{n:08d}.txt"] == f"caption {7 + n}".encode()
        assert json.loads(found[f"{n:08d}.json"]) == {"text": f"caption {7 + n}"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_do_not_depend_on_workers_or_interruptions(stores, tables, model, tmp_path, kind):
    run = partial(encode_tables, tables / kind, shard_format="webdataset")
    run(tmp_path / "workers", model, workers=1)
    assert tree(tmp_path / "workers") == tree(stores / kind)
    with pytest.raises(Interrupted):
        run(tmp_path / "store", model, reporter=interrupt_after(4))
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["status"] == "running"
    assert run(tmp_path / "store", model)["failed"] == 1
    assert tree(tmp_path / "store") == tree(stores / kind)
    again = run(tmp_path / "store", model)
    assert (again["encoded"], again["skipped"]) == (0, 11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_table_is_noticed_and_done_again_where_asked(model, tmp_path, kind):
    path = tmp_path / kind / f"a.{kind}"
    MAKERS[kind](path, rows(3))
    run = partial(encode_tables, tmp_path / kind, tmp_path / "store", model)
    run()
    before = json.loads((tmp_path / "store" / "shards" / "000000.json").read_text())
    assert before["source"] == str(path) and len(before["sha256_source"]) == 64
    path.touch()
    assert run()["changed"] == 1 and run(compare="digest")["changed"] == 0
    MAKERS[kind](path, rows(5))
    assert run(compare="digest")["changed"] == 1
    assert run(retry="changed")["encoded"] == 5
    assert len(rows_of(tmp_path / "store")) == 5


def test_a_table_to_standard_output(tables, model, tmp_path):
    with standard_streams(tmp_path / "ends") as ends:
        told = encode_tables(tables / "parquet" / "a.parquet", "-", model)
    assert told["encoded"] == 7
    names = read_tar(ends.output)
    assert names["00000002.txt"] == b"caption 2"
    assert latents_in(ends.output).keys() == {f"{n:08d}/latent" for n in range(7)}


def test_a_saved_dataset_is_a_source(model, tmp_path):
    """Splits, shards, and beside them what the library cached of a map."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    data = datasets.Dataset.from_list(rows(6), features=features)
    splits = {"train": data, "test": data.select([4, 5])}
    folder = tmp_path / "saved"
    datasets.DatasetDict(splits).save_to_disk(str(folder), num_shards={"train": 2, "test": 1})
    mapped = datasets.load_from_disk(str(folder))["train"].map(lambda row: {"n": 1})
    mapped.filter(lambda row: True)
    assert len(list(folder.rglob("cache-*.arrow"))) == 2
    notes = list[str]()
    told = encode_tables(
        folder,
        tmp_path / "store",
        model,
        reporter=Reporter(note=notes.append),
        shard_format="webdataset",
    )
    assert (told["encoded"], told["failed"], told["shards"]) == (8, 0, 3)
    assert [note for note in notes if "2 caches of the datasets library left out" in note]
    found = open_store(str(tmp_path / "store"))
    assert list(found.keys())[:3] == [
        "test/data-00000-of-00001/00000000",
        "test/data-00000-of-00001/00000001",
        "train/data-00000-of-00002/00000000",
    ]
    assert found.others("train/data-00001-of-00002/00000001")[0].data == b"caption 4"
    assert verified(tmp_path / "store")


def test_a_dataset_written_as_parquet_is_a_source(model, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "pixels": datasets.Image(),
            "mask": datasets.Value("binary"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "boxes": [{"x": datasets.Value("int32")}],
        }
    )
    values = [
        {"pixels": row["image"], "mask": b"mask", "label": n % 2, "boxes": [{"x": n}]}
        for n, row in enumerate(rows(4))
    ]
    data = datasets.Dataset.from_list(values, features=features)
    (tmp_path / "data").mkdir()
    for n in range(2):
        part = data.shard(2, n)
        part.to_parquet(str(tmp_path / "data" / f"train-{n:05d}-of-00002.parquet"))
    told = encode_tables(tmp_path / "data", tmp_path / "store", model, shard_format="webdataset")
    assert (told["encoded"], told["shards"]) == (4, 2)
    (document,) = open_store(str(tmp_path / "store")).others("train-00001-of-00002/00000001")
    assert document.field == "json"
    assert json.loads(document.data) == {"label": 1, "boxes": [{"x": 3}]}


def keyed(values, **columns):
    """Rows with more columns."""
    return [
        {**row, **{name: column[n] for name, column in columns.items()}}
        for n, row in enumerate(values)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_those_of_a_column_and_unique(model, tmp_path, kind):
    ids = ["x/1", "x/1", None, "../up", "a\nb", "2"]
    MAKERS[kind](tmp_path / f"t.{kind}", keyed(rows(6), id=ids))
    told = encode_tables(tmp_path / f"t.{kind}", tmp_path / "store", model)
    assert told["encoded"] == 6
    assert [row["key"].removeprefix("t/") for row in rows_of(tmp_path / "store")] == [
        *("x/1", "x/1~2", "00000002", "%2E%2E/up", "a%0Ab", "2")
    ]
    assert verified(tmp_path / "store")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_a_picture_fail_and_the_others_do_not(model, tmp_path, kind):
    values = rows(5)
    values[1]["image"] = None
    values[2]["image"] = {"bytes": b"", "path": None}
    values[3]["image"] = {"bytes": b"no picture", "path": None}
    MAKERS[kind](tmp_path / f"t.{kind}", values)
    told = encode_tables(tmp_path / f"t.{kind}", tmp_path / "store", model)
    assert (told["encoded"], told["failed"]) == (2, 3)
    failed = failures_of(tmp_path / "store")
    assert failed["t/00000001"]["error"] == "its column image is empty (null)"
    assert failed["t/00000001"]["stage"] == "read"
    assert list(failed) == [f"t/{n:08d}" for n in (1, 2, 3)]
    assert list(verify_shards(tmp_path / "store")) == []


def test_lines_that_are_no_json_fail_and_the_others_do_not(model, tmp_path):
    path = make_jsonl(tmp_path / "t.jsonl", rows(3))
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([lines[0], '{"image": ', lines[1], '{"text": "no picture"}', lines[2]])
    )
    told = encode_tables(path, tmp_path / "store", model)
    assert (told["encoded"], told["failed"]) == (3, 2)
    failed = failures_of(tmp_path / "store")
    assert failed["t/00000001"]["error"].startswith("line 2 is no JSON (")
    assert "column image is empty" in failed["t/00000003"]["error"]


def damaged_arrow(path: Path) -> None:
    """Whole batches of 4 rows, and then a cut."""
    make_arrow(path, rows(12))
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 4])


def damaged_parquet(path: Path) -> None:
    """Row groups of 4 rows, and a flipped byte in the third."""
    make_parquet(path, rows(12), row_group_size=4, compression="none", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(picture(9)) + 40] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "make", "whole"), [("arrow", damaged_arrow, 8), ("parquet", damaged_parquet, 8)]
)
def test_a_damaged_table_gives_its_whole_rows_and_one_more(model, tmp_path, kind, make, whole):
    make(tmp_path / f"t.{kind}")
    told = encode_tables(tmp_path / f"t.{kind}", tmp_path / "store", model)
    assert (told["encoded"], told["failed"]) == (whole, 1)
    last = rows_of(tmp_path / "store")[-1]
    assert last["key"] == f"t/{whole - 1:08d} (rest)"
    assert "damaged" in last["error"] and f"behind row {whole}" in last["error"]
    assert "are lost" in last["error"]
    assert list(verify_shards(tmp_path / "store")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_cannot_be_read_is_one_failed_row(model, tmp_path, kind):
    folder = tmp_path / "tables"
    MAKERS[kind](folder / f"a.{kind}", rows(3, bad_every=1))
    MAKERS[kind](folder / f"good.{kind}", rows(2))
    gone = MAKERS[kind](folder / f"gone.{kind}", rows(1))
    (folder / f"nothing.{kind}").touch()
    (folder / f"page.{kind}").write_text("<!doctype html>\n404\n")
    reporter = Reporter(progress=lambda _: gone.unlink(missing_ok=True))
    told = encode_tables(folder, tmp_path / "store", model, reporter=reporter)
    failed = failures_of(tmp_path / "store")
    assert told["encoded"] == 2
    assert sorted(failed)[3:] == ["gone/(rest)", "nothing/(rest)", "page/(rest)"]
    assert "cannot be read: No such file" in failed["gone/(rest)"]["error"]
    assert "it is no " in failed["page/(rest)"]["error"]
    # A table that is damaged is left to the job also where it comes first.
    encode_tables(folder / f"page.{kind}", tmp_path / "other", model)
    assert failures_of(tmp_path / "other").keys() == {"page/(rest)"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_pictures_is_refused_before_the_work(model, tmp_path, kind):
    path = MAKERS[kind](
        tmp_path / "t" / f"a.{kind}", [{"url": "u", "text": "t", "picture_of": "x"}]
    )
    with pytest.raises(UsageError, match="its columns are url, text, picture_of") as caught:
        encode_tables(path, tmp_path / "store", model)
    assert str(path) in str(caught.value) and "--image-field" in str(caught.value)
    with pytest.raises(UsageError, match="no column 'jpg'"):
        encode_tables(path, tmp_path / "store", model, image_field="jpg")
    assert not (tmp_path / "store").exists()
    # One that comes later is a failed row, with the same words.
    MAKERS[kind](tmp_path / "t" / f"0.{kind}", rows(2))
    encode_tables(tmp_path / "t", tmp_path / "store", model)
    assert "its columns are url" in failures_of(tmp_path / "store")["a/(rest)"]["error"]


def test_the_column_is_told_or_asked_for(model, tmp_path):
    values = keyed(rows(2), mask=[{"bytes": picture(5), "path": None}] * 2)
    masks = pa.array([row["mask"] for row in values], pa.struct([("bytes", pa.binary())]))
    make_parquet(tmp_path / "t.parquet", rows(2))
    table = pq.read_table(tmp_path / "t.parquet").append_column("mask", masks)
    pq.write_table(table, tmp_path / "t.parquet")
    notes = list[str]()
    run = partial(
        encode_tables, tmp_path / "t.parquet", model=model, reporter=Reporter(note=notes.append)
    )
    run(tmp_path / "images")
    assert [n for n in notes if "Column image of" in n and "not mask; --image-field" in n]
    notes.clear()
    run(tmp_path / "masks", image_field="mask")
    assert not notes
    found = open_store(str(tmp_path / "masks"))
    assert torch.equal(found["t/00000000"], found["t/00000001"])
    assert rows_of(tmp_path / "masks")[0]["source"].endswith("t.parquet::0.mask")
    assert verified(tmp_path / "masks")
    with pytest.raises(StoreError, match="image_field is 'mask' there and None now"):
        run(tmp_path / "masks")


def test_paths_lie_in_the_folder_of_the_table_or_in_the_one_that_is_named(model, tmp_path):
    folder = tmp_path / "data" / "lists"
    unpacked([(f"{n}.png", picture(n)) for n in range(4)], tmp_path / "data" / "images")
    unpacked([("9.png", picture(9))], folder)
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(8))
    names = [
        *("9.png", f"{folder}/9.png", "../images/0.png", f"{tmp_path}/data/images/1.png"),
        *("../../secret.png", str(secret), "gone.png", "https://example.org/a.png"),
    ]
    table = make_jsonl(folder / "t.jsonl", [{"image": name, "text": name} for name in names])
    encode_tables(table, tmp_path / "store", model)
    found = rows_of(tmp_path / "store")
    assert [row["status"] for row in found] == ["ok"] * 2 + ["failed"] * 6
    assert found[0]["source"] == found[1]["source"] == f"{folder}/9.png"
    assert "leads out of" in found[2]["error"] and "--image-root" in found[2]["error"]
    assert found[6]["error"] == "the file is not there"
    root = str(tmp_path / "data")
    told = encode_tables(table, tmp_path / "wide", model, image_root=root, workers=1)
    found = rows_of(tmp_path / "wide")
    # With a root, relative paths begin there.
    assert (told["encoded"], told["failed"]) == (3, 5)
    assert found[0]["source"] == f"{root}/9.png"
    assert found[2]["source"] == f"{root}/images/0.png"
    assert [row["key"] for row in found] == [f"t/{n:08d}" for n in range(8)]
    assert verified(tmp_path / "wide")


def test_paths_are_read_some_at_a_time_and_come_in_order(tmp_path):
    """Also those in front of the place where a table is damaged."""
    count = 2 * READS + 4
    unpacked([(f"{n}.png", bytes([n])) for n in range(count)], tmp_path)
    values = [{"file_name": f"{n}.png", "n": n} for n in range(count)]
    make_arrow(tmp_path / "t.arrow", values, batch=count // 2)
    data = (tmp_path / "t.arrow").read_bytes()
    (tmp_path / "t.arrow").write_bytes(data[:-8])
    reader = READERS["arrow"](SUFFIXES["images"], Meter("test", None))
    *found, rest = reader.samples(InputRow("t", str(tmp_path / "t.arrow"), 0))
    assert [raw.data for raw in found] == [bytes([n]) for n in range(count)]
    assert [json.loads(raw.others[0].data)["n"] for raw in found] == list(range(count))
    assert rest.row.error is not None and "its end mark is missing" in rest.row.error


def test_beside_other_files_tables_are_left_out_with_a_note(model, tmp_path):
    def run(name, *sources):
        notes = list[str]()
        reporter = Reporter(note=notes.append)
        told = encode(
            None,
            tmp_path / "stores" / name,
            model,
            reporter,
            sources=tuple(map(str, sources)),
            samples_per_shard=None,
        )
        return told, [note for note in notes if "left out" in note]

    pictures = unpacked([(f"{n}.png", picture(n)) for n in range(3)], tmp_path / "pictures")
    make_jsonl(pictures / "metadata.jsonl", [{"file_name": "0.png", "text": "a"}])
    told, notes = run("plain", pictures)
    assert (told["encoded"], told["left_out"], notes) == (3, 0, [])
    make_parquet(pictures / "0.parquet", rows(2))
    told, notes = run("beside", pictures)
    assert (told["encoded"], told["left_out"]) == (3, 1)
    assert notes[0].startswith("1 parquet file is left out") and "/*.parquet'" in notes[0]
    with pytest.raises(UsageError, match="a parquet file of samples, named together with other"):
        run("named", pictures, pictures / "0.parquet")
    # img2dataset puts such a file beside each tar.
    tars = tmp_path / "tars"
    make_tar(tars / "00000.tar", members(4))
    make_parquet(tars / "00000.parquet", [{"url": "u"}])
    told, notes = run("tars", tars)
    assert (told["encoded"], told["left_out"]) == (4, 1)
    # Alone, the file that would tell of pictures is a table itself.
    alone = tmp_path / "alone"
    unpacked([("p/0.png", picture(0))], alone)
    make_jsonl(alone / "lists" / "metadata.jsonl", [{"file_name": "../p/0.png"}])
    told, _ = run("alone", alone / "lists")
    assert told["failed"] == 1


def test_options_that_do_not_go_with_the_sources(tables, model, tmp_path):
    run = partial(encode_tables, store=tmp_path / "store", model=model)
    pictures = unpacked([("0.png", picture(0))], tmp_path / "pictures")
    with pytest.raises(UsageError, match="--image-field is for tars and tables"):
        run(pictures, image_field="jpg")
    with pytest.raises(UsageError, match="--image-root is for tables"):
        run(pictures, image_root="/")
    with pytest.raises(UsageError, match="Of parquet files, each becomes one shard"):
        run(tables / "parquet", samples_per_shard=4)
    run(tables / "parquet")
    with pytest.raises(
        StoreError, match="holds latents of parquet files of images, and the inputs"
    ):
        run(tables / "arrow")


def test_a_table_can_be_compared(tables, model):
    job = RoundtripJob(sources=(str(tables / "parquet"),), models=(model,), device="cpu")
    assert run_roundtrip(replace(job, max_bad="1", workers=0))["images"] == 11


def test_a_plan_knows_how_many_rows_a_table_has_about(tables, model, tmp_path):
    for kind in KINDS:
        told = encode_tables(tables / kind / f"a.{kind}", tmp_path / "store", model, dry_run=True)
        assert told["inputs_are_guess"] and abs(told["to_encode"] - 7) <= 1, kind
