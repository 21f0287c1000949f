"""The sRGB curve, and published matrices from other linear primaries to those of sRGB."""

from __future__ import annotations

import numpy as np

SRGB_TO_SRGB = np.eye(3)
P3_TO_SRGB = np.array(
    [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]]
)
BT2020_TO_SRGB = np.array(
    [
        [1.660491, -0.587641, -0.072850],
        [-0.124550, 1.132900, -0.008349],
        [-0.018151, -0.100579, 1.118730],
    ]
)
ADOBE_TO_SRGB = np.array([[1.398358, -0.398358, 0.0], [0.0, 1.0, 0.0], [0.0, -0.042930, 1.042930]])
PROPHOTO_TO_SRGB = np.array(
    [
        [2.034367, -0.727635, -0.306732],
        [-0.228827, 1.231753, -0.002926],
        [-0.008558, -0.153294, 1.161852],
    ]
)


def srgb_curve(linear: np.ndarray) -> np.ndarray:
    """Linear light to coded values, both 0 to 1."""
    low, high = linear * 12.92, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, low, high)


def srgb_linear(coded: np.ndarray) -> np.ndarray:
    """Coded values to linear light."""
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def in_srgb(linear: np.ndarray, matrix: np.ndarray = SRGB_TO_SRGB) -> np.ndarray:
    """8-bit levels, not rounded, of linear light [..., 3] under other primaries."""
    return 255 * srgb_curve((linear @ matrix.T).clip(0, 1))
