"""Colours told by numbers become sRGB by published matrices and curves."""

from __future__ import annotations

import numpy as np
import pytest
from harness.colours import (
    ADOBE_TO_SRGB,
    BT2020_TO_SRGB,
    P3_TO_SRGB,
    PROPHOTO_TO_SRGB,
    SRGB_TO_SRGB,
    in_srgb,
    srgb_linear,
)
from harness.picture_files import scene

from latentcli.core.errors import SampleError
from latentcli.images.colour_space import (
    ADOBE_RGB,
    CURVES,
    HDR,
    PRIMARIES,
    PROPHOTO,
    SRGB,
    TRANSFERS,
    ColourSpace,
    changes_nothing,
    convert,
    from_chromaticities,
    from_cicp,
)

SPACES = [
    (from_cicp(12, 13), P3_TO_SRGB, srgb_linear),
    (from_cicp(9, 13), BT2020_TO_SRGB, srgb_linear),
    (from_cicp(1, 8), SRGB_TO_SRGB, lambda v: v),
    (from_cicp(1, 4), SRGB_TO_SRGB, lambda v: v**2.2),
    (from_cicp(1, 5), SRGB_TO_SRGB, lambda v: v**2.8),
    (ADOBE_RGB, ADOBE_TO_SRGB, lambda v: v ** (563 / 256)),
    (PROPHOTO, PROPHOTO_TO_SRGB, lambda v: np.where(v < 16 / 512, v / 16, v**1.8)),
]


@pytest.mark.parametrize(("space", "matrix", "curve"), SPACES, ids=lambda s: getattr(s, "name", ""))
@pytest.mark.parametrize("bits", [8, 16])
def test_colours(space: ColourSpace, matrix: np.ndarray, curve, bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (200, 300, 3))
    stored = values.astype(np.uint8 if bits == 8 else np.uint16)
    expected = in_srgb(curve(values / (2**bits - 1)), matrix)
    assert np.abs(convert(stored, space) - expected).max() < 1


@pytest.mark.parametrize("code", [code for code in TRANSFERS if code != 17])
@pytest.mark.parametrize("primaries", PRIMARIES)
def test_grey_stays_grey_and_white_white(primaries: int, code: int) -> None:
    space = from_cicp(primaries, code)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = convert(np.stack([grey] * 3, axis=-1), space).astype(int)
    alone = convert(grey, space).astype(int)
    assert np.abs(result - alone[..., None]).max() <= 1
    assert (np.diff(alone.ravel()) >= 0).all()
    assert (alone[0, 0], alone[-1, -1]) == (0, 255)


def test_what_is_srgb_changes_nothing() -> None:
    assert changes_nothing(SRGB)
    assert changes_nothing(from_cicp(2, 2))
    assert changes_nothing(from_cicp(1, 1))
    assert not any(changes_nothing(space) for space, *_ in SPACES)
    assert np.array_equal(convert(scene(), SRGB), scene())
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.abs(convert(wide, SRGB) - wide * (255 / 65535)).max() < 0.55


@pytest.mark.parametrize("curve", [curve for curve in CURVES if curve != "SMPTE 428"])
def test_curves_go_from_black_to_white(curve: str) -> None:
    light = CURVES[curve](np.linspace(0, 1, 1001))
    assert light[0] == pytest.approx(0, abs=1e-9)
    assert light[-1] == pytest.approx(1, abs=1e-3)
    assert (np.diff(light) >= -1e-3).all()


@pytest.mark.parametrize("transfer", HDR)
def test_hdr_and_reserved_codes_are_refused(transfer: int) -> None:
    with pytest.raises(SampleError, match="HDR"):
        from_cicp(9, transfer)
    with pytest.raises(SampleError, match="codes 3 and 13"):
        from_cicp(3, 13)


def test_primaries_on_a_line_are_none() -> None:
    line = (0.3127, 0.3290, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3)
    assert from_chromaticities(line, "sRGB") is None
    assert from_chromaticities(SRGB.primaries, "sRGB") == ColourSpace(
        "colours of BT.709", SRGB.primaries, "sRGB"
    )
