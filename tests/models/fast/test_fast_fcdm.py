"""Every golden vector that the fast FCDM networks give."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from goldenkit import (
    BF16_TOLERANCE,
    check_decode,
    check_posterior,
    close,
    published,
    rms_ratio,
    vectors,
)

from latentcli.models.fast.fcdm import patches, pictures
from latentcli.models.fast.form import fast_form
from latentcli.models.fcdm import FAMILY, FCDMDiffAE
from latentcli.models.vp_diffusion import InferenceConfig

BATCHES = [("fcdm_small", "a"), ("fcdm_small", "b"), ("fcdm_small_p32", "a")]


def plain(golden: Path, name: str, dtype: torch.dtype) -> FCDMDiffAE:
    return published(FCDMDiffAE, FAMILY, golden, name, dtype)


@cache
def model(golden: Path, name: str, dtype: torch.dtype = torch.float32) -> FCDMDiffAE:
    return fast_form(plain(golden, name, dtype))  # type: ignore[return-value]


@pytest.mark.parametrize(("name", "batch"), BATCHES)
@torch.inference_mode()
def test_encoder(golden: Path, name: str, batch: str) -> None:
    net, io = model(golden, name), vectors(golden / f"{name}.io.safetensors")
    close(net.encoder(io[f"{batch}.images"]), io[f"{batch}.enc.projection"])
    check_posterior(net, io, batch)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("batch", ["a", "b"])
@torch.inference_mode()
def test_decoder_network(golden: Path, batch: str, drop: bool) -> None:
    net, io = model(golden, "fcdm_small"), vectors(golden / "fcdm_small.io.safetensors")
    z, t, x_t = (io[f"{batch}.fwd.{n}"] for n in ("z_dewhitened", "t", "x_t"))
    want = io[f"{batch}.fwd.{'drop' if drop else 'full'}.x0"]
    close(net.decoder(x_t, t, z, drop_middle_blocks=drop), want)


@pytest.mark.parametrize("name", ["fcdm_small", "fcdm_small_p32"])
@torch.inference_mode()
def test_decode(golden: Path, name: str) -> None:
    check_decode(model(golden, name), vectors(golden / f"{name}.io.safetensors"))


@pytest.mark.parametrize("name", ["fcdm_small", "fcdm_small_p32"])
@torch.inference_mode()
def test_bfloat16_stays_close_to_float32(golden: Path, name: str) -> None:
    net, io = model(golden, name, torch.bfloat16), vectors(golden / f"{name}.io.safetensors")
    got = net.decode(io["a.latents"], inference_config=InferenceConfig(seed=42))
    assert rms_ratio(got, io["a.dec.ddim_linear_1"]) < BF16_TOLERANCE
    assert rms_ratio(net.encode_posterior(io["a.images"]).mode(), io["a.enc.mode"]) < BF16_TOLERANCE


@torch.inference_mode()
def test_modulations_are_made_once_for_each_time(golden: Path) -> None:
    io = vectors(golden / "fcdm_small.io.safetensors")
    net = fast_form(plain(golden, "fcdm_small", torch.float32))
    seen: list[float] = []
    hook = net.decoder.time_embed.register_forward_hook(
        lambda module, args, out: seen.extend(args[0].tolist())
    )
    for steps in (1, 4, 4):
        got = net.decode(io["a.latents"], inference_config=InferenceConfig(steps, seed=42))
        close(got, io[f"a.dec.ddim_linear_{steps}"])
    hook.remove()
    assert seen == [1.0, 0.75, 0.5, 0.25]


def test_patches_are_in_the_order_of_a_kernel():
    images = torch.randn(2, 3, 8, 12)
    kernel = torch.randn(5, 3, 4, 4)
    want = torch.nn.functional.conv2d(images, kernel, stride=4).permute(0, 2, 3, 1)
    rows = patches(images, 4, torch.float32)
    torch.testing.assert_close(rows @ kernel.flatten(1).T, want)
    assert torch.equal(pictures(rows, 4), images)
    shuffled = torch.nn.functional.pixel_shuffle(rows.permute(0, 3, 1, 2), 4)
    assert torch.equal(pictures(rows, 4), shuffled)
