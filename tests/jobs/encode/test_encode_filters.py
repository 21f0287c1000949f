"""Inputs that filters leave out: rows that are no failures, counted wherever inputs are."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest
from clipkit import MODEL, clips_in
from jobkit import decode, encode, failures_of, interrupt_after, rows_of, tree
from tablekit import encode_tables, make_parquet
from tarjobkit import make_tar, picture, read_tar, standard_streams, unpacked

from latentcli import LatentDataset, open_store
from latentcli.cli import words
from latentcli.cli.app import main
from latentcli.core.errors import Interrupted, LatentCliError, StoreError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.inspect import inspect_store
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.store.verify import verify_shards

SIZES = [(64, 48), (48, 64), (30, 64), (80, 48), (96, 32), (64, 64)]
LIMITS = {"min_side": 32, "max_aspect": 2.0}
"""Leave out the third and the fifth of SIZES."""
REASONS = {
    "its short side is below 32 pixels (--min-side)": 1,
    "its long side is more than 2 times the short one (--max-aspect)": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture of each of SIZES, and one that is cut short."""
    files = [(f"{n}.png", picture(n, size)) for n, size in enumerate(SIZES)]
    bad = ("6.png", picture(6)[:200])
    return unpacked([*files, bad], tmp_path_factory.mktemp("filters") / "pictures")


@pytest.fixture(scope="module")
def store(folder, model, tmp_path_factory):
    store = tmp_path_factory.mktemp("filters") / "store"
    encode(folder, store, model, **LIMITS)
    return store


def test_what_is_left_out_is_a_row_and_no_failure(folder, store, model):
    found = rows_of(store)
    assert [row["status"] for row in found] == [
        *("ok", "ok", "filtered", "ok", "filtered", "ok", "failed")
    ]
    assert (found[2]["stage"], found[2]["error"]) == ("filter", next(iter(REASONS)))
    assert len(found[2]["sha256"]) == 64
    assert list(failures_of(store)) == ["6"]
    records = [json.loads(path.read_text()) for path in sorted((store / "shards").glob("*.json"))]
    assert [(r["inputs"], r["encoded"], r["failed"], r["filtered"]) for r in records] == [
        (4, 3, 0, 1),
        (3, 1, 1, 1),
    ]
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["totals"]["filtered"] == 2 and manifest["totals"]["failed"] == 1
    assert manifest["spec"]["size_filter"] == LIMITS


def test_every_document_counts_them(folder, store, model, tmp_path):
    told = encode(folder, store, model, **LIMITS)
    assert (told["encoded"], told["skipped"], told["failed"], told["inputs"]) == (0, 4, 1, 7)
    assert (told["filtered"], told["filter_reasons"]) == (2, REASONS)
    assert told["reasons"] and not set(told["reasons"]) & set(REASONS)
    assert list(verify_shards(store)) == []
    checked = run_verify(VerifyJob(store=str(store), device="cpu"))
    assert (checked["ok"], checked["filtered"], checked["failed"]) == (True, 2, 1)
    seen = inspect_store(str(store), str(tmp_path / "report"), 0)
    assert (seen["filtered"], seen["filter_reasons"], seen["failed"]) == (2, REASONS, 1)
    assert seen["report"]["inputs"] == 7


def test_readers_pass_over_them(store, tmp_path):
    opened = open_store(str(store))
    assert len(opened) == len(LatentDataset(str(store))) == 4
    assert "2" not in opened and opened.row("2").status == "filtered"
    with pytest.raises(StoreError, match=r"no latent in .*: filter: its short side"):
        _ = opened["2"]
    done = decode(store, tmp_path / "out")
    assert (done["decoded"], done["failed"]) == (4, 0)


def test_the_bytes_do_not_depend_on_workers_or_interruptions(folder, store, model, tmp_path):
    encode(folder, tmp_path / "workers", model, workers=1, **LIMITS)
    assert tree(tmp_path / "workers") == tree(store)
    with pytest.raises(Interrupted):
        encode(folder, tmp_path / "store", model, interrupt_after(3), **LIMITS)
    encode(folder, tmp_path / "store", model, **LIMITS)
    assert tree(tmp_path / "store") == tree(store)


def test_they_are_not_tried_again_unless_they_changed(folder, model, tmp_path):
    own = shutil.copytree(folder, tmp_path / "pictures")
    run = partial(encode, own, tmp_path / "store", model, **LIMITS)
    run()
    for retry in (None, "failed", "changed"):
        assert run(retry=retry)["encoded"] == 0
    (own / "2.png").write_bytes(picture(2, (64, 64)))
    told = run()
    assert (told["encoded"], told["filtered"]) == (1, 1)
    assert "2" in open_store(str(tmp_path / "store"))


def test_other_filters_are_another_store(folder, store, model):
    with pytest.raises(StoreError, match=r"size_filter.min_side is 32 in the store and 16 now"):
        encode(folder, store, model, **LIMITS | {"min_side": 16})
    with pytest.raises(
        StoreError, match=r"size_filter.max_aspect is 2.0 in the store and None now"
    ):
        encode(folder, store, model, min_side=32)
    with pytest.raises(
        StoreError, match=r"size_filter.min_megapixels is None in the store and 0.001"
    ):
        encode(folder, store, model, **LIMITS, min_megapixels=0.001)


def test_a_store_of_an_earlier_version_has_none(folder, model, tmp_path):
    """Its files do not have the field."""
    store = tmp_path / "store"
    encode(folder, store, model)
    for path in (store / "manifest.json", *(store / "shards").glob("*.json")):
        document = json.loads(path.read_text())
        del document.get("totals", document)["filtered"]
        path.write_text(json.dumps(document))
    told = encode(folder, store, model)
    assert (told["encoded"], told["skipped"], told["filtered"]) == (0, 6, 0)
    assert list(verify_shards(store)) == []


