"""--store-dtype: what each choice stores, and that every reader gets values without being told."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from clipkit import clips_in
from encodekit import pictures
from jobkit import changed_model, decode, encode, encode_job, failures_of, latents_of, tree
from jobkit import pictures_of as pictures_in
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tarjobkit import latents_in, standard_streams, tar_store

import latentcli
from latentcli.core.errors import StoreError
from latentcli.jobs.config import SyncJob
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.encode.sync import run_sync
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.inspect import inspect_store
from latentcli.jobs.store.verify import run_verify
from latentcli.jobs.training.dataset import LatentDataset
from latentcli.shards.store import manifest as manifests

SIZES = ((64, 48), (48, 64)) * 3
DTYPES = {"fp16": torch.float16, "fp8": torch.float8_e4m3fn, "int8": torch.int8}
SCALED = ("fp8", "int8")
MOVED = {"fp16": 0.003, "fp8": 0.04, "int8": 0.01}
"""Largest RMS difference from what bf16 gives, over the RMS."""

of_scales = pytest.mark.parametrize("store", SCALED, indirect=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "in", SIZES)


@pytest.fixture(scope="module")
def usual(tmp_path_factory, folder, model):
    """The same latents in bf16, float32, by key and part."""
    store = tmp_path_factory.mktemp("usual") / "store"
    encode(folder, store, model, flip="both")
    return {name: tensor.float() for name, tensor in latents_of(store).items()}


@pytest.fixture(scope="module", params=DTYPES)
def store(request, tmp_path_factory, folder, model):
    store = tmp_path_factory.mktemp("store") / request.param
    encode(folder, store, model, flip="both", store_dtype=request.param)
    return store


def test_what_is_stored_and_what_is_read(store, usual):
    dtype, held = store.name, latentcli.open_store(str(store))
    tensors = latents_of(store)
    end = "_quantised" if dtype in SCALED else ""
    assert len(held) == len(SIZES) and held.store_dtype == dtype
    for name, values in usual.items():
        key, part = name.rsplit("/", 1)
        assert tensors[name + end].dtype == DTYPES[dtype]
        parts = held.parts(key)
        assert sorted(parts) == ["latent", "latent_flip"]
        away = (parts[part].float() - values).square().mean().sqrt()
        assert away < MOVED[dtype] * values.square().mean().sqrt()
        assert parts[part].dtype == (torch.float32 if dtype in SCALED else torch.float16)
        if dtype in SCALED:
            scale = tensors[f"{name}_scale"]
            assert scale.dtype == torch.float32 and scale.shape == values.shape[:1]
            whole = tensors[name + end].float() * scale[:, None, None]
            assert torch.equal(parts[part], whole)
            assert name not in tensors, "a reader that knows no scales would take it for values"
    assert len(tensors) == len(usual) * (2 if dtype in SCALED else 1)
    item = LatentDataset(store, flip="both")[0]
    assert torch.equal(item["latent"], held[item["key"]]) and "latent_flip" in item


def test_manifest_shard_and_statistics_say_it(store, usual):
    dtype, manifest = store.name, json.loads((store / "manifest.json").read_text())
    assert manifest["spec"]["latents"]["dtype"] == dtype
    assert manifest["format_version"] == (3 if dtype in SCALED else 2)
    shard = store / "shards" / "000000.safetensors"
    with safe_open(shard, "pt") as file:
        assert file.metadata()["store_dtype"] == dtype
        assert file.metadata()["format_version"] == ("2" if dtype in SCALED else "1")
    held = latentcli.open_store(str(store))
    values = [held[f"{i:04d}"] for i in range(len(SIZES))]
    mean = torch.cat([v.double().flatten(1) for v in values], dim=1).mean(dim=1)
    assert torch.allclose(torch.tensor(manifest["channels"]["mean"]).double(), mean, atol=1e-9)
    # A shard alone is read as the store is.
    alone = latentcli.open_store(str(shard))
    assert alone.store_dtype == dtype
    assert all(torch.equal(alone[key], latentcli.open_store(str(store))[key]) for key in alone)


def test_every_verb_reads_it(store, usual, tmp_path):
    document = inspect_store(str(store), str(tmp_path / "report"))
    assert document["store_dtype"] == store.name and not document["damaged"]["count"]
    recorded = json.loads((store / "manifest.json").read_text())["channels"]
    assert document["report"]["channels"]["mean"] == pytest.approx(recorded["mean"], abs=1e-6)
    assert document["report"]["mirrored"]
    found = run_verify(VerifyJob(store=str(store), device="cpu"))
    assert found["ok"] and found["reencoded"]["max_relative_rms"] < 0.01
    assert decode(store, tmp_path / "out")["decoded"] == len(SIZES)
    shapes = {key: pixels.shape for key, pixels in pictures_in(tmp_path / "out").items()}
    assert shapes == {f"{i:04d}": (h, w, 3) for i, (w, h) in enumerate(SIZES)}


@of_scales
def test_a_latent_without_its_scale_is_damage(store, tmp_path):
    copy = tmp_path / store.name
    shutil.copytree(store, copy)
    shard = copy / "shards" / "000000.safetensors"
    with safe_open(shard, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(shard)
    del tensors["0000/latent_scale"]
    save_file(tensors, shard, metadata)
    found = run_verify(VerifyJob(store=str(copy), device="cpu"))
    assert any("has no tensor latent_scale" in p["problem"] for p in found["problems"])
    document = inspect_store(str(shard), str(tmp_path / "report"))
    assert any("needs a scale per channel" in text for text in document["damaged"]["problems"])
    # The shard alone: its store would not give it out.
    assert decode(shard, tmp_path / "out", max_bad="100%")["failed"] == 1
    assert set(pictures_in(tmp_path / "out")) == {"0001", "0002", "0003"}


@pytest.mark.parametrize("store", ["int8"], indirect=True)
def test_no_byte_depends_on_workers_or_batches_of_equal_work(store, folder, model, tmp_path):
    encode(folder, tmp_path / "again", model, flip="both", store_dtype=store.name, workers=2)
    assert tree(tmp_path / "again") == tree(store)


def test_tars_and_their_readers(store, folder, model, tmp_path):
    dtype = store.name
    encode(
        *(folder, tmp_path / "tars", model),
        flip="both",
        shard_format="webdataset",
        store_dtype=dtype,
    )
    held = latentcli.open_store(str(store))
    tars = latentcli.open_store(str(tmp_path / "tars"))
    found = {n.partition(":")[2]: t for n, t in tar_store(tmp_path / "tars").items()}
    expected = latents_of(store)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n].float(), expected[n].float()) for n in expected)
    assert all(torch.equal(tars[key], held[key]) for key in held)
    for data, key in samples_in(tmp_path / "tars" / "shards" / "000000.tar"):
        parts = latentcli.safetensors_decoder("latent.safetensors", data)
        assert parts.keys() == held.parts(key).keys()
        assert all(torch.equal(parts[p], held.parts(key)[p]) for p in parts)
    assert run_verify(VerifyJob(store=str(tmp_path / "tars"), device="cpu"))["ok"]


def samples_in(tar: Path) -> list[tuple[bytes, str]]:
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(tar.read_bytes())) as file:
        return [
            (file.extractfile(m).read(), m.name.partition(".")[0])
            for m in file
            if m.name.endswith("safetensors")
        ]


@of_scales
def test_a_unit_written_anew_moves_bytes_and_rounds_nothing(store, folder, model, tmp_path):
    source, copy = tmp_path / "in", tmp_path / "store"
    shutil.copytree(folder, source)
    encode(source, copy, model, store_dtype=store.name)
    before = latents_of(copy)
    (source / "0001.png").unlink()
    (source / "0002.png").rename(source / "renamed.png")
    run_sync(SyncJob(store=str(copy)))
    encode(source, copy, model, store_dtype=store.name)
    after = latents_of(copy)
    assert {n.split("/")[0] for n in after} == {"0000", "0003", "0004", "0005", "renamed"}
    for name, tensor in after.items():
        old = before[name.replace("renamed", "0002")]
        assert tensor.dtype == old.dtype and torch.equal(tensor.float(), old.float())
    manifest, held = (
        json.loads((copy / "manifest.json").read_text()),
        latentcli.open_store(str(copy)),
    )
    assert manifest["format_version"] == 3
    mean = torch.cat([held[key].double().flatten(1) for key in held], dim=1).mean(dim=1)
    assert manifest["channels"]["mean"] == pytest.approx(mean.tolist(), abs=1e-9)
    assert run_verify(VerifyJob(store=str(copy), device="cpu"))["ok"]


def test_moments_keep_a_scale_for_each(folder, model, tmp_path):
    encode(folder, tmp_path / "int8", model, latents="moments", store_dtype="int8")
    encode(folder, tmp_path / "bf16", model, latents="moments")
    a, b = (latentcli.open_store(str(tmp_path / name)) for name in ("int8", "bf16"))
    assert sorted(latents_of(tmp_path / "int8"))[:4] == [
        f"0000/{part}{end}" for part in ("logsnr", "mean") for end in ("_quantised", "_scale")
    ]
    for key in b:
        for part, values in b.parts(key).items():
            near = a.parts(key)[part]
            assert (near - values.float()).abs().max() < 0.02 * values.float().abs().max()
        assert (a[key] - b[key]).abs().max() < 0.02 * b[key].abs().max()
    drawn = LatentDataset(tmp_path / "int8", sample=True)[0]["latent"]
    assert not torch.equal(drawn, a["0000"])
    assert run_verify(VerifyJob(store=str(tmp_path / "int8"), device="cpu"))["ok"]


@of_scales
def test_a_stream_out_and_in_again(store, folder, model, tmp_path):
    words = {"flip": "both", "store_dtype": store.name, "samples_per_shard": None}
    with standard_streams(tmp_path / "out") as ends:
        run_encode(encode_job(folder, Path("-"), model, **words))
    assert latents_in(ends.output).keys() == latents_of(store).keys()
    with standard_streams(tmp_path / "in", ends.output):
        decode("-", tmp_path / "streamed")
    decode(store, tmp_path / "stored")
    streamed, stored = pictures_in(tmp_path / "streamed"), pictures_in(tmp_path / "stored")
    assert streamed.keys() == stored.keys() and len(streamed) == len(SIZES)
    for key, pixels in streamed.items():
        assert abs(pixels.astype(int) - stored[key]).max() <= 1


def test_clips(model, tmp_path):
    clips = clips_in(tmp_path / "clips", (7, 4))
    encode(clips, tmp_path / "bf16", "linear16", samples_per_shard=2)
    encode(clips, tmp_path / "int8", "linear16", samples_per_shard=2, store_dtype="int8")
    a, b = (latentcli.open_store(str(tmp_path / name)) for name in ("int8", "bf16"))
    tensors = latents_of(tmp_path / "int8")
    assert tensors["c00/latent_scale"].shape == tensors["c00/latent_quantised"].shape[:2]
    assert torch.equal(a.frames("c00", 2, 5), a["c00"][2:5])
    assert (a["c00"] - b["c00"].float()).abs().max() < 0.02 * b["c00"].float().abs().max()
    assert torch.equal(a.parts("c00")["times"], b.parts("c00")["times"])
    assert run_verify(VerifyJob(store=str(tmp_path / "int8"), device="cpu"))["problems"] == []
    assert inspect_store(str(tmp_path / "int8"), str(tmp_path / "report"))["report"]["samples"]
    assert decode(tmp_path / "int8", tmp_path / "out")["decoded"] == 2


def test_another_dtype_is_refused_by_its_name(store, folder, model):
    words = rf"latents\.dtype is '{store.name}' in the store and 'bf16' now|latents\.dtype"
    with pytest.raises(StoreError, match=words):
        encode(folder, store, model, flip="both")


@of_scales
def test_an_earlier_latentcli_refuses_it(store, monkeypatch):
    monkeypatch.setattr(manifests, "QUANTISED_VERSION", 2)
    with pytest.raises(StoreError, match="store format 3, this latentcli reads up to 2"):
        latentcli.open_store(str(store))


def test_values_that_do_not_fit_fail_their_row(folder, model, tmp_path):
    def enlarge(state: dict[str, torch.Tensor]) -> None:
        state["latent_norm_running_mean"] -= 1e5

    large = changed_model(model, tmp_path / "large", enlarge)
    document = encode(
        *(folder, tmp_path / "fp16", large),
        store_dtype="fp16",
        latents="whitened",
        max_bad="100%",
    )
    assert document["failed"] == len(SIZES)
    assert "not finite in float16" in failures_of(tmp_path / "fp16")["0000"]["error"]
    assert encode(folder, tmp_path / "int8", large, store_dtype="int8")["failed"] == 0


def test_plan_knows_the_bytes(model, tmp_path):
    folder, sizes = pictures(tmp_path / "in", ((256, 192),) * 4), {}
    for dtype in ("bf16", "int8"):
        job = encode_job(folder, tmp_path / dtype, model, store_dtype=dtype)
        planned = run_encode(replace(job, dry_run=True))
        run_encode(job)
        written = sum(p.stat().st_size for p in (tmp_path / dtype / "shards").glob("*.safetensors"))
        assert planned["bytes"] == pytest.approx(written, rel=0.02)
        sizes[dtype] = written
    assert sizes["int8"] < 0.7 * sizes["bf16"]
