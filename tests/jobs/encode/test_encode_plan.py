"""Specs, names of stores, dry runs, and options that contradict each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from jobkit import (
    encode,
    encode_job,
    toy_model,
    tree,
)

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.encode.plan import default_store


def test_another_spec_is_refused(mixed, mixed_store, model, other_model, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(mixed_store, store)
    before = tree(store)
    for options, word in (
        ({"batch_size": 2}, "encode.batch_size is 3 there and 2 now"),
        ({"latents": "raw"}, "latents.state"),
        ({"size": "32"}, "preprocess.resize"),
        ({"sample": 0}, "latents.sample is None there and 0 now"),
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
    with pytest.raises(StoreError, match=f"encode.dtype is '{dtype}' there and '{other}' now"):
        encode(mixed, begun, model, dtype=other, samples_per_shard=4)
    encode(mixed, whole, model, dtype=dtype, samples_per_shard=4)
    assert tree(begun / "shards") == tree(whole / "shards")


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
    with pytest.raises(UsageError, match=r"decoder alone.*semdisdiffae"):
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