def test_max_bad_and_the_exit_code_do_not_mind_them(folder, model, tmp_path, capsys):
    small = unpacked([("0.png", picture(0)), ("1.png", picture(1, (30, 30)))], tmp_path / "small")
    options = ("--model", model, "--device", "cpu", "--resize", "none", "--no-self-check")
    line = ("encode", small, "-o", tmp_path / "store", *options, "--min-side", 32)
    assert main([*map(str, line), "--max-bad", "0", "--on-error", "stop"]) == 0
    said = capsys.readouterr().err
    assert "1 left out by the filters" in said
    assert "1 input left out by the filters:" in said
    assert "1 x its short side is below 32 pixels (--min-side)" in said
    assert main(["verify", str(tmp_path / "store"), "--device", "cpu"]) == 0
    assert "left out by filters" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "store")]) == 0
    assert "1 (1 as its short side is below 32" in " ".join(capsys.readouterr().out.split())


def test_a_plan_tells_how_many_it_saw(folder, model, tmp_path, capsys):
    told = encode(folder, tmp_path / "store", model, dry_run=True, **LIMITS)
    assert (told["looked_at"], told["filtered"], told["to_encode"]) == (7, 2, 7)
    encode(folder, tmp_path / "store", model, **LIMITS)
    again = encode(folder, tmp_path / "store", model, dry_run=True, **LIMITS)
    assert {
        name: reason["inputs"] for name, reason in again["reasons"].items() if reason["inputs"]
    } == {
        "failed": 1,
        "filtered": 2,
        "done": 4,
    }
    options = ("--model", model, "--device", "cpu", "--min-side", "32", "--max-bad", "1")
    assert main(["plan", str(folder), "-o", str(tmp_path / "new"), *options]) == 0
    assert "The filters leave out 1 of the 7 inputs" in " ".join(capsys.readouterr().out.split())


def test_where_nothing_is_left_the_store_is_complete(folder, model, tmp_path):
    told = encode(folder, tmp_path / "store", model, min_side=1000, self_check=True)
    assert (told["encoded"], told["filtered"], told["failed"]) == (0, 7, 0)
    assert list(verify_shards(tmp_path / "store")) == []
    assert "7 left out by the filters" in words.outcome("encoded", told)


def test_samples_of_tars_and_rows_of_tables(model, tmp_path):
    tar = make_tar(
        tmp_path / "t.tar",
        [
            (f"{n}.{field}", data)
            for n, size in enumerate(SIZES)
            for field, data in (("png", picture(n, size)), ("txt", b"caption"))
        ],
    )
    table = make_parquet(
        tmp_path / "t.parquet",
        [
            {"image": {"bytes": picture(n, size), "path": None}, "text": "caption", "id": n}
            for n, size in enumerate(SIZES)
        ],
    )
    for source in (tar, table):
        store = tmp_path / f"{source.name}.store"
        run = partial(encode_tables, source, store, model, shard_format="webdataset", **LIMITS)
        told = run()
        assert (told["encoded"], told["failed"], told["filtered"]) == (4, 0, 2)
        names = read_tar((store / "shards" / "000000.tar").read_bytes())
        assert {name.partition(".")[0] for name in names} == {"0", "1", "3", "5"}
        assert list(verify_shards(store)) == []
        assert (
            encode_tables(source, store, model, shard_format="webdataset", **LIMITS)["skipped"] == 4
        )
        plain = tmp_path / f"{source.name}.plain"
        encode_tables(source, plain, model, **LIMITS)
        lines = (plain / "shards" / "000000.fields.jsonl").read_text().splitlines()
        assert len(lines) == 4
        assert list(verify_shards(plain)) == []


def test_to_standard_output(folder, model, tmp_path):
    with standard_streams(tmp_path / "ends") as ends:
        told = encode(folder, "-", model, samples_per_shard=None, **LIMITS)
    assert (told["encoded"], told["failed"], told["filtered"], told["inputs"]) == (4, 1, 2, 7)
    assert told["filter_reasons"] == REASONS and len(told["failures"]) == 1
    names = {name.partition(".")[0] for name in read_tar(ends.output)}
    assert names == {"0", "1", "3", "5"}


def test_clips(tmp_path):
    pytest.importorskip("av")
    clips = clips_in(tmp_path / "clips", (3, 2))
    store = tmp_path / "store"
    told = encode(clips, store, MODEL, min_side=1000)
    assert (told["encoded"], told["failed"], told["filtered"]) == (0, 0, 2)
    assert {row["status"] for row in rows_of(store)} == {"filtered"}
    told = encode(clips, tmp_path / "all", MODEL, min_side=8)
    assert (told["encoded"], told["filtered"]) == (2, 0)


def test_roundtrip(folder, model):
    job = RoundtripJob(
        sources=(str(folder),), models=(model,), device="cpu", max_bad="1", workers=0, **LIMITS
    )
    told = run_roundtrip(job)
    assert (told["images"], told["failed"], told["filtered"]) == (4, 1, 2)
    assert told["filter_reasons"] == REASONS
    assert told["settings"]["size_filter"] == LIMITS
    everything = {"sources": (str(folder / "0.png"),), "min_side": 1000}
    with pytest.raises(LatentCliError, match="the filters leave out all of them: its short side"):
        run_roundtrip(RoundtripJob(models=(model,), device="cpu", workers=0, **everything))
