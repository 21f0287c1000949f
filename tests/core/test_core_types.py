"""The nouns check themselves."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.core.types import STATES, InputRow, LatentSpec, Row

SPEC = LatentSpec(channels=128, downscale=16, size_divisor=32, space="flux2")


def test_codes():
    assert SPEC.geometry == "f16c128"
    assert [SPEC.space_id(state) for state in STATES] == [
        "flux2#whitened",
        "flux2#scaled",
        "flux2#raw",
        "flux2#moments",
    ]
    with pytest.raises(ValueError, match="whitened, scaled, raw, moments"):
        SPEC.space_id("normal")


def test_a_models_own_latents_are_whitened_or_scaled():
    assert SPEC.state == "whitened"
    assert LatentSpec(4, 8, 8, "sdxl", "scaled").state == "scaled"
    with pytest.raises(ValueError, match="'raw', allowed are whitened and scaled"):
        LatentSpec(4, 8, 8, "sdxl", "raw")


def test_a_divisor_that_cuts_cells_is_refused():
    with pytest.raises(ValueError, match="not a multiple"):
        LatentSpec(4, 16, 24, "x")


@given(st.integers(1, 50), st.integers(1, 50))
def test_latent_size(rows, columns):
    assert SPEC.latent_size(32 * rows, 32 * columns) == (2 * rows, 2 * columns)


@given(st.integers(-100, 2000), st.integers(-100, 2000))
def test_the_size_rule(height, width):
    if height > 0 and width > 0 and height % 32 == 0 and width % 32 == 0:
        assert SPEC.latent_size(height, width) == (height // 16, width // 16)
    else:
        with pytest.raises(ValueError, match=f"{width}x{height}.*multiples of 32"):
            SPEC.latent_size(height, width)


def test_nouns_are_frozen():
    for noun, name in ((SPEC, "channels"), (Row("k", "/s", "ok"), "status")):
        with pytest.raises(FrozenInstanceError):
            setattr(noun, name, None)
    assert (InputRow("k", "/s", 0).size, InputRow("k", "/s", 0).mtime_ns) == (-1, -1)


def test_the_image_of_a_latent():
    assert SPEC.image_size((2, 128, 4, 6)) == (64, 96)
    assert SPEC.image_size((2, 128, 4, 6), 64, 96) == (64, 96)
    for shape, size in [
        ((2, 127, 4, 6), (64, 96)),
        ((2, 128, 4, 6), (96, 64)),
        ((128, 4, 6), (64, 96)),
        ((2, 1, 128, 4, 6), (64, 96)),
    ]:
        with pytest.raises(ValueError, match=r"for \d+x\d+ images they must be \[N, 128, "):
            SPEC.image_size(shape, *size)
    with pytest.raises(ValueError, match="multiples of 32"):
        SPEC.image_size((2, 128, 3, 6))
