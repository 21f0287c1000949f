"""Converts pictures whose file tells their colours by numbers: primaries and a tone curve.

The numbers are those of ITU-T H.273 (CICP), which PNG, AVIF, HEIF and JPEG 2000 all carry, or
chromaticities and a gamma. A curve here goes from the stored value to linear light, both 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from latentcli.core.errors import SampleError

Floats = npt.NDArray[np.floating[Any]]
Curve = Callable[[Floats], Floats]

_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_STRIP = 1 << 17
"""Values that are converted at once: more would leave the processor's cache."""


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """What the values of a picture mean."""

    name: str
    """As a note begins with it."""
    primaries: tuple[float, ...]
    """x and y of white, red, green and blue."""
    curve: str | float | tuple[float, ...]
    """A key of CURVES, the exponent that gives linear light, or that light at equal steps."""
    narrow: bool = False
    """Whether black is at 16 and white at 235 of 255, as in video."""


Colours = bytes | ColourSpace | None
"""What a file says of its colours: a profile, numbers, or nothing, which means sRGB."""


def _power(low: float, slope: float, scale: float, exponent: float) -> Curve:
    """Linear by `slope` up to `low`, then ((v + scale - 1) / scale) ** exponent."""

    def linear(v: Floats) -> Floats:
        return np.where(v <= low, v / slope, ((v + scale - 1) / scale) ** exponent)

    return linear


CURVES: dict[str, Curve] = {
    "sRGB": _power(0.04045, 12.92, 1.055, 2.4),
    "BT.709": _power(0.04045, 12.92, 1.055, 2.4),
    "SMPTE 240M": _power(0.0913, 4.0, 1.1115, 1 / 0.45),
    "linear light": lambda v: v,
    "a log of 100:1": lambda v: np.where(v > 0, 10 ** (2 * (v - 1)), 0),
    "a log of 316:1": lambda v: np.where(v > 0, 10 ** (2.5 * (v - 1)), 0),
    "SMPTE 428": lambda v: v**2.6 * (52.37 / 48),
    "ProPhoto": _power(16 / 512, 16.0, 1.0, 1.8),
}
"""Curves that are no plain exponent.

Pictures and videos of BT.709 are graded on screens, which show them as they show sRGB; the curve
of a camera that the standard prints would make them brighter. So BT.709's is sRGB's here.
"""

