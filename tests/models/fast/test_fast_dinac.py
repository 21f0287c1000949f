"""Every golden vector that the fast DINAC encoder gives."""

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

from latentcli.models.dinac import FAMILY, DinacAE
from latentcli.models.dinac_network import AxialRope, RMSNorm, rotate
from latentcli.models.fast.dinac import gain, rotation, turned
from latentcli.models.fast.form import fast_form

BATCHES = [("dinac_small_d4", "a"), ("dinac_small_d4", "b"), ("dinac_small_d8", "a")]


def plain(golden: Path, name: str, dtype: torch.dtype) -> DinacAE:
    return published(DinacAE, FAMILY, golden, name, dtype)


@cache
def model(golden: Path, name: str, dtype: torch.dtype = torch.float32) -> DinacAE:
    return fast_form(plain(golden, name, dtype))  # type: ignore[return-value]


@pytest.mark.parametrize(("name", "batch"), BATCHES)
@torch.inference_mode()
def test_encoder(golden: Path, name: str, batch: str) -> None:
    net, io = model(golden, name), vectors(golden / f"{name}.io.safetensors")
    close(net.encoder(io[f"{batch}.images"]), io[f"{batch}.enc.projection"])
    check_posterior(net, io, batch)


@pytest.mark.parametrize("name", ["dinac_small_d4", "dinac_small_d8"])
@torch.inference_mode()
def test_decode(golden: Path, name: str) -> None:
    check_decode(model(golden, name), vectors(golden / f"{name}.io.safetensors"))


@torch.inference_mode()
def test_bfloat16_stays_close_to_float32(golden: Path) -> None:
    io = vectors(golden / "dinac_small_d4.io.safetensors")
    net = model(golden, "dinac_small_d4", torch.bfloat16)
    assert rms_ratio(net.encode_posterior(io["a.images"]).mode(), io["a.enc.mode"]) < BF16_TOLERANCE


@torch.inference_mode()
def test_heads_are_normed_and_turned_as_the_plain_network_does():
    draw = torch.Generator().manual_seed(0)
    rope, norms = AxialRope(16), [RMSNorm(16), RMSNorm(16)]
    for norm in norms:
        norm._impl.weight.copy_(torch.randn(16, generator=draw))
    heads = torch.randn(2, 6, 2, 3, 16, generator=draw)
    weight = torch.stack([gain(norm) for norm in norms])[:, None]
    got = turned(heads, weight, rotation(rope, 2, 3))
    for i, norm in enumerate(norms):
        want = rotate(norm(heads[:, :, i].transpose(1, 2)), rope(2, 3))
        torch.testing.assert_close(got[:, :, i].transpose(1, 2), want)


@torch.inference_mode()
def test_a_rotation_is_made_once_for_each_grid(golden: Path) -> None:
    net = fast_form(plain(golden, "dinac_small_d4", torch.float32))
    seen: list[tuple[int, int]] = []
    hook = net.encoder.rope.register_forward_hook(lambda module, args, out: seen.append(args))
    for height, width in ((32, 48), (48, 32), (32, 48)):
        net.encode(torch.zeros(1, 3, height, width))
    hook.remove()
    assert seen == [(2, 3), (3, 2)]
