"""Groups of frames: how they are cut, resized, and sent through an autoencoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from presetkit import toy_checkpoint

from latentcli.images.codec import to_float, to_uint8
from latentcli.jobs.inference.engine import load_engine
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.jobs.video.frame_groups import Group, groups_of, padded, reconstructed, resized


def frames_of(count: int, height: int, width: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=draw)


@given(st.integers(0, 30), st.integers(1, 9))
def test_groups(count, length):
    *groups, left = groups_of(frames_of(count, 1, 1), length)
    assert all(isinstance(group, Group) and len(group.frames) == length for group in groups)
    assert [group.first for group in groups] == list(range(0, count - left, length))
    assert left == count % length
    if groups:
        whole = torch.cat([group.frames for group in groups])
        assert torch.equal(whole, frames_of(count, 1, 1)[: count - left])


def test_resized():
    frames = frames_of(2, 30, 41)
    linear = resized(frames, 14, "cdfvd")
    assert (linear.shape, linear.dtype) == ((3, 2, 14, 14), torch.float32)
    # Without antialias: each pixel is a mean of the four about its centre.
    y, x = (np.arange(14) + 0.5) * 30 / 14 - 0.5, (np.arange(14) + 0.5) * 41 / 14 - 0.5
    at, by = y.astype(int), (y - y.astype(int))[:, None]
    to, aside = x.astype(int), x - x.astype(int)
    picture = frames[1, 0].double().numpy() / 255
    above, below = picture[at], picture[at + 1]
    rows = (1 - by) * above + by * below
    wanted = rows[:, to] * (1 - aside) + rows[:, to + 1] * aside
    assert linear[0, 1].numpy() == pytest.approx(wanted, abs=1e-5)
    cubic = resized(frames, 14, "published")
    pixels = Image.fromarray(frames[1].permute(1, 2, 0).numpy()).resize((14, 14))
    assert np.array_equal((cubic[:, 1] * 255).round().permute(1, 2, 0).numpy(), np.asarray(pixels))


def test_padded():
    frames = frames_of(1, 2, 3)
    wide = padded(frames, 2, 1)
    assert torch.equal(wide[:, :, :2, :3], frames)
    assert torch.equal(wide[..., 3], wide[..., 2])
    assert torch.equal(wide[:, :, 3], wide[:, :, 1])
    assert torch.equal(padded(frames, 0, 0), frames)


@pytest.mark.parametrize(("num_frames", "step"), [(None, 8), (4, 4)])
@torch.inference_mode()
def test_a_temporal_decoder_sees_chunks_of_the_group(num_frames, step, tmp_path, monkeypatch):
    toy_checkpoint(tmp_path, "svd")
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path))
    engine = load_engine("svd", device="cpu", dtype="fp32")
    frames, net = frames_of(10, 64, 64), engine.model
    settings = DecodeSettings(num_frames=num_frames)
    found = reconstructed(engine, Group(0, frames), "k", settings).int()
    latents = net.encode(to_float(frames)).bfloat16().float()
    wanted = torch.cat([to_uint8(net.decode_frames(part)) for part in latents.split(step)])
    assert (found - wanted.int()).abs().max() <= 1
    other = to_uint8(net.decode_frames(latents[:10]))
    assert (found - other.int()).abs().max() > 1
