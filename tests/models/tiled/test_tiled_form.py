"""Networks in parts against the same networks whole: equal up to rounding, and below the limit."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from contractkit import Case, cases, images, latents, model_of, noise_for, worst
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from latentcli.jobs.inference.memory import peak_bytes
from latentcli.models.base import Autoencoder
from latentcli.models.fast.form import fast_form
from latentcli.models.tiled.fcdm import Stripped
from latentcli.models.tiled.form import form_of, tiled_form
from latentcli.models.tiled.room import AboveLimit, Room, spans
from latentcli.models.tiled.windows import Run, halo, window_of
from latentcli.models.tiny_network import tiny_decoder, tiny_encoder
from latentcli.models.vp_diffusion import InferenceConfig

CASES = {case.name: case for case in cases() if case.family.name not in ("kl", "tiny_temporal")}
TOLERANCE = 2e-5
"""Largest difference in float32, in units of the output's std. Measured: 3e-6."""
AMPLE = 10**12
SIDES = st.integers(1, 9)


@cache
def whole(name: str) -> Autoencoder:
    return fast_form(model_of(CASES[name]))


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def in_parts(model: Autoencoder, rows: int, tile: int) -> Autoencoder:
    """The model that computes every picture in strips of `rows`, or tiles of `tile` cells."""
    tiled, _ = tiled_form(model, AMPLE, peak_bytes)
    never = Room(AMPLE, AMPLE, 0)
    for module in tiled.modules():
        if isinstance(module, Stripped):
            module.room = never
            module.strips = lambda h, w, m=module: spans(h // m.patch, -(-h // m.patch // rows))
        elif hasattr(module, "runs"):
            module.room = never
        elif isinstance(module, Run) and module.window is not None:
            module.work, module.result = 2 * AMPLE, 0
            module._tiles = lambda window, cells, left: [spans(n, -(-n // tile)) for n in cells]
    return tiled


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.family.name != "linear"])
@settings(max_examples=2, derandomize=True)
@given(cells=st.tuples(SIDES, SIDES), rows=st.integers(1, 4), tile=st.integers(1, 5))
def test_parts_give_what_the_whole_gives(name, cells, rows, tile):
    with torch.inference_mode():
        model = whole(name)
        tiled = in_parts(model, rows, tile)
        if model.can_encode:
            pixels = images(model, 2, cells)
            assert worst(tiled.encode(pixels), model.encode(pixels)) < TOLERANCE
        if model.can_decode:
            z = latents(model, 1, cells)
            noise = noise_for(model, z)
            for config in (InferenceConfig(), InferenceConfig(2, "dpmpp_2m", pdg=True)):
                want = model.decode(z, inference_config=config, noise=noise)
                got = tiled.decode(z, inference_config=config, noise=noise)
                assert worst(got, want) < TOLERANCE


def network(name: str) -> tuple[nn.Sequential, int]:
    """(Layers of which none sees the whole picture, channels in)."""
    build = {"encoder": tiny_encoder, "decoder": tiny_decoder}[name]
    torch.manual_seed(0)
    return build(4, 8, (1, 2, 1), pool=False).get_submodule("layers"), 3 if name == "encoder" else 4


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_the_halo_is_what_the_layers_look_into_and_no_less(name):
    """The whole is disturbed outside the halo: nothing changes; on its rim: something does."""
    layers, channels = network(name)
    window = window_of(layers)
    assert window is not None
    length, cells = 40 * window.down, (19, 21)
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(1, channels, length, 2 * window.down, generator=draw, dtype=torch.float64)
    layers = layers.double()
    first, stop = window.needs((cells[0] * window.up, cells[1] * window.up))
    assert 0 < first < stop < length

    def rows(x: Tensor) -> Tensor:
        return layers(x)[:, :, cells[0] * window.up : cells[1] * window.up]

    outside = x.clone()
    outside[:, :, :first] += 1
    outside[:, :, stop:] += 1
    assert torch.equal(rows(outside), rows(x))
    for row in (first, stop - 1):
        rim = x.clone()
        rim[:, :, row] += 100
        assert not torch.equal(rows(rim), rows(x))
    low, high = halo(window, cells, length)
    assert low <= first and high >= stop and low % window.down == 0 == high % window.down


@pytest.mark.parametrize(("name", "half"), [("tiny", "encode"), ("tiny", "decode")])
def test_the_peak_stays_below_the_limit(name, half):
    model = whole(name)
    cells = (512 // model.spec.size_divisor,) * 2
    z, pixels = latents(model, 1, cells), images(model, 1, cells)
    _, rooms = tiled_form(model, AMPLE, peak_bytes)
    limit = int(rooms[half].whole * 512 * 512 * 0.6)
    tiled, _ = tiled_form(model, limit, peak_bytes)
    call = {"encode": lambda m: m.encode(pixels), "decode": lambda m: m.decode(z)}[half]
    got, peak = peak_bytes(lambda: call(tiled))
    want, before = peak_bytes(lambda: call(model))
    assert peak <= limit < before
    assert worst(got, want) < TOLERANCE


@pytest.mark.parametrize(("half", "share"), [("encode", 0.5), ("decode", 0.6)])
def test_a_wide_network_of_blocks_stays_below_the_limit(half, share):
    config = {**CASES["fcdm"].config, "model_dim": 256, "patch_size": 8}
    model = fast_form(model_of(Case("wide", CASES["fcdm"].family, config)))
    pixels, z = images(model, 1, (32, 24)), latents(model, 1, (32, 24))
    noise = noise_for(model, z)
    _, rooms = tiled_form(model, AMPLE, peak_bytes)
    limit = int(rooms[half].whole * pixels.shape[-2] * pixels.shape[-1] * share)
    tiled, _ = tiled_form(model, limit, peak_bytes)
    call = {"encode": lambda m: m.encode(pixels), "decode": lambda m: m.decode(z, noise=noise)}
    got, peak = peak_bytes(lambda: call[half](tiled))
    want, before = peak_bytes(lambda: call[half](model))
    assert peak <= limit < before
    assert worst(got, want) < TOLERANCE


def test_what_does_not_fit_in_the_smallest_part_is_refused():
    model = whole("tiny")
    tiled, rooms = tiled_form(model, 10**6, peak_bytes)
    pixels = images(model, 1, (64, 64))
    assert rooms["encode"].pictures(*pixels.shape[-2:]) == 0
    with pytest.raises(AboveLimit, match="smallest part"):
        tiled.encode(pixels)


def test_a_network_that_sees_everything_says_why():
    model = whole("dinac")
    assert form_of(model, "encode") is None and form_of(model, "decode") is not None
    _, rooms = tiled_form(model, AMPLE, peak_bytes)
    assert rooms["encode"].obstacle == "in its encoder every patch sees every other"
    assert rooms["decode"].obstacle is None


@given(length=st.integers(1, 200), parts=st.integers(1, 200))
def test_spans_cover_a_length_once(length, parts):
    found = spans(length, min(parts, length))
    assert [i for start, stop in found for i in range(start, stop)] == list(range(length))
    assert len({stop - start for start, stop in found}) <= 2
