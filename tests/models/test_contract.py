"""The contract that every model family keeps, tested on the toy models of all of them.

A family inherits all of this from its FAMILY.tiny; see docs/internals/adding-a-model.md.
"""

from __future__ import annotations

import json
import re

import pytest
import torch
from contractkit import (
    Case,
    cases,
    images,
    latents,
    model_of,
    noise_for,
    normal,
    on_meta,
    psnr,
    state_of,
    worst,
)
from safetensors.torch import save_file

from latentcli.core.errors import WeightsError
from latentcli.core.posterior import posterior_of
from latentcli.models import registry
from latentcli.models.presets import load_preset, preset_names
from latentcli.models.registry import load_model
from latentcli.models.weights import load_into

CASES = cases()
SIZES = [(1, 1), (2, 2), (2, 3), (3, 1)]
"""Height and width in units of the size divisor: the least, square, and oblong both ways."""
BATCH_TOLERANCE = 1e-4
"""Largest difference of a batch from its images one by one, in units of the output's std.

Measured: 1.1e-5 at most (kl, decode)."""
BF16_DB = 45.0
"""Least PSNR of a bfloat16 network against float32, in dB of the output's range.

Measured: 49.2 at least (kl-sdxl, encode); 61 for fcdm, 54 for dinac and tiny_temporal, 55 for tiny,
61 for effvit; linear runs in float32 always."""
FRAMES_APART = 0.01
"""How far temporal decoding of noise is from frame by frame, in units of the output's std."""
EXACT = 1e-5
"""Rounding of whitening and back, in units of the latents' std."""


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> Case:
    return request.param


@pytest.fixture
def model(case):
    return model_of(case)


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def test_every_family_has_a_toy_model_that_does_something(case, model):
    assert case.family.name in registry.families()
    assert case.config, "FAMILY.tiny is empty"
    assert model.can_encode or model.can_decode
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("cells", SIZES, ids=lambda cells: f"{cells[0]}x{cells[1]}")
def test_shapes_and_dtype(case, cells, count, dtype):
    model = model_of(case, dtype)
    pixels, z = images(model, count, cells), latents(model, count, cells)
    if model.can_encode:
        got = model.encode(pixels)
        assert (got.shape, got.dtype) == (z.shape, torch.float32)
        assert got.isfinite().all()
        z = got
    if model.can_decode:
        got = model.decode(z, noise=noise_for(model, z))
        assert (got.shape, got.dtype) == (pixels.shape, torch.float32)
        assert got.isfinite().all()
        height, width = pixels.shape[-2:]
        assert torch.equal(model.decode(z, height, width, noise=noise_for(model, z)), got)


@pytest.mark.parametrize("network", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_inputs_may_be_of_either_dtype(case, network, given):
    """Stores hold bfloat16 latents, whatever the network runs in."""
    model = model_of(case, network)
    z = latents(model).to(given)
    if model.can_encode:
        assert model.encode(images(model).to(given)).dtype == torch.float32
    if model.can_decode:
        exact = model.decode(z.float(), noise=noise_for(model, z))
        assert psnr(model.decode(z, noise=noise_for(model, z)), exact) > BF16_DB
        assert model.decode_frames(z).dtype == torch.float32
    if model.predicts_class:
        assert model.predict_class(z).dtype == torch.float32


def test_sizes_that_break_the_rule_are_refused(model):
    step = model.spec.size_divisor
    z = latents(model)
    for height, width in ((2 * step + 1, step), (step, 2 * step - 1), (0, step)):
        if model.can_encode:
            pixels = torch.zeros(1, 3, height, width)
            for encode in (model.encode, model.encode_posterior):
                with pytest.raises(ValueError, match=f"must be multiples of {step}"):
                    encode(pixels)
        if model.can_decode:
            with pytest.raises(ValueError, match=f"must be multiples of {step}"):
                model.decode(z, height, width)


def test_misfitting_latents_are_refused(model):
    z = latents(model)
    takers = [model.decode, model.decode_frames] if model.can_decode else []
    takers += [model.predict_class] if model.predicts_class else []
    for take in takers:
        with pytest.raises(ValueError, match=rf"must be \[N, {model.spec.channels}, "):
            take(torch.cat([z, z[:, :1]], dim=1))
    if model.can_decode:
        height, width = (n * model.spec.downscale for n in z.shape[-2:])
        with pytest.raises(ValueError, match=r"must be \[N, "):
            model.decode(z, height + model.spec.size_divisor, width)


def test_a_batch_is_its_images_one_by_one(model):
    if model.can_encode:
        batch = images(model, 3)
        singles = torch.cat([model.encode(one) for one in batch.split(1)])
        assert worst(model.encode(batch), singles) < BATCH_TOLERANCE
    if model.can_decode:
        z = latents(model, 3)
        noise = noise_for(model, z)
        pairs = zip(z.split(1), noise.split(1), strict=True)
        singles = torch.cat([model.decode(one, noise=start) for one, start in pairs])
        assert worst(model.decode(z, noise=noise), singles) < BATCH_TOLERANCE


def test_bfloat16_stays_close_to_float32(case, model):
    rounded = model_of(case, torch.bfloat16)
    if model.can_encode:
        pixels = images(model, 2)
        assert psnr(rounded.encode(pixels), model.encode(pixels)) > BF16_DB
    if model.can_decode:
        z = latents(model, 2)
        noise = noise_for(model, z)
        assert psnr(rounded.decode(z, noise=noise), model.decode(z, noise=noise)) > BF16_DB


def test_what_runs_in_bfloat16(case):
    model = model_of(case, torch.bfloat16)
    buffers = {name for name, _ in model.named_buffers()}
    kept = {name for name in state_of(case) if name in buffers or case.family.fp32_islands(name)}
    dtypes = {name: t.dtype for name, t in model.state_dict().items() if t.is_floating_point()}
    assert {dtypes[name] for name in kept & set(dtypes)} <= {torch.float32}
    ordinary = {dtypes[name] for name in set(dtypes) - kept}
    assert ordinary <= {torch.bfloat16}
    assert model.dtype in (ordinary or {torch.float32})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_whitening_and_its_inverse(model, dtype):
    z = latents(model, 3).to(dtype)
    white, raw = model.whiten(z), model.dewhiten(z)
    assert (white.shape, white.dtype, raw.dtype) == (z.shape, torch.float32, torch.float32)
    assert worst(model.dewhiten(white), z.float()) < EXACT
    assert worst(model.whiten(raw), z.float()) < EXACT
    assert worst(white, z.float()) > 0.01, "whitening changes nothing"


def test_posterior(model):
    if not model.can_encode:
        return
    pixels = images(model, 2)
    posterior, encoded = model.encode_posterior(pixels), model.encode(pixels)
    assert worst(model.whiten(posterior.mode()), encoded) < EXACT
    moments = posterior.moments()
    assert tuple(moments) == model.moments
    assert {(t.shape, t.dtype) for t in moments.values()} == {(encoded.shape, torch.float32)}
    assert torch.equal(posterior_of(moments).mode(), posterior.mode())
    sample = posterior.sample(normal(*encoded.shape))
    assert torch.equal(sample, posterior.mode()) == (model.moments == ("mean",))
    assert torch.equal(posterior_of(moments).sample(normal(*encoded.shape)), sample)


def test_own_tensor_names_are_kept(case, model):
    state = state_of(case)
    kept = case.family.adapt(dict(state), on_meta(case))
    assert kept.keys() == state.keys() == model.state_dict().keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in state.items())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())


