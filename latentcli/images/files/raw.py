"""Develops camera RAW files with rawpy (LibRaw)."""

from __future__ import annotations

import io

from latentcli.core.errors import SampleError
from latentcli.images.files.extras import load_extra
from latentcli.images.files.raw_extent import points_behind_its_end
from latentcli.images.files.stored import Loaded, Stored, damage
from latentcli.images.tiff_head import first_directory
from latentcli.images.wide import Wide

_DNG_VERSION = 50706
_SRGB_CURVE = (2.4, 12.92)
"""Exponent and slope at black, as dcraw takes them."""


def read_raw(data: bytes) -> Stored:
    """A camera's file: with its white balance, in sRGB, upright, brightened as dcraw does.

    That is until 1% of the pixels are white. The camera's own picture of it is not looked at.
    """
    module = load_extra("raw", "camera RAW")
    is_cut = points_behind_its_end(data)
    if is_cut and _DNG_VERSION in first_directory(data):
        raise SampleError("decode_image", "camera RAW file is cut short (data are missing)")
    try:
        raw = module.imread(io.BytesIO(data))
        size = (raw.sizes.iwidth, raw.sizes.iheight)
    except Exception as error:  # LibRaw's errors have no base in common with each other
        raise SampleError("decode_image", damage("camera RAW", error)) from error

    def load(notes: list[str]) -> Loaded:
        with raw:
            values = raw.postprocess(use_camera_wb=True, output_bps=16, gamma=_SRGB_CURVE)
        if is_cut:  # some cameras state sizes that are not true
            notes.append("camera RAW file may be cut short: it names data that are not there")
        return Loaded(Wide(values, "developed from camera RAW"))

    return Stored("camera RAW", size, load)
