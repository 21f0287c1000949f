"""Every golden vector of the FCDM family, float32 on the CPU, and bfloat16 within its tolerance."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from goldenkit import (
    BF16_TOLERANCE,
    check_decode,
    check_decoder_network,
    check_posterior,
    close,
    rms_ratio,
    vectors,
    weights,
)
from torch import Tensor

from latentcli.models.fcdm import FAMILY, FCDMDiffAE
from latentcli.models.fcdm_network import (
    GRN,
    FCDMBlock,
    Patchify,
    TimeEmbedding,
    adaln_base,
    adaln_delta,
    channel_rms_norm,
)
from latentcli.models.vp_diffusion import (
    SAMPLERS,
    InferenceConfig,
    VPSchedule,
    draw_noise,
    guided,
    initial_state,
    time_grid,
)

MODELS = ("fcdm_small", "fcdm_small_p32")


@cache
def model(golden: Path, name: str) -> FCDMDiffAE:
    net = FCDMDiffAE.from_config(json.loads((golden / f"{name}.config.json").read_text()))
    net.load_state_dict(FAMILY.adapt(vectors(golden / f"{name}.safetensors"), net), strict=True)
    return net.eval()


@pytest.fixture(scope="session")
def pieces(golden: Path) -> dict[str, Tensor]:
    return vectors(golden / "pieces.safetensors")


@pytest.mark.parametrize("batch", ["a", "b"])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_encoder(golden: Path, name: str, batch: str) -> None:
    io = vectors(golden / f"{name}.io.safetensors")
    if f"{batch}.images" not in io:
        pytest.skip("this model has one batch")
    net, images = model(golden, name), io[f"{batch}.images"]
    assert net.encoder is not None
    h = net.encoder.patchify(images)
    close(h, io[f"{batch}.enc.patchify"])
    for i, block in enumerate(net.encoder.blocks):
        h = block(h)
        close(h, io[f"{batch}.enc.block{i}"])
    close(net.encoder(images), io[f"{batch}.enc.projection"])
    check_posterior(net, io, batch)


@pytest.mark.parametrize("drop", [False, True])
@torch.inference_mode()
def test_decoder_network(golden: Path, drop: bool) -> None:
    net, io = model(golden, "fcdm_small"), vectors(golden / "fcdm_small.io.safetensors")
    for batch in ("a", "b"):
        check_decoder_network(net, io, batch, drop)


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_decode(golden: Path, name: str) -> None:
    check_decode(model(golden, name), vectors(golden / f"{name}.io.safetensors"))


@torch.inference_mode()
def test_noise_is_one_cpu_stream_per_call(golden: Path) -> None:
    io = vectors(golden / "fcdm_small.io.safetensors")
    unit = draw_noise((2, 3, 64, 96), 42)
    reference = vectors(golden / "dinac_small_d4.io.safetensors")
    close(unit, reference["a.noise.unit"])
    close(unit * 0.558, reference["a.noise.scaled"])
    net = model(golden, "fcdm_small")
    got = net.decode(io["a.latents"], noise=reference["a.noise.unit"])
    close(got, io["a.dec.ddim_linear_1"])


@torch.inference_mode()
def test_pieces(pieces: dict[str, Tensor]) -> None:
    grn = GRN(24)
    grn.load_state_dict(weights(pieces, "grn"))
    close(grn(pieces["grn.x"]), pieces["grn.out"])
    close(grn(torch.zeros_like(pieces["grn.x"])), pieces["grn.out_zero"])
    close(grn(pieces["grn.x"].bfloat16()), pieces["grn.out_bf16"], 1e-2)
    grn.beta.zero_()
    close(grn(pieces["grn.x_tiny"]), pieces["grn.out_tiny_beta0"])
    close(channel_rms_norm(pieces["crms.x"]), pieces["crms.out"])
    assert torch.equal(channel_rms_norm(pieces["crms.x"].bfloat16()), pieces["crms.out_bf16"])
    patchify = Patchify(3, 16, 20)
    patchify.load_state_dict(weights(pieces, "patchify"))
    close(patchify(pieces["patchify.x"]), pieces["patchify.out"])
    shuffled = torch.nn.functional.pixel_shuffle(pieces["pixelshuffle2.x"], 2)
    assert torch.equal(shuffled, pieces["pixelshuffle2.out"])


@pytest.mark.parametrize("part", ["fcdm_uncond", "fcdm_cond"])
@torch.inference_mode()
def test_block(pieces: dict[str, Tensor], part: str) -> None:
    block = FCDMBlock(48, 192, 7, layer_scale=part == "fcdm_uncond")
    block.load_state_dict(weights(pieces, part))
    modulation = pieces.get(f"{part}.adaln_m")
    close(block(pieces[f"{part}.x"], modulation), pieces[f"{part}.out"])
    for name in ("dwconv", "pwconv1", "pwconv2"):
        block.get_submodule(name).bfloat16()
    got = block(pieces[f"{part}.x"].bfloat16(), modulation)
    assert got.dtype == torch.bfloat16
    close(got, pieces[f"{part}.out_bf16"], 1e-2)


@torch.inference_mode()
def test_conditioning(pieces: dict[str, Tensor]) -> None:
    embed = TimeEmbedding(48)
    embed.load_state_dict(weights(pieces, "time"))
    close(embed.sinusoid(pieces["time.t"]), pieces["time.sinusoid"])
    close(embed(pieces["time.t"]), pieces["time.out"])
    dim = pieces["adaln.cond"].shape[1]
    base = adaln_base(dim)
    base.load_state_dict(weights(pieces, "adaln.base"))
    state = weights(pieces, "adaln.delta")
    delta = adaln_delta(dim, state["down.weight"].shape[0])
    delta.load_state_dict(state)
    act = torch.nn.functional.silu(pieces["adaln.cond"])
    close(base(act), pieces["adaln.base_out"])
    close(delta(act), pieces["adaln.delta_out"])
    close(base(act) + delta(act), pieces["adaln.m"])


def test_schedule(pieces: dict[str, Tensor]) -> None:
    schedule = VPSchedule()
    t = pieces["vp.t"]
    close(schedule.log_snr(t), pieces["vp.lambda"])
    shifted = VPSchedule(shift_high=-1.0, shift_low=0.5)
    close(shifted.log_snr(t), pieces["vp.lambda_shift_high-1_low0.5"])
    alpha, sigma = schedule.alpha_sigma(t)
    close(alpha, pieces["vp.alpha"])
    close(sigma, pieces["vp.sigma"])
    grids = [k for k in pieces if k.startswith("schedule.")]
    assert len(grids) == 10
    for key in grids:
        _, name, steps = key.split(".")
        close(time_grid(int(steps), name), pieces[key])
        assert time_grid(int(steps), name)[-1] == 0.0


def test_samplers(pieces: dict[str, Tensor]) -> None:
    z, noise = pieces["samp.z"], pieces["samp.noise_scaled_seed42"]
    full, dropped = _toy_denoisers(z)
    keys = [k for k in pieces if k.startswith(("samp.ddim.", "samp.dpmpp2m."))]
    assert len(keys) == 25
    for key in keys:
        _, sampler, grid, steps, *rest = key.split(".", 4)
        strength = 0.6 if rest and rest[0].startswith("strength") else 1.0
        denoise = guided(full, dropped, 2.0) if rest == ["pdg2"] else full
        times = time_grid(int(steps), grid, strength)
        state = initial_state(noise, times, VPSchedule())
        run = SAMPLERS[{"ddim": "ddim", "dpmpp2m": "dpmpp_2m"}[sampler]]
        close(run(denoise, state, times, VPSchedule()), pieces[key])


def _toy_denoisers(z: Tensor):  # type: ignore[no-untyped-def]
    def full(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(0.5 * x + z + t[:, None, None, None])

    def dropped(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(0.25 * x + t[:, None, None, None])

    return full, dropped


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_bfloat16_stays_close_to_float32(golden: Path, name: str) -> None:
    io = vectors(golden / f"{name}.io.safetensors")
    net = FCDMDiffAE.from_config(json.loads((golden / f"{name}.config.json").read_text()))
    state = vectors(golden / f"{name}.safetensors")
    cast = {k: v if FAMILY.fp32_islands(k) else v.bfloat16() for k, v in state.items()}
    net.load_state_dict(cast, strict=True, assign=True)
    assert net.dtype == torch.bfloat16
    got = net.decode(io["a.latents"], inference_config=InferenceConfig(seed=42))
    assert rms_ratio(got, io["a.dec.ddim_linear_1"]) < BF16_TOLERANCE
    assert rms_ratio(net.encode_posterior(io["a.images"]).mode(), io["a.enc.mode"]) < BF16_TOLERANCE