def test_every_tensor_is_needed_in_its_shape_and_no_other(case):
    model, state = on_meta(case), state_of(case)
    damaged = [({k: v for k, v in state.items() if k != name}, name) for name in state]
    damaged += [(state | {name: torch.zeros(*t.shape, 2)}, name) for name, t in state.items()]
    damaged += [(state | {"stranger.weight": torch.zeros(1)}, "stranger.weight")]
    for tensors, name in damaged:
        with pytest.raises(WeightsError, match=re.escape(name)):
            load_into(
                model,
                tensors,
                family=case.family,
                dtype=torch.float32,
                device="cpu",
                source="the test",
            )


def test_a_saved_folder_loads_again(case, model, tmp_path):
    save_file(state_of(case), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(dict(case.config)))
    loaded = load_model(tmp_path)
    assert loaded.info.family == case.family.name
    for name in ("can_encode", "can_decode", "predicts_class", "is_video", "moments"):
        assert getattr(loaded, name) == getattr(model, name), name
    assert (loaded.spec.geometry, loaded.spec.state) == (model.spec.geometry, model.spec.state)
    found = loaded.state_dict()
    assert found.keys() == state_of(case).keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state_of(case).items())


def test_a_config_is_recognised_by_its_own_family_alone(case):
    families = map(registry.family, registry.families())
    claims = [family.name for family in families if family.recognises(case.config)]
    assert claims == [case.family.name]


def test_a_half_model_refuses_the_other_half_in_one_sentence(model):
    pixels, z = images(model), latents(model)
    refused = [] if model.can_encode else [(model.encode, pixels), (model.encode_posterior, pixels)]
    refused += [] if model.can_decode else [(model.decode, z), (model.decode_frames, z)]
    for method, argument in refused:
        with pytest.raises(WeightsError) as caught:
            method(argument)
        assert re.fullmatch(r"[^\n]+[^.\n]\.", str(caught.value))
        assert not re.search(r"\. [A-Z]", str(caught.value))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_frames_of_a_clip(model, count):
    if not model.can_decode:
        return
    z = latents(model, count)
    noise = noise_for(model, z)
    clip = model.decode_frames(z, noise=noise)
    alone = model.decode(z, noise=noise)
    assert (clip.shape, clip.dtype) == (alone.shape, torch.float32)
    if model.is_video and count > 1:
        assert worst(clip, alone) > FRAMES_APART
    else:
        assert worst(clip, alone) < BATCH_TOLERANCE


def test_class_token(model):
    z = latents(model, 3)
    if not model.predicts_class:
        with pytest.raises((NotImplementedError, WeightsError), match="no class"):
            model.predict_class(z)
        return
    token = model.predict_class(z)
    assert (token.ndim, len(token), token.dtype) == (2, 3, torch.float32)
    assert token.isfinite().all()
    singles = torch.cat([model.predict_class(one) for one in z.split(1)])
    assert psnr(singles, token) > BF16_DB


@pytest.mark.parametrize("name", preset_names())
def test_presets_say_what_they_build(name):
    preset = load_preset(name)
    preset_case = Case(name, registry.family(preset.family), preset.config)
    plain = on_meta(preset_case)
    assert plain.parameter_count() == preset.parameters
    # A preset may declare less than its network has: an encoder that was never trained.
    assert plain.can_encode >= preset.can_encode
    assert plain.can_decode >= preset.can_decode
    wanted = (preset.channels, preset.downscale, preset.state)
    assert (plain.spec.channels, plain.spec.downscale, plain.spec.state) == wanted
    assert preset.size_divisor % plain.spec.size_divisor == 0
    with torch.device("meta"):
        assert preset_case.family.build(preset.config, preset.spec).spec == preset.spec
    claims = [n for n in registry.families() if registry.family(n).recognises(preset.config)]
    assert set(claims) <= {preset.family}
