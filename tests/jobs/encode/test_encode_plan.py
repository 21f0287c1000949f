"""Specs, names of stores, dry runs, and options that contradict each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness.picture_files import save, scene
from jobkit import (
    cli,
    encode,
    encode_job,
    latents_of,
    toy_model,
    tree,
)
from PIL import Image

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.encode import plan as plans
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.encode.plan import default_store, stored_spec, with_stored
from latentcli.jobs.inference.engine import engine_of
from latentcli.jobs.store.encode_command import encode_words
from latentcli.jobs.store.verify import preprocessing
from latentcli.shards.store.manifest import Manifest, read_manifest


def test_another_spec_is_refused(mixed, mixed_store, model, other_model, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(mixed_store, store)
    before = tree(store)
    for options, word in (
        ({"batch_size": 2}, "encode.batch_size is 3 in the store and 2 now"),
        ({"latents": "raw"}, "latents.state"),
        ({"size": "32"}, "preprocess.resize"),
        ({"sample": 0}, "latents.sample is None in the store and 0 now"),
        ({"samples_per_shard": 5}, "write.samples_per_shard"),
    ):
        with pytest.raises(StoreError, match=word):
            encode(mixed, store, model, **options)
    with pytest.raises(
        StoreError, match=r"with .*toy \(weights \w{12}\), and the model is .*other \("
    ):
        encode(mixed, store, other_model)
    assert tree(store) == before


@pytest.mark.parametrize(("dtype", "other"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_a_store_keeps_its_dtype(mixed, model, tmp_path, dtype, other):
    """Whatever auto means here: one of the two is another one."""
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    encode(mixed, begun, model, dtype=dtype, limit=8, samples_per_shard=4)
    found = encode(mixed, begun, model, samples_per_shard=4)
    assert (found["skipped"], found["dtype"]) == (8, dtype)
    with pytest.raises(
        StoreError, match=f"encode.dtype is '{dtype}' in the store and '{other}' now"
    ):
        encode(mixed, begun, model, dtype=other, samples_per_shard=4)
    encode(mixed, whole, model, dtype=dtype, samples_per_shard=4)
    assert tree(begun / "shards") == tree(whole / "shards")


def test_a_store_keeps_its_limit_of_memory(mixed, model, tmp_path):
    """Left out it is the store's, also for a plan; another one is refused, with both told."""
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    encode(mixed, begun, model, max_memory="2GiB", limit=8)
    planned = encode(mixed, begun, model, dry_run=True)
    assert (planned["refused"], planned["already_encoded"]) == ([], 8)
    assert encode(mixed, begun, model)["skipped"] == 8
    words = f"encode.max_memory is {2 << 30} in the store and {3 << 30} now"
    with pytest.raises(StoreError, match=words):
        encode(mixed, begun, model, max_memory="3GiB")
    encode(mixed, whole, model, max_memory="2GiB")
    assert tree(begun / "shards") == tree(whole / "shards")


def test_the_limit_that_is_kept_holds(mixed, model, tmp_path):
    """It is not only written down: the model that goes on is loaded below it."""
    store = tmp_path / "store"
    encode(mixed, store, model, max_memory="2GiB")
    kept = with_stored(encode_job(mixed, store, model), stored_spec(store))
    assert engine_of(kept).rooms["encode"].limit < kept.most_bytes == 2 << 30


def test_the_manifest_that_is_there_is_read_once_for_a_plan(mixed, mixed_store, model, monkeypatch):
    reads = []

    def read(store: Path) -> Manifest:
        reads.append(store)
        return read_manifest(store)

    monkeypatch.setattr(plans, "read_manifest", read)
    assert encode(mixed, mixed_store, model, batch_size=None)["encoded"] == 0
    assert reads == [mixed_store]


def test_the_same_model_under_another_spelling_goes_on(mixed, mixed_store, model, monkeypatch):
    monkeypatch.chdir(Path(model).parent)
    found = encode(mixed, mixed_store, Path(model).name)
    assert found["encoded"] == 0


def test_dry_run_writes_nothing(mixed, mixed_store, model, tmp_path):
    plan = encode(mixed, tmp_path / "store", model, dry_run=True, size="64x32")
    assert not (tmp_path / "store").exists()
    assert (plan["to_encode"], plan["shards"]) == (25, 7)
    before = tree(mixed_store)
    plan = encode(mixed, mixed_store, model, dry_run=True)
    assert (plan["to_encode"], plan["already_encoded"], plan["shards"]) == (0, 23, 0)
    assert plan["reasons"]["failed"]["inputs"] == 2
    assert plan["bytes"] == 0 and tree(mixed_store) == before


