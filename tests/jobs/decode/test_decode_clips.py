"""Clips of latents come back as videos or as pictures: every frame, in order, at its time."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from clipkit import (
    MODEL,
    NUMBERS,
    as_pictures,
    clips_in,
    frames_of,
    numbers_of,
    pixels_of,
    seconds_of,
    unfinished,
)
from harness.clip_files import make_clip
from jobkit import decode, encode, latents_of, pictures_of, rows_of, toy_pictures, tree
from PIL import Image

import latentcli
from latentcli.core.errors import StoreError, UsageError
from latentcli.images.clips import open_clip
from latentcli.images.codec import to_float, to_uint8
from latentcli.jobs.inference.noise import sample_noise
from latentcli.jobs.loader.clip_frames import frame_key
from latentcli.models.registry import load_model
from latentcli.shards.sources.own_output import MARK

ODD = 11
VARIABLE = [0, 40, 41, 140, 1140, 1173, 5000]
"""Milliseconds."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "odd.mp4", ODD)


@pytest.fixture(scope="module")
def store(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "odd"
    encode(clip, path, MODEL)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clips_in(tmp_path_factory.mktemp("clips"))


def test_every_frame_comes_back_as_a_video(clip, store, tmp_path):
    told = decode(store, tmp_path)
    assert list(tree(tmp_path)) == [MARK, "odd.mp4"]
    assert frames_of(tmp_path / "odd.mp4") == frames_of(clip)
    assert [number for number, _ in frames_of(clip)] == list(range(ODD))
    assert (told["media"], told["decoded"], told["frames"], told["failed"]) == ("clips", 1, ODD, 0)
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_frame_comes_back_as_a_picture(store, batch_size, tmp_path):
    told = decode(store, tmp_path, format="png", batch_size=batch_size)
    assert told["frames"] == ODD
    assert numbers_of(tmp_path / "odd") == list(range(ODD))


@torch.inference_mode()
def test_pictures_are_what_the_stored_latents_decode_to(store, tmp_path):
    decode(store, tmp_path, format="png")
    latents = latents_of(store)["odd/latent"].float()
    by_hand = to_uint8(load_model(MODEL).decode(latents)).permute(0, 2, 3, 1).numpy()
    found = np.stack(list(pictures_of(tmp_path / "odd").values())).astype(int)
    assert np.abs(found - by_hand).max() <= 1
    assert (found == by_hand).mean() > 0.999


def test_a_decoded_video_looks_like_the_decoded_pictures(store, tmp_path):
    decode(store, tmp_path / "png", format="png")
    decode(store, tmp_path / "mp4", quality=100)
    pictures = np.stack(list(pictures_of(tmp_path / "png" / "odd").values())).astype(float)
    video = pixels_of(tmp_path / "mp4" / "odd.mp4").permute(0, 2, 3, 1).numpy()
    assert np.abs(pictures - video).mean() < 4


def test_variable_times_survive(tmp_path):
    clip = make_clip(tmp_path / "vfr.mp4", len(VARIABLE), times=VARIABLE)
    encode(clip, tmp_path / "store", MODEL)
    decode(tmp_path / "store", tmp_path / "out")
    expected = [Fraction(time, 1000) for time in VARIABLE]
    assert seconds_of(clip) == expected
    assert seconds_of(tmp_path / "out" / "vfr.mp4") == expected
    assert frames_of(tmp_path / "out" / "vfr.mp4") == frames_of(clip)


def test_one_shard_alone(folder, tmp_path):
    encode(folder, tmp_path / "store", MODEL, samples_per_shard=2)
    told = decode(tmp_path / "store" / "shards" / "000001.safetensors", tmp_path / "out")
    assert (told["media"], told["decoded"], told["frames"]) == ("clips", 2, NUMBERS[2] + NUMBERS[3])
    assert sorted(tree(tmp_path / "out")) == [MARK, "c02.mp4", "c03.mp4"]
    assert frames_of(tmp_path / "out" / "c03.mp4") == frames_of(folder / "c03.mp4")


def test_existing_clips_are_skipped(folder, tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    encode(folder, store, MODEL)
    decode(store, out)
    (out / "c01.mp4").unlink()
    kept = {path: path.stat().st_ino for path in out.glob("[!.]*")}
    told = decode(store, out, skip_existing=True)
    assert (told["decoded"], told["skipped"], told["frames"]) == (1, len(NUMBERS) - 1, NUMBERS[1])
    assert {path: path.stat().st_ino for path in kept} == kept
    assert len(frames_of(out / "c01.mp4")) == NUMBERS[1]


def test_a_clip_with_a_frame_missing_is_decoded_again(folder, tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    encode(folder, store, MODEL)
    decode(store, out, format="png")
    (out / "c03" / "000008.png").unlink()
    told = decode(store, out, format="png", skip_existing=True)
    assert (told["decoded"], told["skipped"], told["frames"]) == (1, len(NUMBERS) - 1, NUMBERS[3])
    assert numbers_of(out / "c03") == list(range(NUMBERS[3]))


def test_a_clip_is_never_written_over_its_source(tmp_path):
    source = clips_in(tmp_path / "clips", [3, 2])
    before = tree(source)
    encode(source, tmp_path / "store", MODEL)
    told = decode(tmp_path / "store", source)
    assert (told["failed"], told["decoded"], told["frames"]) == (2, 0, 0)
    assert "choose another -o" in told["failures"][0]["error"]
    assert tree(source) == before


def test_a_clip_that_the_format_cannot_hold_is_one_failure(tmp_path):
    source = tmp_path / "clips"
    clips_in(source, [2])
    make_clip(source / "wide.mkv", 3, size=(16400, 16), codec="ffv1")
    encode(source, tmp_path / "store", MODEL)
    told = decode(tmp_path / "store", tmp_path / "out", format="webp")
    assert (told["decoded"], told["failed"], told["frames"]) == (1, 1, 2)
    assert told["failures"][0]["key"] == "wide"
    assert unfinished(tmp_path / "out") == []


def test_pictures_do_not_become_a_video(tmp_path):
    toy_pictures(tmp_path / "pictures", 2)
    encode(tmp_path / "pictures", tmp_path / "store", MODEL)
    with pytest.raises(UsageError, match="--format mp4 is for clips"):
        decode(tmp_path / "store", tmp_path / "out", format="mp4")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def states(model, tmp_path_factory):
    """One clip by the toy model in every state."""
    root = tmp_path_factory.mktemp("states")
    clip = make_clip(root / "c.mp4", 5)
    encode(as_pictures(clip, root / "pictures"), root / "images", model, samples_per_shard=50)
    for name, options in {
        "own": {},
        "raw": {"latents": "raw"},
        "moments": {"latents": "moments"},
        "sampled": {"sample": 7},
    }.items():
        encode(clip, root / name, model, **options)
    return root


@torch.inference_mode()
def test_states_of_a_clip(states, model):
    net, frames = load_model(model), to_float(pixels_of(states / "c.mp4"))
    found = {name: latents_of(states / name) for name in ("own", "raw", "moments", "sampled")}
    posterior = net.encode_posterior(frames)
    close = {"rtol": 2**-7, "atol": 2e-3}
    assert {"c/mean", "c/logsnr", "c/times", "c/clock"} == set(found["moments"])
    for part, values in posterior.moments().items():
        torch.testing.assert_close(found["moments"][f"c/{part}"].float(), values, **close)
    raw, own = found["raw"]["c/latent"].float(), found["own"]["c/latent"].float()
    torch.testing.assert_close(raw, posterior.mode(), **close)
    torch.testing.assert_close(own, net.encode(frames), **close)
    keys = [frame_key("c", index) for index in range(5)]
    noise = sample_noise(7, keys, tuple(raw.shape[1:]))
    drawn = net.whiten(posterior.sample(noise))
    torch.testing.assert_close(found["sampled"]["c/latent"].float(), drawn, **close)
    assert (drawn - own).std() > 0.1


def test_moments_decode_to_what_the_mode_does(states, tmp_path):
    pictures = {}
    for name in ("own", "raw", "moments"):
        told = decode(states / name, tmp_path / name, format="png")
        assert (told["decoded"], told["frames"]) == (1, 5)
        pictures[name] = np.stack(list(pictures_of(tmp_path / name / "c").values())).astype(float)
    assert np.abs(pictures["own"] - pictures["moments"]).mean() < 1
    assert np.abs(pictures["own"] - pictures["raw"]).mean() < 1
    assert pictures["own"].std() > 2


def test_a_clip_of_moments_in_a_dataset(states):
    (item,) = latentcli.LatentDataset(states / "moments", sample=True)
    (mode,) = latentcli.LatentDataset(states / "moments")
    assert item["latent"].shape == mode["latent"].shape == (5, *mode["latent"].shape[1:])
    assert not torch.equal(item["latent"], mode["latent"])


def test_frames_of_another_size_rule_are_cropped(tmp_path):
    clip = make_clip(tmp_path / "c.mp4", 3, size=(134, 70))
    encode(clip, tmp_path / "store", MODEL)
    (row,) = rows_of(tmp_path / "store")
    assert (row["original_size"], row["crop"]) == ([134, 70], [3, 3, 131, 67])
    decode(tmp_path / "store", tmp_path / "out")
    with open_clip(str(tmp_path / "out" / "c.mp4"), max_pixels=10**6) as opened:
        first = next(iter(opened))
    source = pixels_of(clip)[0, :, 3:67, 3:131].permute(1, 2, 0).numpy()
    assert first.image.size == (128, 64)
    assert np.abs(np.asarray(first.image).astype(float) - source).mean() < 12
    assert isinstance(first.image, Image.Image)


@pytest.mark.parametrize(("form", "name"), [("mp4", "sub"), ("png", "sub")])
def test_a_file_where_a_folder_must_be(form, name, tmp_path):
    clips_in(tmp_path / "clips" / "sub", [2])
    make_clip(tmp_path / "clips" / "z.mp4", 2)
    encode(tmp_path / "clips", tmp_path / "store", MODEL)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(StoreError, match="sub exists and is not a folder"):
        decode(tmp_path / "store", tmp_path / "out", format=form)
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_a_folder_where_a_video_must_be(store, tmp_path):
    (tmp_path / "odd.mp4").mkdir()
    with pytest.raises(StoreError, match=r"odd\.mp4 cannot be written"):
        decode(store, tmp_path)
    assert unfinished(tmp_path) == []


def test_nothing_in_the_folder_of_the_inputs_is_written_over(tmp_path):
    (tmp_path / "in").mkdir()
    source = make_clip(tmp_path / "in" / "a.mov", 3)
    mine = make_clip(tmp_path / "in" / "a.mp4", 2)
    before = mine.read_bytes()
    encode(source, tmp_path / "store", MODEL)
    told = decode(tmp_path / "store", tmp_path / "in")
    assert told["failed"] == 1 and mine.read_bytes() == before
    assert "is there already, in the folder of the inputs" in told["failures"][0]["error"]
    assert decode(tmp_path / "store", tmp_path / "out")["decoded"] == 1
    assert decode(tmp_path / "store", tmp_path / "out")["decoded"] == 1


def test_frames_of_a_longer_clip_are_not_mixed_in(tmp_path):
    for count in (5, 3):
        folder = tmp_path / f"in{count}"
        folder.mkdir()
        encode(make_clip(folder / "a.mp4", count), tmp_path / f"store{count}", MODEL)
    decode(tmp_path / "store5", tmp_path / "out", format="png")
    told = decode(tmp_path / "store3", tmp_path / "out", format="png")
    assert (
        told["failed"] == 1
        and "with a number after the clip's last frame" in told["failures"][0]["error"]
    )
    assert decode(tmp_path / "store5", tmp_path / "out", format="png")["failed"] == 0


def test_a_late_clock_is_no_silence_to_sit_through(tmp_path):
    times = [100_000 + 40 * i for i in range(4)]
    clip = make_clip(tmp_path / "late.mkv", 4, times=times)
    encode(clip, tmp_path / "store", MODEL)
    stored = latents_of(tmp_path / "store")["late/times"].tolist()
    assert [time - stored[0] for time in stored] == [0, 40, 80, 120] and stored[0] >= 100_000
    assert decode(tmp_path / "store", tmp_path / "out")["failed"] == 0
    with open_clip(str(tmp_path / "out" / "late.mp4"), max_pixels=10**6) as opened:
        found = [float(frame.time * opened.info.time_base) for frame in opened]
    assert found == pytest.approx([0, 0.04, 0.08, 0.12], abs=1e-6)


@pytest.mark.parametrize("format", ["mp4", "png"])
def test_what_is_there_is_skipped_in_the_folder_of_the_inputs_too(format, tmp_path):
    (tmp_path / "in").mkdir()
    encode(make_clip(tmp_path / "in" / "a.mov", 3), tmp_path / "store", MODEL)
    for expected in ((1, 0, 3), (0, 1, 0)):
        told = decode(tmp_path / "store", tmp_path / "in", format=format, skip_existing=True)
        assert (told["decoded"], told["skipped"], told["frames"]) == expected
        assert told["failed"] == 0
