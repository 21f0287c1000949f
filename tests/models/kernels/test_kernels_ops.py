"""The networks in fused kernels, for which the reference stands in here, against the plain ones."""

from __future__ import annotations

import pytest
import torch
from contractkit import Case, cases, images, latents, model_of, noise_for, psnr, worst
from kernelkit import ODD

from latentcli.models.fast import dinac, fcdm
from latentcli.models.fast.form import fast_form
from latentcli.models.fast.products import traceable
from latentcli.models.kernels import ops

FAST = [case for case in cases() if case.family.name in ("fcdm", "dinac")]
TOLERANCE = 2e-5
"""Largest difference in float32, in units of the output's std. Measured: 4e-6."""
BF16_DB = 45.0


@pytest.fixture(autouse=True)
def fused(monkeypatch: pytest.MonkeyPatch):
    for module in (fcdm, dinac):
        monkeypatch.setattr(module, "serves", lambda x: True)
    with torch.inference_mode():
        yield


@pytest.fixture(params=FAST, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_fused_networks_give_what_the_plain_ones_give(case: Case) -> None:
    plain = model_of(case)
    halves = fast_form(model_of(case, torch.bfloat16))
    traceable(halves)  # kernels read weights as a GPU has them
    fast, z = fast_form(plain), latents(plain, 3, (2, 3))
    noise = noise_for(plain, z)
    want = plain.decode(z, noise=noise)
    assert worst(fast.decode(z, noise=noise), want) < TOLERANCE
    assert psnr(halves.decode(z, noise=noise), want) > BF16_DB
    if plain.can_encode:
        pixels = images(plain, 3, (2, 3))
        want = plain.encode(pixels)
        assert worst(fast.encode(pixels), want) < TOLERANCE
        assert psnr(halves.encode(pixels), want) > BF16_DB


def test_every_picture_may_have_a_time_of_its_own(case: Case) -> None:
    plain = model_of(case)
    z = latents(plain, 3)
    x_t, t = noise_for(plain, z), torch.tensor([0.1, 0.5, 1.0])
    assert worst(fast_form(plain).decoder(x_t, t, z), plain.decoder(x_t, t, z)) < TOLERANCE


@pytest.mark.parametrize("case", ODD)
def test_the_compiler_is_told_the_right_shapes(case: str) -> None:
    name, given = ODD[case]
    arguments = given()
    call = getattr(ops.operators, name)
    real = call(*arguments)
    told = call(
        *(each.to("meta") if isinstance(each, torch.Tensor) else each for each in arguments)
    )
    pairs = zip(*((x if isinstance(x, list) else [x]) for x in (real, told)), strict=True)
    for got, shape in pairs:
        assert (got.shape, got.dtype, got.stride()) == (shape.shape, shape.dtype, shape.stride())


def test_a_float32_network_and_a_cpu_are_not_served() -> None:
    assert not ops.serves(torch.zeros(1, dtype=torch.bfloat16))
    assert ("cuda", torch.float32) not in ops.SERVED


def test_a_kernel_that_does_not_compile_is_told_of_once(monkeypatch, caplog) -> None:
    def failing(*given: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(ops, "operators", type("Failing", (), {"token_norm": failing}))
    ops.works.cache_clear()
    try:
        assert not ops.works(torch.device("cpu")) and not ops.works(torch.device("cpu"))
    finally:
        ops.works.cache_clear()
    assert [record.message for record in caplog.records] == [
        "The fused kernels do not work on cpu, it is slower: Failed to find C compiler"
    ]