_BT709 = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
PRIMARIES: dict[int, tuple[str, tuple[float, ...]]] = {
    1: ("BT.709", _BT709),
    2: ("BT.709", _BT709),
    4: ("BT.470 M", (*_C, 0.670, 0.330, 0.210, 0.710, 0.140, 0.080)),
    5: ("BT.601 of 625 lines", (*_D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060)),
    6: ("BT.601 of 525 lines", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    7: ("SMPTE 240M", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    8: ("film", (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049)),
    9: ("BT.2020", (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    10: ("XYZ", (1 / 3, 1 / 3, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)),
    11: ("DCI-P3", (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: ("Display P3", (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    22: ("EBU 3213", (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077)),
}
"""Code -> name and primaries. What is unspecified, 2, is read as a web picture is: sRGB."""

# fmt: off
TRANSFERS: dict[int, str | float] = {
    1: "BT.709", 6: "BT.709", 11: "BT.709", 12: "BT.709", 14: "BT.709", 15: "BT.709",
    2: "sRGB", 13: "sRGB", 4: 2.2, 5: 2.8, 7: "SMPTE 240M", 8: "linear light",
    9: "a log of 100:1", 10: "a log of 316:1", 17: "SMPTE 428",
}
# fmt: on
"""Code -> curve. HDR is not among them."""

HDR = {16: "PQ", 18: "HLG"}
"""Code -> name of the curves of high dynamic range."""

ADOBE_RGB = ColourSpace(
    "colours of Adobe RGB", (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 563 / 256
)
PROPHOTO = ColourSpace(
    "colours of ProPhoto",
    (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001),
    "ProPhoto",
)
SRGB = ColourSpace("sRGB", _BT709, "sRGB")


def from_cicp(primaries: int, transfer: int, full_range: bool = True) -> ColourSpace:
    """The colour space of two codes; SampleError for HDR (PQ, HLG) and for reserved codes.

    How bright and how saturated HDR should be on a display for sRGB is a choice of taste that no
    file states, so it is refused rather than guessed.
    """
    if transfer in HDR:
        raise SampleError(
            "decode_image",
            f"its colours are {HDR[transfer]} (HDR), and there is no single correct conversion to"
            " sRGB; convert it to sRGB with a tool of your choice",
        )
    if primaries not in PRIMARIES or transfer not in TRANSFERS:
        raise SampleError(
            "decode_image",
            f"its colours have the H.273 codes {primaries} and {transfer}, and at least one of"
            " them is not defined; convert it to sRGB",
        )
    name, corners = PRIMARIES[primaries]
    return ColourSpace(
        _named(name, TRANSFERS[transfer]), corners, TRANSFERS[transfer], not full_range
    )


def from_chromaticities(corners: tuple[float, ...], curve: str | float) -> ColourSpace | None:
    """The colour space of x and y of white, red, green and blue; None where they span nothing."""
    triangle = np.array(corners[2:]).reshape(3, 2)
    area = abs(np.linalg.det(np.column_stack([triangle, np.ones(3)])))
    if len(corners) != 8 or area < 1e-3 or not 0 < corners[1] <= 1:
        return None
    name = next(
        (n for n, known in PRIMARIES.values() if np.allclose(known, corners, atol=2e-3)), ""
    )
    return ColourSpace(_named(name or "its own primaries", curve), corners, curve)


def _named(primaries: str, curve: str | float) -> str:
    if curve == "sRGB":
        return f"colours of {primaries}"
    return (
        f"colours of {primaries} with {f'gamma {curve:.3g}' if isinstance(curve, float) else curve}"
    )


@lru_cache(maxsize=64)
def changes_nothing(space: ColourSpace) -> bool:
    """Whether no colour of a grid moves by more than one level: most spaces are just sRGB."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * 3), axis=-1).reshape(1, -1, 3)
    return bool((np.abs(convert(grid, space).astype(int) - grid) <= 1).all())


def convert(values: npt.NDArray[Any], space: ColourSpace) -> npt.NDArray[np.uint8]:
    """uint8 or uint16 [H, W] grey or [H, W, 3] of a space to uint8 sRGB of the same shape.

    Relative to white, which is adapted to D65 by Bradford's method; what sRGB cannot show is
    clipped channel by channel. Grey stays grey: only the curve applies.
    """
    top = np.iinfo(values.dtype).max
    to_linear, matrix = _tables(space, int(top))
    result = np.empty(values.shape, np.uint8)
    if values.ndim == 2:
        return _coded()[_steps(to_linear)].take(values, out=result)
    flat, out = values.reshape(-1, 3), result.reshape(-1, 3)
    for start in range(0, len(flat), _STRIP // 3):
        part = slice(start, start + _STRIP // 3)
        out[part] = _coded().take(_steps(to_linear.take(flat[part]) @ matrix))
    return result


def _steps(linear: Floats) -> npt.NDArray[np.uint16]:
    return (linear.clip(0, 1) * 65535 + 0.5).astype(np.uint16)


@lru_cache(maxsize=16)
def _tables(space: ColourSpace, top: int) -> tuple[Floats, Floats]:
    """Linear light of every stored value, and the matrix that rows of it are multiplied by."""
    values = np.arange(top + 1) / top
    if space.narrow:
        # Black and white keep their places in 8 bits and are shifted where there are more.
        unit = (top + 1) // 256
        values = ((np.arange(top + 1) - 16 * unit) / (219 * unit)).clip(0, 1)
    linear = _light(space.curve, values)
    matrix = np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(space.primaries)
    return linear.astype(np.float32), matrix.T.astype(np.float32)


def _light(curve: str | float | tuple[float, ...], values: Floats) -> Floats:
    if isinstance(curve, tuple):
        return np.interp(values, np.linspace(0, 1, len(curve)), curve)
    return CURVES[curve](values) if isinstance(curve, str) else values**curve


@lru_cache(maxsize=1)
def _coded() -> npt.NDArray[np.uint8]:
    """The sRGB level of linear light in 65,536 steps."""
    v = np.arange(65536) / 65535
    coded = np.where(v <= 0.0031308, v * 12.92, 1.055 * v ** (1 / 2.4) - 0.055)
    return np.floor(coded * 255 + 0.5).astype(np.uint8)


def _to_xyz(corners: tuple[float, ...]) -> Floats:
    """Linear RGB to XYZ under D65."""
    x, y = np.array(corners).reshape(4, 2).T
    columns = np.stack([x, y, 1 - x - y])
    white = columns[:, 0] / columns[1, 0]
    matrix = columns[:, 1:] * np.linalg.solve(columns[:, 1:], white)
    target = np.array([_D65[0], _D65[1], 1 - sum(_D65)]) / _D65[1]
    gains = (_BRADFORD @ target) / (_BRADFORD @ white)
    return np.linalg.solve(_BRADFORD, gains[:, None] * (_BRADFORD @ matrix))
