"""Encodes tables of pictures, Parquet, Arrow and JSON lines: each row counts, none is lost."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from jobkit import decode, encode, failures_of, interrupt_after, rows_of, tree
from tablekit import (
    MAKERS,
    encode_tables,
    keyed,
    make_arrow,
    make_jsonl,
    make_parquet,
    rows,
    verified,
)
from tarjobkit import (
    latents_in,
    picture,
    read_tar,
    standard_streams,
    unpacked,
)

from latentcli import open_store
from latentcli.core.errors import Interrupted
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.inspect import inspect_store
from latentcli.shards.store.verify import verify_shards

KINDS = tuple(MAKERS)


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
    assert found[3]["source"] == f"a.{kind}::3.image"
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
def test_a_changed_table_is_encoded_again_and_a_renamed_one_is_not(model, tmp_path, kind):
    path, other = (tmp_path / kind / f"{name}.{kind}" for name in "ab")
    MAKERS[kind](path, rows(3))
    run = partial(encode_tables, tmp_path / kind, tmp_path / "store", model)
    run()
    before = json.loads((tmp_path / "store" / "shards" / "000000.json").read_text())
    assert before["source"] == path.name and len(before["sha256_source"]) == 64
    path.touch()
    assert run()["encoded"] == 0
    path.rename(other)
    told = run()
    assert (told["encoded"], told["renamed"]) == (0, 1)
    found = rows_of(tmp_path / "store")
    assert [row["source"] for row in found] == [f"b.{kind}::{n}.image" for n in range(3)]
    assert verified(tmp_path / "store")
    MAKERS[kind](other, rows(5))
    assert run()["encoded"] == 5
    assert len(rows_of(tmp_path / "store")) == 5


def test_a_table_to_standard_output(tables, model, tmp_path):
    with standard_streams(tmp_path / "ends") as ends:
        told = encode_tables(tables / "parquet" / "a.parquet", "-", model)
    assert told["encoded"] == 7
    names = read_tar(ends.output)
    assert names["00000002.txt"] == b"caption 2"
    assert latents_in(ends.output).keys() == {f"{n:08d}/latent" for n in range(7)}


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
    assert failed["t/00000001"]["error"].startswith("line 2 is not JSON (")
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
    assert "damaged" in last["error"] and f"after row {whole}" in last["error"]
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
    assert "it is not " in failed["page/(rest)"]["error"]
    # A table that is damaged is left to the job also where it comes first.
    encode_tables(folder / f"page.{kind}", tmp_path / "other", model)
    assert failures_of(tmp_path / "other").keys() == {"page/(rest)"}


def test_a_table_can_be_compared(tables, model):
    job = RoundtripJob(sources=(str(tables / "parquet"),), models=(model,), device="cpu")
    assert run_roundtrip(replace(job, max_bad="1", workers=0))["images"] == 11


def test_a_plan_knows_how_many_rows_a_table_has_about(tables, model, tmp_path):
    for kind in KINDS:
        told = encode_tables(tables / kind / f"a.{kind}", tmp_path / "store", model, dry_run=True)
        assert told["inputs_are_guess"] and abs(told["to_encode"] - 7) <= 1, kind
        assert told["kind"] == kind
