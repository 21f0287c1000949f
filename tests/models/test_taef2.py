"""taef2 with its real weights: the reference's latents and pictures, from every kind of file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paritykit
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from latentcli.images.codec import to_float, to_uint8
from latentcli.metrics.psnr import psnr
from latentcli.metrics.ssim import ssim
from latentcli.models.registry import load_model

BF16_LEAST = 50.0
"""dB of bfloat16's picture against float32's, for a range of 2. Measured on CPU: 55.3."""
BF16_LATENTS = 0.03
"""RMS of bfloat16's latents minus float32's. Measured on CPU: 0.014; the reference has 0.019."""


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    found = shared / "weights" / "taef2"
    if not found.is_dir():
        pytest.skip("the real weights of taef2 are not at hand")
    return found


@pytest.fixture(scope="module")
def model(folder):
    return load_model("taef2", weights=folder / "taef2_diffusers_keys_fp16.safetensors")


@pytest.fixture(scope="module")
def crop(shared):
    return paritykit.arrays(shared, "taef2_golden_kodim23_crop")


def pixels_of(rgb: torch.Tensor) -> torch.Tensor:
    return rgb.permute(2, 0, 1)[None].contiguous()


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_names_and_shapes_are_the_published_ones(shared, folder, half):
    expected = paritykit.manifest(shared, f"taef2_{half}_pth")
    assert len(expected) == 79
    loaded = torch.load(folder / f"taef2_{half}.pth", weights_only=True)
    assert {name: tuple(t.shape) for name, t in loaded.items()} == expected
    alone = load_model("taef2", weights=folder / f"taef2_{half}.pth")
    assert len(alone.state_dict()) == 79
    assert (alone.can_encode, alone.can_decode) == (half == "encoder", half == "decoder")


@torch.inference_mode()
def test_the_golden_crop(model, crop):
    pixels = pixels_of(crop["rgb"])
    latents = model.encode(to_float(pixels))
    assert latents.shape == (1, 128, 4, 6)
    paritykit.close(F.pixel_shuffle(latents, 2)[0], crop["latents"])
    recon = model.decode(latents)
    paritykit.close(recon[0], crop["recon"])
    assert psnr(pixels, to_uint8(recon)).item() == pytest.approx(33.2761, abs=1e-3)


@torch.inference_mode()
def test_channels_are_folded_as_flux2_folds_them(model, crop):
    latents = F.pixel_unshuffle(crop["latents"][None], 2)
    for channel, dy, dx in ((0, 0, 0), (5, 1, 0), (31, 0, 1), (17, 1, 1)):
        folded = latents[0, 4 * channel + 2 * dy + dx]
        assert torch.equal(folded, crop["latents"][channel, dy::2, dx::2])
    paritykit.close(model.decode(latents)[0], crop["recon"])


@torch.inference_mode()
def test_all_files_give_one_model(model, folder, crop, tmp_path):
    images = to_float(pixels_of(crop["rgb"]))
    want = model.encode(images)
    for half in ("encoder", "decoder"):
        (tmp_path / f"taef2_{half}.pth").symlink_to(folder / f"taef2_{half}.pth")
    pair = load_model("taef2", weights=tmp_path)
    encoder = load_model("taef2", weights=folder / "taef2_encoder.pth")
    decoder = load_model("taef2", weights=folder / "taef2_decoder.pth")
    assert torch.equal(pair.encode(images), want) and torch.equal(encoder.encode(images), want)
    assert torch.equal(pair.decode(want), model.decode(want))
    assert torch.equal(decoder.decode(want), model.decode(want))
    assert model.spec.space == "flux2" and model.spec.state == "whitened"


@torch.inference_mode()
def test_a_whole_photograph(model, shared):
    rgb = np.asarray(Image.open(shared / "images" / "kodak" / "kodim23.png").convert("RGB"))
    pixels = pixels_of(torch.from_numpy(rgb.copy()))
    back = to_uint8(model.decode(model.encode(to_float(pixels))))
    assert psnr(pixels, back).item() == pytest.approx(33.3418, abs=2e-3)
    assert ssim(pixels, back).item() == pytest.approx(0.93096, abs=2e-4)


@torch.inference_mode()
def test_bfloat16_is_close(model, folder, crop):
    small = load_model("taef2", weights=folder, dtype="bf16")
    images = to_float(pixels_of(crop["rgb"]))
    exact, rounded = model.encode(images), small.encode(images)
    assert 0 < (rounded - exact).square().mean().sqrt().item() < BF16_LATENTS
    got = small.decode(rounded)
    assert got.dtype is torch.float32
    error = (got - model.decode(exact)).square().mean().item()
    assert 10 * np.log10(4 / error) > BF16_LEAST


@torch.inference_mode()
def test_raw_latents_are_flux2s_to_four_decimals(model, shared):
    stats = json.loads((shared / "facts" / "parity" / "flux2_bn_stats_4dp.json").read_text())
    mean, std = (torch.tensor(next(v for k, v in stats.items() if n in k)) for n in ("mean", "std"))
    raw = torch.randn(1, 128, 2, 3)
    want = (raw - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(model.whiten(raw), want, rtol=1e-5, atol=1e-5)
