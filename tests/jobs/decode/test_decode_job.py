"""The decode job: one seed one picture, formats, foreign files, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from jobkit import changed_model, decode, encode, latents_of, pictures_of, toy_pictures, tree
from PIL import Image
from safetensors.torch import save_file

from latentcli.core.errors import Interrupted, LatentCliError, StoreError, UsageError
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.models.registry import load_model

LEVELS = 1
"""Levels of 255 by which a picture may differ with batch size or threads.

Measured on the toy model and on fcdm_nano: this, in 4 of 100,000 values, whose exact value lies on
the edge between two levels."""
BF16_LEVELS = 2
"""Levels of 255 by which pictures of whitened, raw and moments stores may differ.

Each state rounds other numbers to bfloat16, by up to 2^-9 of their size. Measured on the toy model:
1."""


def largest_difference(a: Path, b: Path) -> int:
    left, right = pictures_of(a), pictures_of(b)
    assert left.keys() == right.keys() and left
    return max(int(np.abs(left[k].astype(int) - right[k].astype(int)).max()) for k in left)


@pytest.fixture(scope="module")
def reference(mixed_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoded") / "reference"
    decode(mixed_store, folder, seed=5)
    return folder


def test_the_document(mixed_store, tmp_path, reference):
    found = decode(mixed_store, tmp_path / "out", seed=5, steps=1)
    assert (found["decoded"], found["skipped"], found["failed"]) == (23, 0, 0)
    assert found["output"] == str(tmp_path / "out") and found["store"] == str(mixed_store)
    assert set(found["stages"]) == {"read", "decode", "encode_image", "write"}
    assert {stage["items"] for stage in found["stages"].values()} == {23}
    assert found["images_per_second"] > 0 and found["bottleneck"] in found["stages"]
    json.dumps(found, allow_nan=False)
    assert tree(tmp_path / "out") == tree(reference)


def test_only_options_that_are_left_are_advised(mixed_store, tmp_path):
    seen = []
    listen = Reporter(progress=seen.append)
    decode(mixed_store, tmp_path / "png", listen, steps=2)
    options = {"decode": "fewer --steps", "encode_image": "--format jpeg"}
    assert seen[-1].whole.setting.options == options
    decode(mixed_store, tmp_path / "jpeg", listen, format="jpeg")
    assert seen[-1].whole.setting.options == {}


def test_pictures_are_what_the_model_gives(mixed_store, model, reference):
    from latentcli.images.codec import to_uint8
    from latentcli.jobs.inference.noise import sample_noise

    net, latents = load_model(model), latents_of(mixed_store)
    for key in ("000/000000", "000/000011"):
        latent = latents[f"{key}/latent"][None].float()
        height, width = (16 * side for side in latent.shape[2:])
        noise = sample_noise(5, [key], (3, height, width))
        expected = to_uint8(net.decode(latent, height, width, noise=noise))[0]
        found = pictures_of(reference)[key].astype(int)
        assert np.abs(found - expected.permute(1, 2, 0).numpy().astype(int)).max() <= LEVELS


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 5}, {"workers": 3}])
def test_a_seed_is_a_picture_in_any_batch(mixed_store, tmp_path, reference, options):
    decode(mixed_store, tmp_path / "out", seed=5, **options)
    assert largest_difference(tmp_path / "out", reference) <= LEVELS


def test_threads_change_no_picture(mixed_store, tmp_path, reference):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        decode(mixed_store, tmp_path / "out", seed=5)
    finally:
        torch.set_num_threads(before)
    assert largest_difference(tmp_path / "out", reference) <= LEVELS


def test_batch_sizes_agree_for_the_bundled_model(bundled, photographs, tmp_path):
    encode(photographs, tmp_path / "store", bundled, size="128")
    for size in (1, 8):
        decode(tmp_path / "store", tmp_path / str(size), batch_size=size, steps=2)
    assert largest_difference(tmp_path / "1", tmp_path / "8") <= LEVELS


def test_another_seed_is_another_picture(mixed_store, tmp_path, reference):
    decode(mixed_store, tmp_path / "out", seed=6, steps=4)
    decode(mixed_store, tmp_path / "same", seed=5, steps=4)
    left, right = pictures_of(tmp_path / "out"), pictures_of(tmp_path / "same")
    assert all(not np.array_equal(left[key], right[key]) for key in left)


def test_decode_options_reach_the_sampler(mixed_store, tmp_path, reference):
    base = {"seed": 5, "steps": 4}
    seen = {}
    for name, options in {
        "plain": {},
        "sampler": {"sampler": "dpmpp_2m"},
        "schedule": {"schedule": "cosine"},
        "pdg": {"pdg": True},
        "strong": {"pdg": True, "pdg_strength": 3.0},
        "steps": {"steps": 5},
    }.items():
        decode(mixed_store, tmp_path / name, **base | options)
        seen[name] = pictures_of(tmp_path / name)["000/000000"].tobytes()
    assert len(set(seen.values())) == len(seen)


def test_raw_latents_give_the_same_pictures(raw_store, tmp_path, reference):
    decode(raw_store, tmp_path / "out", seed=5)
    assert largest_difference(tmp_path / "out", reference) <= BF16_LEVELS


def test_moments_give_the_same_pictures(moments_store, tmp_path, reference):
    decode(moments_store, tmp_path / "out", seed=5)
    assert largest_difference(tmp_path / "out", reference) <= BF16_LEVELS


@pytest.mark.parametrize(("format", "suffix"), [("jpeg", ".jpg"), ("webp", ".webp")])
def test_formats(mixed_store, tmp_path, reference, format, suffix):
    decode(mixed_store, tmp_path / "good", seed=5, format=format, quality=100)
    decode(mixed_store, tmp_path / "poor", seed=5, format=format, quality=20)
    good = sorted((tmp_path / "good").rglob("[!.]*.*"))
    assert len(good) == 23 and {path.suffix for path in good} == {suffix}
    assert Image.open(good[0]).format == format.upper()
    size = {
        name: sum(path.stat().st_size for path in (tmp_path / name).rglob("[!.]*.*"))
        for name in ("good", "poor")
    }
    assert size["poor"] < size["good"]
    if format == "webp":
        assert largest_difference(tmp_path / "good", reference) == 0


def test_a_wrong_quality_writes_nothing(mixed_store, tmp_path):
    with pytest.raises(UsageError, match="quality"):
        decode(mixed_store, tmp_path / "out", format="jpeg", quality=0)
    assert not (tmp_path / "out").exists()


def test_existing_pictures_are_kept_where_asked(mixed_store, tmp_path, reference):
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    (out / "000" / "000003.png").unlink()
    (out / "000" / "000004.png").write_bytes(b"mine")
    found = decode(mixed_store, out, seed=5, skip_existing=True)
    assert (found["decoded"], found["skipped"]) == (1, 22)
    assert (out / "000" / "000004.png").read_bytes() == b"mine"
    assert (out / "000" / "000003.png").read_bytes() == tree(reference)["000/000003.png"]
    decode(mixed_store, out, seed=5)
    assert tree(out) == tree(reference)


def test_an_interrupted_job_leaves_whole_pictures(mixed_store, tmp_path, reference):
    import os
    import signal

    calls = 0

    def progress(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        decode(mixed_store, tmp_path / "out", Reporter(progress=progress), seed=5, batch_size=2)
    left, whole = pictures_of(tmp_path / "out"), pictures_of(reference)
    assert 1 <= len(left) < 23
    for key, picture in left.items():
        assert np.abs(picture.astype(int) - whole[key]).max() <= LEVELS
    decode(mixed_store, tmp_path / "out", seed=5, skip_existing=True, batch_size=2)
    assert largest_difference(tmp_path / "out", reference) <= LEVELS


def test_one_shard_is_enough(mixed_store, tmp_path, reference):
    found = decode(mixed_store / "shards" / "000001.safetensors", tmp_path / "out", seed=5)
    assert found["decoded"] == 4
    whole = pictures_of(reference)
    for key, picture in pictures_of(tmp_path / "out").items():
        assert np.abs(picture.astype(int) - whole[key]).max() <= LEVELS


@pytest.mark.parametrize("key", ["../out of it", "a/../../b", "/tmp/absolute", "a\0b"])
def test_a_key_that_leaves_the_folder_is_refused(model, tmp_path, key):
    latents = {f"{key}/latent": torch.zeros(8, 2, 2), "good/latent": torch.zeros(8, 2, 2)}
    told = {"format": "latentcli", "unit": "0", "state": "whitened", "model": model}
    save_file(latents, tmp_path / "000000.safetensors", told)
    out = tmp_path / "a" / "b" / "out"
    found = decode(tmp_path / "000000.safetensors", out)
    assert (found["decoded"], found["failed"]) == (1, 1)
    assert found["failures"][0]["key"] == key and "leave" in found["failures"][0]["error"]
    assert [path.name for path in (tmp_path / "a").rglob("*.png")] == ["good.png"]


def test_bad_latents_are_failures_and_the_rest_goes_on(model, tmp_path):
    latents = {
        "good": torch.zeros(8, 2, 2),
        "channels": torch.zeros(4, 2, 2),
        "nan": torch.full((8, 2, 2), float("nan")),
    }
    save_file(latents, tmp_path / "file.safetensors")
    found = decode(tmp_path / "file.safetensors", tmp_path / "out", model=model)
    assert (found["decoded"], found["failed"]) == (1, 2)
    reasons = {item["key"]: item["error"] for item in found["failures"]}
    assert "4 channels, the model takes 8" in reasons["channels"]
    assert "not finite" in reasons["nan"]


def test_a_picture_too_large_for_its_format_is_a_failure(model, tmp_path):
    latents = {"good": torch.zeros(8, 1, 1), "wide": torch.zeros(8, 1, 1025)}
    save_file(latents, tmp_path / "file.safetensors")
    found = decode(tmp_path / "file.safetensors", tmp_path / "out", model=model, format="webp")
    assert (found["decoded"], found["failed"]) == (1, 1)
    assert found["failures"][0]["key"] == "wide" and "16383" in found["failures"][0]["error"]


def test_foreign_files(mixed_store, model, tmp_path, reference):
    latents = latents_of(mixed_store)
    first, second = (latents[f"000/{i:06d}/latent"] for i in (0, 4))
    save_file({"one": first, "many": torch.stack([first, second])}, tmp_path / "f.safetensors")
    with pytest.raises(UsageError, match="--model"):
        decode(tmp_path / "f.safetensors", tmp_path / "out")
    found = decode(tmp_path / "f.safetensors", tmp_path / "out", model=model)
    assert found["decoded"] == 3
    assert set(pictures_of(tmp_path / "out")) == {"one", "many_00000", "many_00001"}
    raw = {"one": load_model(model).dewhiten(first[None].float())[0]}
    save_file(raw, tmp_path / "raw.safetensors")
    decode(tmp_path / "raw.safetensors", tmp_path / "raw", model=model, latents="raw")
    a, b = (pictures_of(tmp_path / name)["one"] for name in ("raw", "out"))
    assert np.abs(a.astype(int) - b).max() <= LEVELS


@pytest.mark.parametrize(
    ("tensors", "word"),
    [({"a": torch.zeros(2, 2)}, r"a \[2, 2\]"), ({"x": torch.zeros(1, 1, 1, 1, 1)}, "C, h, w")],
)
def test_files_that_hold_no_latents(model, tmp_path, tensors, word):
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(StoreError, match=word):
        decode(tmp_path / "file.safetensors", tmp_path / "out", model=model)


@pytest.mark.parametrize(
    ("data", "seen"),
    [(b"# A read me\n" * 9, "looks like text"), (b"\x89PNG\r\n\x1a\n" * 9, "89 50")],
)
def test_a_file_of_another_kind_is_not_called_truncated(model, tmp_path, data, seen):
    (tmp_path / "other").write_bytes(data)
    with pytest.raises(StoreError, match=f"other is not a safetensors file, or its .*{seen}"):
        decode(tmp_path / "other", tmp_path / "out", model=model)


def test_nothing_to_read(model, tmp_path):
    with pytest.raises(StoreError, match="There is no"):
        decode(tmp_path / "nowhere", tmp_path / "out", model=model)
    (tmp_path / "text.safetensors").write_text("no latents")
    with pytest.raises(StoreError, match="damaged"):
        decode(tmp_path / "text.safetensors", tmp_path / "out", model=model)


def test_another_model_is_refused_unless_forced(mixed_store, model, other_model, tmp_path):
    with pytest.raises(UsageError, match="--force") as caught:
        decode(mixed_store, tmp_path / "out", model=other_model)
    for name in (model, other_model):
        space = load_model(name).spec.space_id("whitened")
        assert space in str(caught.value)
    assert not (tmp_path / "out").exists()
    found = decode(mixed_store, tmp_path / "out", model=other_model, force=True)
    assert found["decoded"] == 23


def test_other_weights_of_the_same_preset_are_refused(bundled, photographs, tmp_path):
    from latentcli.models.pretrained import BUNDLED

    encode(photographs, tmp_path / "store", bundled, size="64")

    def nudge(state: dict[str, torch.Tensor]) -> None:
        next(iter(state.values())).view(-1)[0] += 1

    other = changed_model(str(BUNDLED / bundled), tmp_path / "weights", nudge)
    with pytest.raises(UsageError, match="--force"):
        decode(tmp_path / "store", tmp_path / "out", weights=other)
    assert decode(tmp_path / "store", tmp_path / "out", weights=other, force=True)["decoded"] >= 4


def test_a_sample_has_another_picture_than_the_mode(mixed, mixed_store, model, tmp_path):
    pictures = toy_pictures(tmp_path / "pictures", 3)
    for name in ("a", "b"):
        encode(pictures, tmp_path / name, model, sample=3)
        decode(tmp_path / name, tmp_path / f"{name}.images")
    encode(pictures, tmp_path / "mode", model)
    decode(tmp_path / "mode", tmp_path / "mode.images")
    assert tree(tmp_path / "a.images") == tree(tmp_path / "b.images")
    mode, sample = (pictures_of(tmp_path / f"{name}.images") for name in ("mode", "a"))
    assert all(not np.array_equal(mode[key], sample[key]) for key in mode)


def test_an_output_that_is_a_file_is_an_error_in_words(mixed_store, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(LatentCliError, match="out"):
        decode(mixed_store, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_no_pictures_are_written_into_a_store(mixed_store):
    before = tree(mixed_store)
    with pytest.raises(UsageError, match="is a latent store, which is no place for other files"):
        decode(mixed_store, mixed_store)
    assert tree(mixed_store) == before


def test_another_presets_space_is_refused_before_its_weights_are_looked_for(
    mixed_store, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match=r"holds latents of local-\w+#whitened, but semdisdiffae"):
        decode(mixed_store, tmp_path / "out", model="semdisdiffae")