def test_usage_errors_leave_no_folder(mixed, model, tmp_path):
    for options in (
        {"latents": "moments", "sample": 3},
        {"latents": "latent"},
        {"size": "100"},
        {"size": "64", "resize": "none"},
        {"size": None, "resize": "crop"},
        {"batch_size": 0},
        {"workers": -1},
        {"device": "tpu"},
    ):
        with pytest.raises(UsageError):
            encode(mixed, tmp_path / "store", model, **options)
    with pytest.raises(UsageError):
        encode(tmp_path / "nowhere", tmp_path / "store", model)
    assert not (tmp_path / "store").exists()


def test_a_decoder_cannot_encode(mixed, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = toy_model(tmp_path / "decoder")
    state = load_file(folder / "model.safetensors")
    save_file(
        {name: t for name, t in state.items() if not name.startswith("encoder.")},
        folder / "model.safetensors",
    )
    with pytest.raises(UsageError, match=r"has only a decoder.*semdisdiffae"):
        encode(mixed, tmp_path / "store", str(folder))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos", "photos.fcdm_nano.latents"),
        ("a/b/shots.v2", "shots.v2.fcdm_nano.latents"),
        ("a/one.jpg", "one.fcdm_nano.latents"),
        ("@lists/train.txt", "train.fcdm_nano.latents"),
    ],
)
def test_the_default_store_is_named_after_the_source(tmp_path, monkeypatch, source, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / source.removeprefix("@")
    if path.suffix in (".jpg", ".txt"):
        path.parent.mkdir(parents=True)
        path.touch()
    else:
        path.mkdir(parents=True)
    assert default_store((source,), "fcdm_nano") == name


@pytest.mark.parametrize(
    ("source", "words", "told"),
    [("000", ("--class-token",), "predicts no class token"), ("none", (), "none does not exist")],
    ids=["all find it", "the first finds it"],
)
def test_a_refusal_is_told_once_by_several_processes(mixed, model, tmp_path, source, words, told):
    given = ("--model", model, "--device", "cpu", "--resize", "none", "--devices", 2, *words)
    run = cli("encode", mixed / source, "-o", tmp_path / "store", *given)
    assert run.returncode == 2 and told in run.stderr
    assert run.stderr.count("error: ") == 1 and "Rank" not in run.stderr


def test_the_default_store_of_a_job(mixed, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = encode_job(mixed / "000" / "000000.jpg", tmp_path, model, output=None)
    found = run_encode(job)
    assert found["store"] == "000000.toy.latents" and Path(found["store"]).is_dir()


def test_a_decoder_preset_is_refused_before_its_weights_are_looked_for(
    mixed, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="cannot encode; flux2, flux2_small_decoder, taef2"):
        encode(mixed, tmp_path / "store", "capacitor_decoder")
    assert not (tmp_path / "store").exists()


def jpegs(folder: Path, numbers: range) -> Path:
    """Photographs of a kind, of which a half is enough for 48x48."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        values = scene(300 + number, 200)
        data = save(Image.fromarray(values), "JPEG", quality=90)
        (folder / f"{number}.jpg").write_bytes(data)
    return folder


def test_a_store_is_gone_on_with_as_its_files_were_decoded(model, tmp_path):
    folder = jpegs(tmp_path / "in", range(3))
    usual, exact = tmp_path / "usual", tmp_path / "exact"
    encode(folder, usual, model, size="48")
    encode(folder, exact, model, size="48", exact_resize=True)
    gaps = {
        store: preprocessing(read_manifest(store).spec).reducing_gaps for store in (usual, exact)
    }
    assert gaps == {usual: (2, 3, 3), exact: None}
    assert "reducing_gaps" not in read_manifest(exact).preprocessing
    assert "--exact-resize" in encode_words(read_manifest(exact), [str(folder)], "there")
    assert "--exact-resize" not in encode_words(read_manifest(usual), [str(folder)], "there")
    jpegs(folder, range(3, 5))
    for store in (usual, exact):
        assert encode(folder, store, model, size="48")["encoded"] == 2
    whole = tmp_path / "whole"
    encode(folder, whole, model, size="48", exact_resize=True)
    told, other, expected = latents_of(exact), latents_of(usual), latents_of(whole)
    assert {key: value.tolist() for key, value in told.items()} == {
        key: value.tolist() for key, value in expected.items()
    }
    assert all(other[key].tolist() != told[key].tolist() for key in told)
    before = tree(usual)
    with pytest.raises(
        StoreError, match=r"preprocess.reducing_gaps is \[2, 3, 3\] in the store and None"
    ):
        encode(folder, usual, model, size="48", exact_resize=True)
    assert tree(usual) == before


@pytest.mark.parametrize("options", [{}, {"size": "48", "filter": "box"}])
def test_files_are_decoded_whole_where_nothing_is_resized_or_every_pixel_counts(
    options, model, tmp_path
):
    encode(jpegs(tmp_path / "in", range(1)), tmp_path / "store", model, **options)
    assert "reducing_gaps" not in read_manifest(tmp_path / "store").preprocessing
