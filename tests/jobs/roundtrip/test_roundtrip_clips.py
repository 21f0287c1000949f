"""Clips through several models: temporal decoders get whole chunks, and figures are frame-wise."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from clipkit import MODEL, clips_in, cut, frames_of, numbers_of, pixels_of
from harness.clip_files import make_clip
from jobkit import decode, encode, environment, latents_of, pictures_of, tree
from PIL import Image
from presetkit import toy_checkpoint

from latentcli.cli.app import main
from latentcli.core.errors import LatentCliError
from latentcli.images.codec import to_float, to_uint8
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.inference.engine import load_engine
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.models.registry import load_model
from latentcli.models.tiny_temporal import TemporalTinyDecoder
from latentcli.shards.sources.own_output import MARK

PSNR_TOLERANCE = 0.02
"""dB: a value on the edge between two levels may fall either way in another batch."""
LONG = 10


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    for name in ("svd", "tae_temporal", "tae192_svd"):
        toy_checkpoint(root, name)
    return root


@pytest.fixture
def video(weights, monkeypatch):
    """The presets of SVD's latents are there, at toy width."""
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(weights))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "t.mp4", LONG, size=(64, 64))


@pytest.fixture
def store(clip, video, tmp_path):
    encode(clip, tmp_path / "store", "svd")
    return tmp_path / "store"


def in_chunks(net: torch.nn.Module, latents: torch.Tensor, step: int) -> torch.Tensor:
    """uint8 [T, 3, H, W], `step` frames at once by the model's own method."""
    return torch.cat([to_uint8(net.decode_frames(part)) for part in latents.split(step)])


def test_frames_that_do_not_fit_together_name_the_option(clip, video, monkeypatch):
    inner = TemporalTinyDecoder.decode_frames

    def limited(self, latents, *args, **words):
        if len(latents) > 4:
            raise RuntimeError("CUDA error: out of memory")
        return inner(self, latents, *args, **words)

    monkeypatch.setattr(TemporalTinyDecoder, "decode_frames", limited)
    words = {"models": ("svd",), "decoders": ("tae_temporal",), "device": "cpu"}
    job = RoundtripJob(sources=(str(clip),), **words)
    with pytest.raises(LatentCliError) as told:
        run_roundtrip(job)
    assert str(told.value).endswith(
        "decode: the device ran out of memory on 8 frames of 64x64 that the model decodes together;"
        " give it fewer with --num-frames."
    )
    assert run_roundtrip(replace(job, num_frames=4))["failed"] == 0


def test_frames_that_go_together_keep_below_max_memory(video, tmp_path):
    """The limit is what a picture of 512x512 takes, as many pixels as four of these frames have."""
    clip = make_clip(tmp_path / "c.mp4", 8, size=(256, 256))
    ample = 10**12
    rooms = load_engine("svd", device="cpu", max_memory=ample).rooms
    weights = ample - rooms["decode"].limit
    limit = weights + max(room.whole for room in rooms.values()) * 512**2
    words = {"models": ("svd",), "device": "cpu", "max_memory": str(limit)}
    job = RoundtripJob(sources=(str(clip),), **words)
    with pytest.raises(LatentCliError, match="8 frames of 256x256 that the model decodes together"):
        run_roundtrip(job)
    assert run_roundtrip(replace(job, num_frames=2))["failed"] == 0


@pytest.mark.parametrize("name", ["svd", "tae_temporal"])
@pytest.mark.parametrize(("num_frames", "step"), [(4, 4), (None, 8), (3, 3)])
@torch.inference_mode()
def test_a_temporal_decoder_gets_chunks(name, num_frames, step, store, tmp_path):
    told = decode(store, tmp_path / "out", model=name, num_frames=num_frames, format="png")
    assert told["frames"] == LONG
    found = np.stack(list(pictures_of(tmp_path / "out" / "t").values())).astype(int)
    net, latents = load_model(name), latents_of(store)["t/latent"].float()
    expected = in_chunks(net, latents, step).permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(found - expected).max() <= 1
    # The frames of a chunk see each other, so other chunks give other pictures.
    whole = in_chunks(net, latents, LONG).permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(whole - expected).max() > 1


