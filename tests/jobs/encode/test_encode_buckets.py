"""Pictures of many shapes into buckets: what is stored of each, in whatever way the job is run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from encodekit import pictures, watch
from jobkit import encode, encode_job, latents_of, rows_of, tree

from latentcli.core.errors import UsageError
from latentcli.images.buckets import described_buckets, make_buckets
from latentcli.images.preprocess import PreprocessSpec, geometry
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.loader.prepare import TASK_SIZE, task_size
from latentcli.jobs.loader.sizes import preprocess_spec
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.verify import run_verify

SIZES = ((200, 100), (100, 200), (130, 130), (90, 60), (300, 80)) * 3
AREA = {"area": "128", "bucket_step": 32}
BUCKETS = {"resize": None, **AREA}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "in", SIZES, bad=(7,))


@pytest.fixture(scope="module")
def store(tmp_path_factory, folder, model):
    store = tmp_path_factory.mktemp("store") / "buckets"
    encode(folder, store, model, samples_per_shard=10, **AREA, resize="bucket")
    return store


def spec_of(store: Path) -> dict:
    return json.loads((store / "manifest.json").read_text())["spec"]


def test_rows_and_shapes_are_those_of_the_bucket(store):
    buckets = make_buckets("area", 128, 32, 16)
    latents = latents_of(store)
    used = set()
    for number, (row, size) in enumerate(zip(rows_of(store), SIZES, strict=True)):
        if number == 7:
            assert row["status"] == "failed" and "resized_size" not in row
            continue
        width, height = buckets.pick(size)
        assert row["original_size"] == list(size)
        assert row["resized_size"] == list(buckets.resized(size, (width, height)))
        left, top, right, bottom = row["crop"]
        assert (right - left, bottom - top) == (width, height)
        assert left == (row["resized_size"][0] - width) // 2
        assert row["latent_shape"] == [8, height // 16, width // 16]
        assert latents[f"{row['key']}/latent"].shape == (8, height // 16, width // 16)
        used.add((width, height))
    assert len(used) == 4  # two of the five sizes share one


def test_the_spec_holds_the_table(store):
    told = spec_of(store)["preprocess"]
    buckets = make_buckets("area", 128, 32, 16)
    assert (told["resize"], told["size"]) == ("bucket", None)
    assert told["buckets"]["table"] == [list(size) for size in buckets.table]
    assert told["buckets"]["rule"] == "area"


def test_batches_hold_one_size_each_and_units_are_flushed(folder, model, tmp_path, monkeypatch):
    seen = watch(monkeypatch)
    encode(folder, tmp_path / "store", model, samples_per_shard=10, **BUCKETS)
    buckets = make_buckets("area", 128, 32, 16)
    expected: list[tuple[int, ...]] = []
    for unit in (range(10), range(10, 15)):
        groups: dict[tuple[int, int], int] = {}
        for number in unit:
            if number == 7:
                continue
            size = buckets.pick(SIZES[number])
            groups[size] = groups.get(size, 0) + 1
            if groups[size] == 3:
                expected.append((3, 3, size[1], size[0]))
                del groups[size]
        expected += [(count, 3, h, w) for (w, h), count in groups.items()]
    assert seen.done == expected and len({shape[0] for shape in expected}) > 1


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_byte(folder, store, model, tmp_path, workers):
    encode(folder, tmp_path / "store", model, workers=workers, samples_per_shard=10, **BUCKETS)
    assert tree(tmp_path / "store") == tree(store)


def test_tasks_are_as_long_as_their_largest_bucket_allows():
    def tasks(**options: object) -> int:
        return task_size(preprocess_spec(replace(encode_job("x", Path("y"), "m"), **options), 16))

    assert tasks(resize=None, area="128") == TASK_SIZE
    assert tasks(resize=None, area="1024") == 2
    assert tasks(resize=None, area="4096") == 1
    assert tasks(resize=None, area="1024", bucket_rule="ai-toolkit") == 2
    # Of these, the longer side has no bound.
    assert tasks(resize=None, area="128", bucket_rule="simpletuner-pixel") == 1
    assert task_size(PreprocessSpec(None, 16)) == 1


def test_buckets_of_a_file(folder, model, tmp_path):
    (tmp_path / "buckets.txt").write_text("64x64\n96x48  # wide\n48x96\n")
    encode(folder, tmp_path / "store", model, resize=None, buckets=str(tmp_path / "buckets.txt"))
    shapes = {tuple(row["latent_shape"]) for row in rows_of(tmp_path / "store") if "crop" in row}
    assert shapes == {(8, 4, 4), (8, 3, 6), (8, 6, 3)}
    assert spec_of(tmp_path / "store")["preprocess"]["buckets"]["rule"] == "file"


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("kohya", {"area": "256", "bucket_min": 128, "bucket_max": 512}),
        ("kohya", {"area": "128x192", "no_upscale": True}),
        ("musubi", {"area": "160x96"}),
        ("musubi", {"area": "160x96", "no_upscale": True}),
        ("ai-toolkit", {"area": "128"}),
        ("simpletuner", {"area": "128", "bucket_step": 16}),
        ("simpletuner-pixel", {"area": "96", "bucket_step": 16}),
    ],
)
def test_rules_of_other_trainers(folder, model, tmp_path, rule, options):
    if "no_upscale" in options:
        options = options | {"bucket_step": 16}
    encode(folder, tmp_path / "store", model, resize=None, bucket_rule=rule, **options)
    told = spec_of(tmp_path / "store")["preprocess"]["buckets"]
    area = tuple(int(side) for side in options["area"].split("x"))
    buckets = make_buckets(
        *(rule, area if len(area) == 2 else area[0], options.get("bucket_step"), 16),
        no_upscale=options.get("no_upscale", False),
        min_side=options.get("bucket_min"),
        max_side=options.get("bucket_max"),
    )
    assert told == buckets.described() and described_buckets(told) == buckets
    for row in rows_of(tmp_path / "store"):
        if row["status"] == "ok":
            spec = PreprocessSpec(None, 16, buckets=buckets)
            resized, crop = geometry(tuple(row["original_size"]), spec)
            assert (row["resized_size"], row["crop"]) == (list(resized), list(crop))
            width, height = buckets.pick(tuple(row["original_size"]))
            assert row["latent_shape"] == [8, height // 16, width // 16]
    again = run_verify(VerifyJob(store=str(tmp_path / "store"), samples=3, device="cpu"))
    assert again["ok"] and again["reencoded"]["samples"] == 3


def test_verify_encodes_them_again(store):
    document = run_verify(VerifyJob(store=str(store), samples=14, device="cpu"))
    assert document["ok"], document["problems"]
    assert document["reencoded"]["samples"] == 14 and document["reencoded"]["unreadable"] == 0


def test_roundtrip_takes_the_same_options(folder, model):
    job = RoundtripJob(
        sources=(str(folder),), models=(model,), device="cpu", workers=0, batch_size=3, **AREA
    )
    told = run_roundtrip(job)
    assert told["images"] == 14 and told["failed"] == 1
    assert told["settings"]["resize"] == "bucket"
    assert told["settings"]["buckets"] == make_buckets("area", 128, 32, 16).described()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resize": "bucket"}, "needs either an --area"),
        ({"resize": "bucket", "area": "128", "buckets": "f"}, "needs either an --area"),
        ({"resize": "bucket", "size": "64"}, "leave out --size 64"),
        ({"resize": "bucket", "area": "128", "size": "64"}, "leave out --size 64"),
        ({"resize": None, "area": "128", "size": "64"}, "--area .* not for --size 64"),
        ({"resize": "none", "area": "128"}, "--area .* not for --resize none"),
        ({"resize": "crop", "size": "64", "bucket_step": 32}, "--bucket-step .* --resize crop"),
        ({"resize": "none", "bucket_rule": "kohya"}, "--bucket-rule .* --resize none"),
        ({"resize": "none", "no_upscale": True}, "--no-upscale .* --resize none"),
        ({"resize": None, "bucket_min": 64}, "--bucket-min is for buckets: give an --area"),
        ({"resize": None, "bucket_max": 64}, "--bucket-max is for buckets: give an --area"),
        ({"resize": None, "buckets": "f", "no_upscale": True}, "leave out --no-upscale"),
        ({"resize": None, "buckets": "f", "bucket_step": 16}, "leave out --bucket-step"),
        ({"resize": None, "buckets": "f"}, "cannot read the bucket file f"),
        ({"resize": "none", "size": "64"}, "leave out --size 64"),
        ({"resize": "crop"}, "needs a --size"),
        ({"resize": None, "area": "128", "bucket_step": 24}, "try --bucket-step 48"),
        ({"resize": None, "area": "128", "bucket_rule": "musubi", "bucket_min": 32}, "no least"),
        (
            {"resize": None, "area": "128", "bucket_rule": "ai-toolkit", "no_upscale": True},
            "always enlarges pictures to whole bucket steps",
        ),
        ({"resize": None, "area": "128", "bucket_rule": "sdxl"}, "allowed are area, kohya, musubi"),
        ({"resize": None, "area": "big"}, "write one side like 256"),
    ],
)
def test_what_contradicts_itself_is_refused(folder, model, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        encode(folder, tmp_path / "store", model, **options)
    assert not (tmp_path / "store").exists()
