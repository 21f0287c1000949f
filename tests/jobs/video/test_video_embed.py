"""Clips to features: which frames, how resized, through which model, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clipkit import MODEL, clips_in, cut, pixels_of
from harness import clip_files
from harness.videomae import TINY, tiny_folder, tiny_state
from jobkit import environment
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from latentcli.cli.app import main
from latentcli.core.errors import LatentCliError, TooManyFailures, UsageError
from latentcli.images.codec import to_float, to_uint8
from latentcli.jobs.video.config import VideoEmbedJob
from latentcli.jobs.video.embed import run_video_embed
from latentcli.metrics.videomae import load_videomae
from latentcli.models.registry import load_model

FRAMES = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("videomae"))


@pytest.fixture
def embed(weights, tmp_path):
    def run(*sources: object, **options: Any) -> tuple[dict[str, Any], torch.Tensor]:
        settings = {
            "sources": tuple(map(str, sources)),
            "output": str(tmp_path / "f.safetensors"),
            "weights": str(weights),
            "frames": FRAMES,
            "size": 56,
            "device": "cpu",
        }
        job = VideoEmbedJob(**settings | options)
        told = run_video_embed(job)
        return told, load_file(job.output)["features"]

    return run


@torch.inference_mode()
def features_of(frames: torch.Tensor, size: int = 56, count: int = FRAMES) -> torch.Tensor:
    """Of uint8 [T, 3, H, W], by the network alone."""
    net = load_videomae(TINY, tiny_state(), "", "cpu")
    small = F.interpolate(frames.float() / 255, (size, size), mode="bilinear", align_corners=False)
    groups = [part for part in small.split(count) if len(part) == count]
    return net.forward_features(torch.stack(groups).transpose(1, 2))


def test_groups_do_not_overlap_and_rests_are_dropped(embed, tmp_path):
    source = clips_in(tmp_path / "clips", [9, 4, 3, 11])
    told, found = embed(source)
    expected = [features_of(pixels_of(source / f"c0{i}.mp4")) for i in (0, 1, 3)]
    assert torch.allclose(found, torch.cat(expected), atol=1e-5)
    assert (told["features"], told["dim"], told["clips"]) == (5, TINY.dim, 3)
    assert (told["failed"], told["dropped_frames"]) == (1, 1 + 0 + 3)
    assert told["failures"] == [
        {"key": "c02", "error": "preprocess: clip has fewer than 4 frames, which is one group"}
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_any_batch_gives_the_same(batch_size, embed, tmp_path):
    source = clips_in(tmp_path / "clips", [21])
    _, found = embed(source, batch_size=batch_size)
    assert torch.allclose(found, features_of(pixels_of(source / "c00.mp4")), atol=1e-5)


def test_stride_frames_and_size(embed, tmp_path):
    source = clips_in(tmp_path / "clips", [21])
    _, found = embed(source, stride=3, frames=2, size=28)
    frames = pixels_of(source / "c00.mp4")[::3]
    assert torch.allclose(found, features_of(frames, size=28, count=2), atol=1e-5)


@torch.inference_mode()
def test_the_published_way_to_resize(embed, tmp_path):
    source = clips_in(tmp_path / "clips", [4])
    _, found = embed(source, preprocess="published")
    small = [
        np.asarray(Image.fromarray(pixels).resize((56, 56)))  # Pillow's default is bicubic
        for pixels in clip_files.raw_pixels(source / "c00.mp4")
    ]
    clip = torch.from_numpy(np.stack(small)).permute(3, 0, 1, 2)[None] / 255
    wanted = load_videomae(TINY, tiny_state(), "", "cpu").forward_features(clip)
    assert torch.allclose(found, wanted, atol=1e-5)
    _, other = embed(source)
    assert not torch.allclose(other, wanted, atol=1e-3)


@torch.inference_mode()
def test_through_an_autoencoder(embed, tmp_path):
    """Sides of 120 and 72 are no multiples of 16: the frames keep all their pixels."""
    clip = clip_files.make_clip(tmp_path / "c.mp4", 9, size=(120, 72))
    told, found = embed(clip, model=MODEL)
    pixels, net = pixels_of(clip), load_model(MODEL)
    whole = torch.cat([pixels, pixels[:, :, -1:].repeat(1, 1, 8, 1)], 2)
    whole = torch.cat([whole, whole[..., -1:].repeat(1, 1, 1, 8)], 3)
    back = to_uint8(net.decode(net.encode(to_float(whole)).bfloat16().float()))
    expected = features_of(back[:, :, :72, :120])
    # A level more or less of a value on the edge between two.
    assert torch.allclose(found, expected, atol=2e-3)
    assert not torch.allclose(found, features_of(pixels), atol=2e-3)
    assert told["autoencoder"] == MODEL


def test_what_the_file_says(embed, tmp_path):
    source = clips_in(tmp_path / "clips", [5, 8])
    told, _ = embed(source, model=MODEL)
    with safe_open(told["output"], "pt") as file:
        said = file.metadata()
    assert said["extractor"] == "videomae_v2_24x2"
    assert said["weights_sha256"] == told["weights_sha256"]
    assert (said["frames"], said["stride"], said["size"]) == ("4", "1", "56x56")
    assert (said["clips"], said["dropped_frames"]) == ("2", "1")
    assert said["preprocess"].startswith("divided by 255, then bilinear")
    assert said["made_by"].startswith("latentcli ")
    assert (said["autoencoder"], said["autoencoder_dtype"]) == (MODEL, "fp32")


def test_a_clip_that_breaks_leaves_nothing(embed, tmp_path):
    source = clips_in(tmp_path / "clips", [8, 8])
    alone = embed(source)[1]
    cut(clip_files.make_clip(tmp_path / "long.mp4", 60), source / "c00cut.mp4")
    told, found = embed(source)
    assert torch.equal(found, alone)
    assert (told["clips"], told["failed"], told["dropped_frames"]) == (2, 1, 0)
    with pytest.raises(LatentCliError, match=r"c00cut\.mp4 failed at decode_image: clip is cut"):
        embed(source, on_error="stop")
    with pytest.raises(
        TooManyFailures, match=r"--max-bad 0 allows 0 of 3\. The last was \S+c00cut"
    ):
        embed(source, max_bad="0")
    with pytest.raises(LatentCliError, match="No clip could be used; the first of 1, c00"):
        embed(source / "c00cut.mp4")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"frames": 5}, "--frames is 5; .* multiple of 2"),
        ({"size": 60}, "--size is 60; it must be a multiple of 14"),
        ({"preprocess": "other"}, "--preprocess is 'other'; allowed are cdfvd, published"),
        ({"batch_size": 0}, "--batch-size is 0; it must be at least 1"),
        ({"output": "x.npy"}, "must end in .safetensors"),
        ({"output": "/sys/x.safetensors"}, "nothing can be written to /sys"),
        ({"revision": "main"}, "--revision belongs to a --model"),
        ({"model_weights": "w"}, "--model-weights belongs to a --model"),
        ({"model": "tae192"}, "has only a decoder"),
    ],
)
def test_wrong_usage(options, told, embed, tmp_path):
    source = clips_in(tmp_path / "clips", [4])
    with pytest.raises(UsageError, match=told):
        embed(source, **options)


def test_the_three_commands(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips_in(tmp_path / "clips", [25, 16, 2])
    common = ["--weights", str(weights), "--frames", "2", "--size", "56", "--device", "cpu"]
    assert main(["video-embed", "clips", "-o", "originals.safetensors", *common]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "Embedded 3 clips: 21 groups of 2 frames" in told.err
    assert "Dropped 1 frame after the last whole groups." in told.err
    assert "Features: originals.safetensors (21 x 24)" in told.err
    command = ["video-embed", "clips", "-o", "back.safetensors", *common, "--model", MODEL]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["features"] == 21
    assert main(["video-distance", "originals.safetensors", "back.safetensors", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["distance"] > 0
    assert "has 21 rows for 24 dimensions" in document["notes"][0]
    assert main([*command, "--frames", "4", "--quiet"]) == 3  # the shortest clip is no group
    assert "1 of 3 inputs failed" in capsys.readouterr().err
    assert main(["video-distance", "originals.safetensors", "back.safetensors"]) == 2
    assert "frames is '2' and '4'" in capsys.readouterr().err
    assert main(["video-embed", "clips", *common]) == 2
    assert "Say where the features go" in capsys.readouterr().err


@pytest.mark.shared
@pytest.mark.parametrize(("name", "groups"), [("realshort.mp4", 2), ("newtonscradle.gif", 2)])
def test_real_clips(name, groups, shared, embed):
    told, found = embed(shared / "video" / name, frames=16)
    assert told["features"] == groups
    assert told["dropped_frames"] == 4
    assert torch.isfinite(found).all()


MEMORY = """
import resource, sys
from latentcli.jobs.video.config import VideoEmbedJob
from latentcli.jobs.video.embed import run_video_embed
source, weights, output = sys.argv[1:]
job = VideoEmbedJob(sources=(source,), output=output, weights=weights, frames=16, size=56,
                    device="cpu")
