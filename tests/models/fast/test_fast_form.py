"""The fast form against the plain model, on the toy models of every family."""

from __future__ import annotations

import pytest
import torch
from contractkit import Case, cases, images, latents, model_of, noise_for, normal, psnr, worst

from latentcli.models.fast.form import FORMS, fast_form
from latentcli.models.vp_diffusion import InferenceConfig

CASES = cases()
FAST = [case for case in CASES if case.family.name in ("fcdm", "dinac")]
GRIDS = [(1, 1), (2, 3), (3, 2), (4, 1)]
"""Height and width in units of the size divisor; two of them have the same number of tokens."""
TOLERANCE = 2e-5
"""Largest difference in float32, in units of the output's std. Measured: 6e-6."""
BF16_DB = 45.0
"""Least PSNR of the fast form in bfloat16 against the plain model in float32, in dB."""


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@pytest.fixture(params=FAST, ids=lambda case: case.name)
def case(request) -> Case:
    return request.param


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_float32_gives_what_the_plain_model_gives(case, grid, count):
    plain = model_of(case)
    fast = fast_form(plain)
    z = latents(plain, count, grid)
    noise = noise_for(plain, z)
    if plain.can_encode:
        pixels = images(plain, count, grid)
        assert worst(fast.encode(pixels), plain.encode(pixels)) < TOLERANCE
    assert worst(fast.decode(z, noise=noise), plain.decode(z, noise=noise)) < TOLERANCE


def test_bfloat16_stays_close_to_the_plain_model_in_float32(case):
    plain, fast = model_of(case), fast_form(model_of(case, torch.bfloat16))
    assert fast.dtype == torch.bfloat16
    z = latents(plain, 2)
    noise = noise_for(plain, z)
    if plain.can_encode:
        pixels = images(plain, 2)
        assert psnr(fast.encode(pixels), plain.encode(pixels)) > BF16_DB
    assert psnr(fast.decode(z, noise=noise), plain.decode(z, noise=noise)) > BF16_DB


def test_guidance_and_steps(case):
    plain = model_of(case)
    z = latents(plain, 2)
    noise = noise_for(plain, z)
    config = InferenceConfig(num_steps=3, pdg=True)
    want = plain.decode(z, inference_config=config, noise=noise)
    assert worst(fast_form(plain).decode(z, inference_config=config, noise=noise), want) < TOLERANCE


def test_every_picture_may_have_a_time_of_its_own(case):
    plain = model_of(case)
    z = latents(plain, 3)
    x_t, t = noise_for(plain, z), torch.tensor([0.1, 0.5, 1.0])
    want = plain.decoder(x_t, t, z)
    assert worst(fast_form(plain).decoder(x_t, t, z), want) < TOLERANCE
    assert worst(plain.decoder(x_t, t.flip(0), z), want) > 100 * TOLERANCE


def test_the_plain_model_is_left_as_it_was(case):
    plain = model_of(case)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    fast = fast_form(plain)
    fast.decode(latents(plain))
    after = plain.state_dict()
    assert after.keys() == before.keys() and type(fast) is type(plain)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {type(part) for part in plain.children()}.isdisjoint(map(type, replaced(fast)))
    assert (fast.spec, fast.device) == (plain.spec, plain.device)


def replaced(fast):
    """The parts of a fast model that are not of the plain kinds."""
    found = [part for name, part in fast.named_children() if name in ("encoder", "decoder")]
    assert found and not {type(part) for part in found} & FORMS.keys()
    return found


def test_changed_weights_change_the_tensors(case):
    """Models are told apart by their tensors, so each weight must be in them."""
    model = model_of(case)
    own = {name: tensor.clone() for name, tensor in fast_form(model).state_dict().items()}
    for name, tensor in model.state_dict().items():
        before = tensor.clone()
        tensor.copy_(normal(*tensor.shape))
        other = {key: value.clone() for key, value in fast_form(model).state_dict().items()}
        tensor.copy_(before)
        assert any(not torch.equal(own[key], other[key]) for key in own), name


@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in FAST], ids=lambda case: case.name
)
def test_a_family_without_a_fast_form_stays_itself(case):
    model = model_of(case)
    assert fast_form(model) is model
