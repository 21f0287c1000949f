"""Decodes JPEG files on a device, and brings their pictures to size there.

The decoder is nvJPEG, by way of nvImageCodec: of what leads to it, that alone can be told to
interpolate colours that are stored at half the size, as every decoder of a CPU does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from latentcli.core.errors import UsageError
from latentcli.core.types import Row
from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.preprocess import PreprocessSpec, preprocess
from latentcli.images.products import resize_crop
from latentcli.jobs.inference.accelerator import Accelerator
from latentcli.jobs.inference.memory import quiet_stderr
from latentcli.jobs.inference.out_of_memory import is_out_of_memory

MODULE = "nvidia.nvimgcodec"
PIXELS = 2**25
"""Of pictures that are decoded at once, unless a single one has more."""

ASKED = "--decode-on is gpu (given, or kept from the existing store), but"
INSTALL = (
    "pip install 'latentcli[gpu-jpeg]' brings it for CUDA 13, and pip install"
    " 'nvidia-nvimgcodec-cu12[nvjpeg]' for CUDA 12."
)


def check_decoder(accelerator: Accelerator) -> None:
    """UsageError where a device has no decoder of JPEG files, or its package is missing."""
    if not accelerator.jpeg_backends:
        raise UsageError(
            f"{ASKED} the model runs on {accelerator.describe()}, and only CUDA devices decode"
            " JPEG files. Leave it out (and use another -o if the store exists), or use --device"
            " cuda."
        )
    try:
        found = find_spec(MODULE) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise UsageError(f"{ASKED} nvImageCodec is not installed. {INSTALL}")


def nvimgcodec() -> Any:
    """The library, which says nothing by itself: what it refuses is decoded here."""
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
    with quiet_stderr():  # that its libraries for other formats are missing
        return import_module(MODULE)


class JpegDecoder:
    """Turns rows whose files were not decoded yet into pictures; used by one thread at a time."""

    def __init__(
        self, accelerator: Accelerator, policy: DecodePolicy, preprocess: PreprocessSpec
    ) -> None:
        """UsageError as `check_decoder`."""
        check_decoder(accelerator)
        self._accelerator, self._policy, self._spec = accelerator, policy, preprocess
        self._given = self._left = 0
        try:
            self._library = nvimgcodec()
            self._params = self._library.DecodeParams(
                apply_exif_orientation=False, sample_format=self._library.SampleFormat.P_RGB
            )
            self._decoder = self._new_decoder()
        except (ImportError, RuntimeError) as error:
            raise UsageError(
                f"{ASKED} nvImageCodec found no decoder of JPEG files for"
                f" {accelerator.describe()} ({error}). {INSTALL}"
            ) from error

    def _new_decoder(self) -> Any:
        library, backends = self._library, self._accelerator.jpeg_backends
        at = "CPU_ONLY" if self._device.type == "cpu" else "CURRENT"
        return library.Decoder(
            device_id=getattr(library, f"NVIMGCODEC_DEVICE_{at}"),
            backends=[library.Backend(getattr(library.BackendKind, name)) for name in backends],
            options=":fancy_upsampling=1",
        )

    def pixels(self, rows: Sequence[Row], pictures: Sequence[Tensor]) -> Tensor:
        """uint8 [N, 3, H, W] on the device, of pictures that are to have one shape.

        Each is uint8 [3, H, W], or the bytes of its file, uint8 [n], which are sound; the rows say
        how they are brought to size. A file that the device does not decode is decoded here.
        """
        result = torch.empty(
            len(rows), *shape_of(rows[0], pictures[0]), dtype=torch.uint8, device=self._device
        )
        files = [place for place, picture in enumerate(pictures) if picture.ndim == 1]
        there = [place for place, picture in enumerate(pictures) if picture.ndim > 1]
        if there:
            stacked = torch.stack([pictures[place] for place in there])
            result[there] = self._accelerator.to_device(stacked)
        for part in self._parts(rows, files):
            wholes = self.decode([pictures[place] for place in part])
            for place, whole in zip(part, wholes, strict=True):
                brought = None if whole is None else self._brought(whole, rows[place])
                result[place] = self._here(pictures[place]) if brought is None else brought
                self._given += 1
                self._left += brought is None
        return result

    def tell_left(self, note: Callable[[str], object]) -> None:
        """Notes how many files the device was given and did not decode, since the last time.

        For want of memory, or because the library refuses them: it does not say which.
        """
        if self._left:
            note(
                f"The GPU left {self._left:,} of {self._given:,} JPEG files to the CPU: its decoder"
                " refused them, or had not enough memory. Their pixels differ a little from those"
                " that the GPU would have made. If they are many, use a smaller --batch-size."
            )
        self._given = self._left = 0

    def decode(self, files: Sequence[Tensor]) -> list[Tensor | None]:
        """uint8 [3, H, W] of each file's bytes, uint8 [n], on the device; None where it refuses."""
        try:
            return self._decoded(files)
        except RuntimeError:
            # One that the library does not even take must not cost the others, nor the job.
            return [None] if len(files) == 1 else [self.decode([file])[0] for file in files]

    def _decoded(self, files: Sequence[Tensor]) -> list[Tensor | None]:
        streams = [self._library.CodeStream(file.numpy()) for file in files]
        # Of a CPU, torch's stream has no such number, and none is needed.
        queue = torch.get_device_module(self._device).current_stream(self._device)
        stream = getattr(queue, "cuda_stream", 0)
        images = self._decoder.decode(streams, params=self._params, cuda_stream=stream)
        return [None if image is None else self._tensor(image) for image in images]

    @property
    def _device(self) -> torch.device:
        return self._accelerator.device

    def _tensor(self, image: Any) -> Tensor:
        if self._device.type == "cpu":
            return torch.from_numpy(np.asarray(image))
        return from_dlpack(image)

    def _parts(self, rows: Sequence[Row], files: Sequence[int]) -> Iterator[list[int]]:
        """The places of files, as many at once as have PIXELS."""
        part, held = list[int](), 0
        for place in files:
            width, height = rows[place].original_size or (0, 0)
            if part and held + width * height > PIXELS:
                yield part
                part, held = [], 0
            part.append(place)
            held += width * height
        if part:
            yield part

    def _brought(self, whole: Tensor, row: Row) -> Tensor | None:
        """The picture in its size; None where the device has not the memory, or it is another."""
        width, height = row.original_size or (0, 0)
        if whole.shape != (3, height, width) or row.resized_size is None or row.crop is None:
            return None
        try:
            return resize_crop(whole, row.resized_size, row.crop, self._spec.filter)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _here(self, file: Tensor) -> Tensor:
        """The same by the decoder of the CPU."""
        decoded = decode_image(file.numpy().tobytes(), self._policy)
        return preprocess(decoded.rgb, self._spec).pixels.to(self._device)


def shape_of(row: Row, picture: Tensor) -> tuple[int, int, int]:
    """(3, H, W) that a picture has, or will have once its file is decoded."""
    if picture.ndim > 1 or row.crop is None:
        return tuple(picture.shape)  # type: ignore[return-value]
    left, top, right, bottom = row.crop
    return 3, bottom - top, right - left


def outline(row: Row, picture: Tensor) -> Tensor:
    """A tensor of the shape, dtype and size of the picture; without memory where it is a file."""
    if picture.ndim > 1:
        return picture
    return torch.empty(shape_of(row, picture), dtype=torch.uint8, device="meta")