print(run_video_embed(job)["features"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(source: Path, weights: Path, output: Path) -> tuple[int, int]:
    """(features, KiB) of a job in a process of its own."""
    words = [sys.executable, "-c", MEMORY, str(source), str(weights), str(output)]
    variables = {**os.environ, **environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    count, kib = done.stdout.split()
    return int(count), int(kib)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_frames(weights, tmp_path):
    """Their pixels alone would take 226 MB; a list of the small ones 57 MB."""
    short = clip_files.make_clip(tmp_path / "s.mp4", 64, size=(256, 96), options={"bf": "0"})
    long = clip_files.repeat_clip(short, tmp_path / "l.mp4", 48)
    few, before = peak(short, weights, tmp_path / "s.safetensors")
    many, after = peak(long, weights, tmp_path / "l.safetensors")
    assert (few, many) == (4, 192)
    assert after - before < 40_000


def test_a_network_that_gives_no_numbers_writes_nothing(embed, tmp_path):
    folder = tiny_folder(tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    next(iter(state.values())).fill_(float("nan"))
    save_file(state, folder / "model.safetensors")
    with pytest.raises(LatentCliError, match="NaN or infinite, so its weights are damaged"):
        embed(clips_in(tmp_path / "clips", [4]), weights=str(folder))
    assert not (tmp_path / "f.safetensors").exists()
