"""Reads HEIF files, which phones and cameras write as HEIC, with pillow-heif."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.colour_space import Colours, from_cicp
from latentcli.images.files.extras import load_extra
from latentcli.images.files.stored import Loaded, Pixels, Stored, damage
from latentcli.images.wide import Wide, straight_alpha


def read_heif(data: bytes) -> Stored:
    """A HEIF file, of which the primary picture is taken.

    The decoder turns it upright as its boxes say; what EXIF says besides is for other readers.
    """
    module = load_extra("heif", "HEIC")
    module.options.DECODE_THREADS = 1  # a job has a process per core already
    try:
        file = module.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        picture = file[file.primary_index]
        size = picture.size
    except Exception as error:  # a damaged file makes it raise several kinds
        raise SampleError("decode_image", damage("HEIC", error)) from error

    def load(notes: list[str]) -> Loaded:
        colours: Colours = picture.info.get("icc_profile")
        nclx = picture.info.get("nclx_profile")
        if not colours and nclx:
            colours = from_cicp(nclx["color_primaries"], nclx["transfer_characteristics"])
        if len(file) > 1:
            notes.append("primary of several pictures")
        return Loaded(_pixels(picture), colours)

    return Stored("HEIC", size, load)


def _pixels(picture: Any) -> Pixels:
    """A grey or colour picture, with alpha or without, of 8 to 16 bits."""
    values = np.asarray(picture)
    if values.dtype == np.uint8:
        if picture.premultiplied_alpha:
            values = straight_alpha(values)
        return Image.fromarray(values)
    top = (1 << picture.info["bit_depth"]) - 1
    wide = ((values.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    return Wide(straight_alpha(wide) if picture.premultiplied_alpha else wide)