@pytest.mark.parametrize("frames", [1, 3, 8, 9])
@pytest.mark.parametrize("form", ["mp4", "png"])
def test_no_frame_is_lost_whatever_the_length(frames, form, video, tmp_path):
    clip = make_clip(tmp_path / "c.mp4", frames, size=(64, 64))
    encode(clip, tmp_path / "store", "svd")
    told = decode(tmp_path / "store", tmp_path / "out", model="tae_temporal", format=form)
    assert (told["decoded"], told["frames"]) == (1, frames)
    if form == "png":
        assert len(list((tmp_path / "out" / "c").glob("[!.]*"))) == frames
    else:
        assert len(pixels_of(tmp_path / "out" / "c.mp4")) == frames


def roundtrip(source: object, *models: str, **options: object) -> dict:
    settings = {"sources": (str(source),), "models": models, "device": "cpu", "workers": 0}
    return run_roundtrip(RoundtripJob(**settings | options))


def psnrs(pixels: torch.Tensor, decoded: torch.Tensor) -> np.ndarray:
    """Of every frame, in dB."""
    error = (pixels.double() - decoded.double()).square().flatten(1).mean(1)
    return np.array([10 * math.log10(255**2 / value) for value in error.tolist()])


def check(figures: dict, expected: np.ndarray) -> None:
    wanted = {
        "mean": expected.mean(),
        "std": expected.std(),
        "median": np.median(expected),
        "min": expected.min(),
        "max": expected.max(),
    }
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted, abs=PSNR_TOLERANCE)


@torch.inference_mode()
def test_figures_of_clips(tmp_path):
    source = clips_in(tmp_path / "clips", [3, 11, 5])
    found = roundtrip(source, MODEL)
    net, expected = load_model(MODEL), []
    for path in sorted(source.iterdir()):
        pixels = pixels_of(path)
        decoded = to_uint8(net.decode(net.encode(to_float(pixels)).bfloat16().float()))
        expected.append(psnrs(pixels, decoded))
    assert (found["media"], found["clips"], found["images"]) == ("clips", 3, 19)
    check(found["models"][0]["psnr"], np.concatenate(expected))
    assert found["models"][0]["ssim"]["mean"] > 0.6


@torch.inference_mode()
def test_stride_and_frames(tmp_path):
    clip = make_clip(tmp_path / "c.mp4", 20)
    found = roundtrip(clip, MODEL, stride=3, frames=5)
    pixels, net = pixels_of(clip)[0:15:3], load_model(MODEL)
    decoded = to_uint8(net.decode(net.encode(to_float(pixels)).bfloat16().float()))
    assert found["images"] == 5
    check(found["models"][0]["psnr"], psnrs(pixels, decoded))


@torch.inference_mode()
def test_temporal_and_other_decoders_side_by_side(clip, video):
    names = ("svd", "svd-tae_temporal", "svd-tae192_svd")
    found = roundtrip(clip, "svd", decoders=("tae_temporal", "tae192_svd"), num_frames=4)
    assert tuple(entry["model"] for entry in found["models"]) == names
    pixels, encoder = pixels_of(clip), load_model("svd")
    latents = encoder.encode(to_float(pixels)).bfloat16().float()
    for entry in found["models"]:
        net = load_model(entry["decoder"])
        check(entry["psnr"], psnrs(pixels, in_chunks(net, latents, 4)))


@torch.inference_mode()
def test_without_a_number_each_decoder_takes_its_own(clip, video):
    found = roundtrip(clip, "svd", decoders=("tae_temporal",))
    pixels, encoder = pixels_of(clip), load_model("svd")
    latents = encoder.encode(to_float(pixels)).bfloat16().float()
    check(
        found["models"][1]["psnr"], psnrs(pixels, in_chunks(load_model("tae_temporal"), latents, 8))
    )


