"""Every golden vector of the DINAC family: float32 on the CPU, and bfloat16 within tolerance."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from goldenkit import (
    BF16_TOLERANCE,
    Vectors,
    check_decode,
    check_decoder_network,
    check_posterior,
    close,
    decode_settings,
    published,
    rms_ratio,
    vectors,
    weights,
)
from torch import Tensor

from latentcli.models.dinac import ALIASED, FAMILY, DinacAE
from latentcli.models.dinac_network import (
    AxialRope,
    ClassReadout,
    DitBlock,
    RMSNorm,
    Rotation,
    rms_norm,
    rotate,
)
from latentcli.models.vp_diffusion import draw_noise

# dinac_small_d8 has one batch.
BATCHES = [("dinac_small_d4", "a"), ("dinac_small_d4", "b"), ("dinac_small_d8", "a")]
BLOCKS = {"dinac_small_d4": 2, "dinac_small_d8": 3}
CLASS_TOLERANCE = 5e-3
"""RMS difference relative to RMS of class tokens, both under bfloat16 autocast.

Measured: 0 on the processor that made the vectors, 0.0023 there without oneDNN. A head in float32
would be 0.008 away."""


def load(golden: Path, name: str, dtype: torch.dtype) -> DinacAE:
    return published(DinacAE, FAMILY, golden, name, dtype)


@cache
def model(golden: Path, name: str) -> DinacAE:
    return load(golden, name, torch.float32)


@pytest.fixture(scope="session")
def pieces(golden: Path) -> Vectors:
    return vectors(golden / "pieces.safetensors")


def io_of(golden: Path, name: str) -> Vectors:
    return vectors(golden / f"{name}.io.safetensors")


def to_tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose(1, 2)


@pytest.mark.parametrize(("name", "batch"), BATCHES)
@torch.inference_mode()
def test_encoder(golden: Path, name: str, batch: str) -> None:
    net, io = model(golden, name), io_of(golden, name)
    features = net.encoder.patchify(io[f"{batch}.images"])
    close(features, io[f"{batch}.enc.patchify"])
    tokens, rotation = to_tokens(features), net.encoder.rope(*features.shape[-2:])
    assert len(net.encoder.blocks) == BLOCKS[name]
    for i, block in enumerate(net.encoder.blocks):
        tokens = block(tokens, rotation)
        close(tokens, to_tokens(io[f"{batch}.enc.block{i}"]))
    close(net.encoder(io[f"{batch}.images"]), io[f"{batch}.enc.projection"])
    check_posterior(net, io, batch)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(("name", "batch"), BATCHES)
@torch.inference_mode()
def test_decoder_network(golden: Path, name: str, batch: str, drop: bool) -> None:
    check_decoder_network(model(golden, name), io_of(golden, name), batch, drop)


@pytest.mark.parametrize("name", BLOCKS)
@torch.inference_mode()
def test_decode(golden: Path, name: str) -> None:
    check_decode(model(golden, name), io_of(golden, name))


@pytest.mark.parametrize(("name", "batch"), BATCHES)
@torch.inference_mode()
def test_noise_and_dewhitening(golden: Path, name: str, batch: str) -> None:
    net, io = model(golden, name), io_of(golden, name)
    close(net.dewhiten(io[f"{batch}.latents"]), io[f"{batch}.latents_dewhitened"])
    noise = draw_noise(tuple(io[f"{batch}.images"].shape), 42)
    close(noise * 0.558, io[f"{batch}.noise.scaled"])
    got = net.decode(io[f"{batch}.latents"], noise=noise)
    close(got, io[f"{batch}.dec.ddim_linear_1"])


@torch.inference_mode()
def test_every_call_of_the_decoder(golden: Path) -> None:
    net, io = model(golden, "dinac_small_d4"), io_of(golden, "dinac_small_d4")
    traces = {tuple(key.split(".")[0:3:2]) for key in io if ".trace." in key}
    assert traces
    for batch, setting in sorted(traces):
        calls = trace(net, io[f"{batch}.latents"], setting)
        prefix = f"{batch}.trace.{setting}."
        stored = {key.removeprefix(prefix) for key in io if key.startswith(prefix)}
        assert {name.split(".")[0] for name in stored} == calls.keys()
        for name in stored:
            call, part = name.split(".")
            close(calls[call][part], io[prefix + name])


def trace(net: DinacAE, latents: Tensor, setting: str) -> dict[str, Vectors]:
    """What each call of the decoder network was given and gave, under the stored names."""
    calls: dict[str, Vectors] = {}

    def record(module, args, options, out) -> None:  # type: ignore[no-untyped-def]
        dropped = "_drop" if options.get("drop_middle_blocks") else ""
        calls[f"call{len(calls)}{dropped}"] = {"x_t": args[0], "t": args[1], "x0": out}

    hook = net.decoder.register_forward_hook(record, with_kwargs=True)
    net.decode(latents, inference_config=decode_settings(setting))
    hook.remove()
    return calls


@pytest.mark.parametrize(("name", "batch"), BATCHES)
@torch.inference_mode()
def test_class_token(golden: Path, name: str, batch: str) -> None:
    net, io = model(golden, name), io_of(golden, name)
    head = net.dino_token_alignment_head
    assert head is not None
    raw = io[f"{batch}.latents_dewhitened"]
    tokens = head.tokens(raw)
    close(tokens, io[f"{batch}.cls.block_tokens_fp32"])
    close(head.class_readout(tokens[:, :1], tokens[:, 1:]), io[f"{batch}.cls.readout_fp32"])
    token, patches = head(raw)
    close(token, io[f"{batch}.cls.fp32"])
    close(patches, io[f"{batch}.cls.spatial_fp32"])
    predicted = net.predict_class(io[f"{batch}.latents"])
    assert predicted.dtype == torch.float32
    assert rms_ratio(predicted, io[f"{batch}.cls.api_bf16_autocast"]) < CLASS_TOLERANCE


@torch.inference_mode()
def test_bfloat16(golden: Path) -> None:
    net = load(golden, "dinac_small_d4", torch.bfloat16)
    io, want = io_of(golden, "dinac_small_d4"), io_of(golden, "dinac_small_d4.bf16")
    posterior = net.encode_posterior(io["a.images"])
    got = {
        "enc.mean": posterior.mean,
        "enc.logsnr": posterior.logsnr,
        "enc.mode": posterior.mode(),
        "enc.whitened": net.encode(io["a.images"]),
        "cls.api": net.predict_class(io["a.latents"]),
    }
    for key in want:
        if key.startswith("dec."):
            settings = decode_settings(key.removeprefix("dec."))
            got[key] = net.decode(io["a.latents"], inference_config=settings)
    assert got.keys() == want.keys()
    for key, value in got.items():
        assert value.dtype == want[key].dtype, key
        assert rms_ratio(value, want[key]) < BF16_TOLERANCE, key


def test_storage_in_bfloat16(golden: Path) -> None:
    listed = json.loads((golden / "dinac_small_d4.bf16.dtypes.json").read_text())["storage"]
    net = load(golden, "dinac_small_d4", torch.bfloat16)
    found = {name: str(t.dtype).removeprefix("torch.") for name, t in net.state_dict().items()}
    aliases = set(listed) - set(found)
    assert len(aliases) == 2 * 2 + 2 + 2
    assert all(name.endswith(ALIASED) for name in aliases)
    assert found == {name: kind for name, kind in listed.items() if name not in aliases}


@pytest.mark.parametrize("part", ["rms", "rms_noaffine"])
@torch.inference_mode()
def test_rms_norm(pieces: Vectors, part: str) -> None:
    x, weight = pieces["rms.x"], None
    if part == "rms":
        weight = pieces["rms.weight"]
        layer = RMSNorm(64)
        layer.load_state_dict({"_impl.weight": weight})
        close(layer(x), pieces["rms.out"])
    close(rms_norm(x, weight), pieces[f"{part}.out"])
    assert torch.equal(rms_norm(x.bfloat16(), weight), pieces[f"{part}.out_bf16"])


@torch.inference_mode()
def test_rotary_positions(pieces: Vectors) -> None:
    rope = AxialRope(64)
    close(rope.periods, pieces["rope.periods"])
    rope.load_state_dict({"periods": pieces["rope.periods"]})
    for i, name in enumerate(("cos", "sin")):
        close(rope(3, 4)[i], pieces[f"rope.{name}_3x4"])
        close(rope(3, 4, prefix=5)[i], pieces[f"rope.{name}_prefix5"])
        close(rope(40, 7)[i][-1], pieces[f"rope.{name}_40x7_last"])
    for name in ("q", "k"):
        close(rotate(pieces[f"rope.{name}"], rope(3, 4)), pieces[f"rope.{name}_rot"])
    rope.periods *= 2
    assert not torch.equal(rope(3, 4)[1], pieces["rope.sin_3x4"]), "the stored periods must be used"


def block_weights(pieces: Vectors, part: str) -> Vectors:
    return {
        name: t
        for name, t in weights(pieces, part).items()
        if name.startswith("attn_core.") or not name.endswith(ALIASED)
    }


def with_outputs(module: torch.nn.Module, names: list[str], *args: Tensor | Rotation) -> Vectors:
    seen: Vectors = {}
    for n in names:
        module.get_submodule(n).register_forward_hook(
            lambda m, args, out, n=n: seen.__setitem__(n, out)
        )
    return seen | {"out": module(*args)}


@torch.inference_mode()
def test_block(pieces: Vectors) -> None:
    block, rope = DitBlock(128, 512, 64), AxialRope(64)
    block.load_state_dict(block_weights(pieces, "dit"))
    got = block(pieces["dit.tokens_x"], rope(3, 4, prefix=5))
    close(got, pieces["dit.tokens_out_prefix5"])
    inner = [k.removeprefix("dit.mid.") for k in pieces if k.startswith("dit.mid.")]
    seen = with_outputs(block, inner, to_tokens(pieces["dit.x"]), rope(3, 4))
    close(seen.pop("out"), to_tokens(pieces["dit.out"]))
    assert len(seen) == 6
    for name, value in seen.items():
        close(value, pieces[f"dit.mid.{name}"])


@torch.inference_mode()
def test_class_readout(pieces: Vectors) -> None:
    readout = ClassReadout(128, 512, 64)
    state = weights(pieces, "xattn")
    state = {k: v for k, v in state.items() if k not in ("kv_proj.weight", "out_proj.weight")}
    readout.load_state_dict(state)
    seen = with_outputs(readout, ["attn_core"], pieces["xattn.query"], pieces["xattn.context"])
    close(seen["attn_core"], pieces["xattn.attn_core"])
    close(seen["out"], pieces["xattn.out"])
