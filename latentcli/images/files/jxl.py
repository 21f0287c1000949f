"""Reads JPEG XL files with pillow-jxl-plugin."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.colour import is_linear
from latentcli.images.files.extras import load_extra
from latentcli.images.files.jpeg import read_jpeg
from latentcli.images.files.jxl_header import read_header
from latentcli.images.files.stored import Loaded, Pixels, Stored, damage
from latentcli.images.wide import as_wide

_DEPTHS = {1: np.uint8, 2: np.uint16, 4: np.float32}
"""Bytes of a value -> its type."""


def read_jxl(data: bytes) -> Stored:
    """A JPEG XL file; one that holds a JPEG file gives the pixels of that.

    SampleError for one that moves, of which the decoder would give the last frame.
    """
    module = load_extra("jxl", "JPEG XL")
    try:
        header = read_header(data)
    except ValueError as error:
        raise SampleError("decode_image", damage("JPEG XL", error)) from error
    if header.is_animated:
        raise SampleError(
            "decode_image",
            "JPEG XL file is animated, and its first frame cannot be read alone; save that frame"
            " as a picture",
        )

    def load(notes: list[str]) -> Loaded:
        holds_jpeg, info, stored, profile, *_ = _decode(module, data)
        if holds_jpeg:
            return read_jpeg(bytes(stored)).load(notes)
        pixels, profile = _pixels(info, stored), bytes(profile)
        if isinstance(pixels, Image.Image) and profile and is_linear(profile):
            raise SampleError(
                "decode_image",
                "JPEG XL file holds linear light, which its decoder gives in 8 bits: too coarse for"
                " dark tones. Convert it to sRGB",
            )
        return Loaded(pixels, profile or None)  # upright already, as the standard asks of decoders

    return Stored("JPEG XL", header.size, load)


def _decode(module: ModuleType, data: bytes) -> Any:
    """Whether it is a JPEG file, what is known, the bytes, and the profile of the pixels."""
    try:
        return module.Decoder(num_threads=0)(data)  # a job has a process per core already
    except BaseException as error:
        # A panic of the decoder is no Exception, and would end the process.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = "JPEG XL file is cut short, damaged or of an unsupported kind"
        raise SampleError("decode_image", reason) from error


def _pixels(info: Any, stored: bytes) -> Pixels:
    """Colours come in 8 bits, and grey in as many as the file has."""
    count = info.num_channels + info.has_alpha_channel
    shape = (info.height, info.width, count)
    depth = _DEPTHS[len(stored) // (shape[0] * shape[1] * count)]
    values = np.frombuffer(stored, depth).reshape(shape)
    if count == 1:
        values = values[..., 0]
    return Image.fromarray(values) if depth is np.uint8 else as_wide(values)