def test_a_failing_clip_contributes_nothing(tmp_path):
    sound = clips_in(tmp_path / "sound", [4, 6])
    mixed = clips_in(tmp_path / "mixed", [4, 6])
    cut(make_clip(tmp_path / "long.mp4", 60), mixed / "c00cut.mp4")
    alone, among = roundtrip(sound, MODEL), roundtrip(mixed, MODEL)
    assert (among["clips"], among["images"], among["failed"]) == (2, 10, 1)
    for figure in ("psnr", "ssim"):
        assert among["models"][0][figure] == alone["models"][0][figure]
    assert among["failures"][0]["key"] == "c00cut"
    assert among["failures"][0]["error"].startswith("decode_image: clip is cut short after")
    with pytest.raises(LatentCliError, match=r"c00cut\.mp4 failed at decode_image"):
        roundtrip(mixed, MODEL, on_error="stop")
    with pytest.raises(LatentCliError, match="No input could be used; the first of 1, "):
        roundtrip(mixed / "c00cut.mp4", MODEL)


def test_frames_are_saved(tmp_path):
    source = clips_in(tmp_path / "clips", [4, 9])
    roundtrip(source, MODEL, save=str(tmp_path / "saved"))
    for key, frames in {"c00": 4, "c01": 9}.items():
        assert numbers_of(tmp_path / "saved" / MODEL / key) == list(range(frames))


WITHOUT_AV = """
import sys
sys.modules["av"] = None
from latentcli.cli.app import main
root, model = sys.argv[1:]
common = ["--model", model, "--no-self-check", "--quiet", "--workers", "0", "--device", "cpu"]
print(main(["encode", f"{root}/p.png", "-o", f"{root}/pictures", *common]))
print(main(["decode", f"{root}/pictures", "-o", f"{root}/back", "--quiet"]))
print(main(["encode", f"{root}/clips", "-o", f"{root}/none", *common]))
print(main(["roundtrip", f"{root}/clips", "--model", model, "--quiet"]))
print(main(["decode", f"{root}/store", "-o", f"{root}/mp4", "--quiet"]))
print(main(["decode", f"{root}/store", "-o", f"{root}/png", "--format", "png", "--quiet"]))
"""


def test_without_pyav(tmp_path):
    clips = clips_in(tmp_path / "clips", [3])
    encode(clips, tmp_path / "store", MODEL)
    Image.new("RGB", (64, 32), "teal").save(tmp_path / "p.png")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_AV, str(tmp_path), MODEL],
        capture_output=True,
        text=True,
        env=environment(),
    )
    codes = [int(line) for line in done.stdout.splitlines() if line.strip().isdecimal()]
    assert codes == [0, 0, 2, 2, 2, 0], done.stderr
    errors = done.stderr.splitlines()
    assert [line.partition(",")[0] for line in errors] == [
        "error: to read video",
        "error: to read video",
        "error: to write video",
    ]
    assert all("pip install 'latentcli[video]'" in line for line in errors)
    assert not (tmp_path / "none").exists() and not (tmp_path / "mp4").exists()
    assert list(tree(tmp_path / "back")) == [MARK, "p.png"]
    assert numbers_of(tmp_path / "png" / "c00") == [0, 1, 2]
    assert [number for number, _ in frames_of(clips / "c00.mp4")] == [0, 1, 2]


@pytest.mark.parametrize(("share", "code"), [("33%", 3), ("34%", 0)])
def test_failed_clips_are_a_share_of_the_clips(share, code, tmp_path, capsys):
    """One of three fails; its share of all frames would be far less."""
    source = clips_in(tmp_path / "clips", [9, 9])
    (source / "bad.mp4").write_text("no clip")
    command = ["roundtrip", str(source), "--model", MODEL, "--max-bad", share, "--json"]
    assert main(command) == code
    told = json.loads(capsys.readouterr().out)
    if code:
        assert "1 input failed, and --max-bad 33% allows 0 of 3." in told["error"]
    else:
        assert (told["images"], told["clips"], told["failed"]) == (18, 2, 1)
