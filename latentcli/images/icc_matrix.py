"""Reads ICC profiles that are primaries and one curve as colour spaces told by numbers.

The colour engine takes 8 bits a channel. Pictures of 16 bits keep their dark tones this way.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np

from latentcli.images.colour_space import SRGB, ColourSpace, Floats

_D50 = (0.3457, 0.3585)
_STEPS = 4097
_CURVE_ENDS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
"""Form of a parametric curve -> count of its parameters."""


@lru_cache(maxsize=16)
def space_of_profile(profile: bytes) -> ColourSpace | None:
    """What a profile for grey or RGB says; None where it has tables, or a curve per channel."""
    try:
        tags = _tags(profile)
        if b"A2B0" in tags or b"A2B1" in tags:
            return None
        if profile[16:20] == b"GRAY":
            return ColourSpace("grey", SRGB.primaries, _curve(tags[b"kTRC"]))
        curves = {tags[b"rTRC"], tags[b"gTRC"], tags[b"bTRC"]}
        if profile[16:20] != b"RGB " or len(curves) > 1:
            return None
        corners = [c for name in (b"rXYZ", b"gXYZ", b"bXYZ") for c in _chromaticity(tags[name])]
        return ColourSpace("RGB", (*_D50, *corners), _curve(curves.pop()))
    except (KeyError, ValueError, struct.error):  # a broken profile is the engine's to report
        return None


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    table = profile[132 : 132 + 12 * count]
    rows = struct.iter_unpack(">4sII", table[: len(table) // 12 * 12])
    return {name: profile[start : start + size] for name, start, size in rows}


def _chromaticity(tag: bytes) -> tuple[float, float]:
    x, y, z = (v / 65536 for v in struct.unpack_from(">3i", tag, 8))
    if x + y + z <= 0:
        raise ValueError("no colour")
    return x / (x + y + z), y / (x + y + z)


def _curve(tag: bytes) -> float | tuple[float, ...]:
    """An exponent, or linear light at equal steps of the stored value."""
    if tag[:4] == b"para":
        return _parametric(tag)
    (count,) = struct.unpack_from(">I", tag, 8)
    values = struct.unpack_from(f">{count}H", tag, 12)
    if count < 2:
        return float(values[0]) / 256 if values else 1.0
    return tuple(v / 65535 for v in values)


def _parametric(tag: bytes) -> float | tuple[float, ...]:
    """ICC.1:2022, 10.18: (a x + b) ** g + c from d on, and e x + f below it."""
    (form,) = struct.unpack_from(">H", tag, 8)
    stated = [v / 65536 for v in struct.unpack_from(f">{_CURVE_ENDS[form]}i", tag, 12)]
    if form == 0:
        return float(stated[0])
    g, a, b = stated[:3]
    if a == 0:
        raise ValueError("no curve")
    e, d, c, f = {
        1: (0.0, -b / a, 0.0, 0.0),
        2: (0.0, -b / a, *stated[3:4] * 2),
        3: (*stated[3:5], 0.0, 0.0),
        4: (*stated[3:5], *stated[5:7]),
    }[form]
    x = np.linspace(0, 1, _STEPS)
    linear: Floats = np.where(x >= d, np.maximum(a * x + b, 0) ** g + c, e * x + f)
    return tuple(linear.tolist())
