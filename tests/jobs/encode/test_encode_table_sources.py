"""Tables as sources: datasets, columns that are found or named, paths, and other files beside."""

from __future__ import annotations

import json
from functools import partial

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from clipkit import MODEL, clips_in
from jobkit import encode, failures_of, rows_of
from tablekit import MAKERS, encode_tables, make_arrow, make_jsonl, make_parquet, rows, verified
from tarjobkit import make_tar, members, picture, unpacked

from latentcli import open_store
from latentcli.core.errors import StoreError, UsageError
from latentcli.core.types import InputRow
from latentcli.jobs.loader.find_media import SUFFIXES
from latentcli.jobs.loader.readers import READERS
from latentcli.jobs.loader.table_reader import READS
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import Reporter

KINDS = tuple(MAKERS)


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
    values = [{"bytes": picture(5)}] * 2
    masks = pa.array(values, pa.struct([("bytes", pa.binary())]))
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
    with pytest.raises(StoreError, match="image_field is 'mask' in the store and None now"):
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
    assert found[0]["source"] == found[1]["source"] == "9.png"
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
    # Under another name of the table, the files that it names are the same.
    table = table.rename(folder / "u.jsonl")
    assert encode_tables(table, tmp_path / "wide", model, image_root=root)["renamed"] == 1
    again = rows_of(tmp_path / "wide")
    assert [row["key"] for row in again] == [f"u/{n:08d}" for n in range(8)]
    assert [row["source"] for row in again[:4]] == [row["source"] for row in found[:4]]
    assert again[4]["source"] == "u.jsonl::4.image"
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


def test_options_that_do_not_go_with_the_sources(model, tmp_path):
    run = partial(encode_tables, store=tmp_path / "store", model=model)
    pictures = unpacked([("0.png", picture(0))], tmp_path / "pictures")
    with pytest.raises(UsageError, match="--image-field is for tars and tables"):
        run(pictures, image_field="jpg")
    with pytest.raises(UsageError, match="--image-root is for tables"):
        run(pictures, image_root="/")
    table = make_parquet(tmp_path / "t.parquet", rows(2))
    with pytest.raises(UsageError, match="Each parquet file becomes one shard"):
        run(table, samples_per_shard=4)
    run(table)
    with pytest.raises(StoreError, match="latents of parquet files of images, and the inputs"):
        run(make_arrow(tmp_path / "t.arrow", rows(2)))


def test_remote_tables_are_read_in_parts(model, tmp_path):
    """And files that they name, from the same folder."""
    url, memory = f"memory://{tmp_path.name}", fsspec.filesystem("memory")
    make_parquet(tmp_path / "a.parquet", rows(5), row_group_size=2)
    make_arrow(tmp_path / "b.arrow", rows(3))
    make_jsonl(tmp_path / "c.jsonl", [{"image": "p/0.png"}, {"image": "../0.png"}])
    (tmp_path / "0.png").write_bytes(picture(0))
    for name, target in (("a.parquet", "t/a.parquet"), ("b.arrow", "t/b.arrow")):
        memory.put_file(str(tmp_path / name), f"{url}/{target}")
    memory.put_file(str(tmp_path / "c.jsonl"), f"{url}/t/c.jsonl")
    memory.put_file(str(tmp_path / "0.png"), f"{url}/t/p/0.png")
    for name, encoded, failed in (("a.parquet", 5, 0), ("b.arrow", 3, 0), ("c.jsonl", 1, 1)):
        store = tmp_path / f"{name}.store"
        told = encode_tables(f"{url}/t/{name}", store, model)
        assert (told["encoded"], told["failed"]) == (encoded, failed), name
        assert verified(store)
        assert encode_tables(f"{url}/t/{name}", store, model)["skipped"] == encoded
    # Its digest would need all of it a second time.
    digests = [
        json.loads((tmp_path / f"{name}.store/shards/000000.json").read_text()).get("sha256_source")
        for name in ("a.parquet", "b.arrow")
    ]
    assert digests[0] is None and digests[1] is not None


def test_a_column_of_clips(tmp_path):
    pytest.importorskip("av")
    files = sorted(clips_in(tmp_path / "clips", (4, 2)).iterdir())
    columns = {"video": [path.read_bytes() for path in files], "id": [p.stem for p in files]}
    table = pa.table(columns | {"image": ["x"] * len(files)})
    pq.write_table(table, tmp_path / "t.parquet")
    encode(tmp_path / "clips", tmp_path / "plain", MODEL, samples_per_shard=100)
    told = encode_tables(tmp_path / "t.parquet", tmp_path / "store", MODEL, media="clips")
    assert (told["media"], told["encoded"]) == ("clips", len(files))
    plain, found = open_store(str(tmp_path / "plain")), open_store(str(tmp_path / "store"))
    for key in plain:
        assert torch.equal(found[f"t/{key}"], plain[key])
    assert verified(tmp_path / "store")
