"""Writes frames with their times to an H.264 video in an MP4 file, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import math
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from latentcli.core.errors import SampleError, UsageError
from latentcli.core.mark import MADE_BY
from latentcli.images.clips import load_av

# libswscale: average the four pixels that share a chroma sample, and round exactly. By default it
# takes every second column, and a colour chart comes back twice as far off.
_AREA, _FULL_CHROMA, _EXACT = 0x20, 0x4000, 0x40000
_BT709 = 1
_LIMITED_RANGE = 1
_THREADS = 4
"""x264's bytes depend on the number of its threads, so it is not the number of cores."""
_MOST = 2**31 - 1


class ClipWriter:
    """Writes one clip; as a context manager, so that a clip that fails leaves nothing behind.

    `size` is (W, H), both even. `frame_rate` is the nominal one: it sets how long the last frame is
    shown. Every other frame is shown until the next one's time, exactly, in ticks of `time_base`.
    Colours are yuv420p by BT.709 in limited range, and tagged so. `quality` is 1 to 100 and
    becomes x264's crf = 51 * sqrt(1 - quality / 100): 0 at 100, 11.4 at 95, 16.1 at 90, 22.8 at
    80. At 100 the 4:2:0 samples are kept without loss, which takes a player for the profile High
    4:4:4 Predictive. Equal frames and times give equal bytes. The last ones are the words MADE_BY.

    The file is written under a temporary name beside `path`, and renamed once it is whole and on
    the disk. UsageError for a quality outside 1 to 100 and without PyAV or its libx264;
    SampleError of the stage "encode_image" where MP4 cannot hold the clip; OSError where the
    system refuses to write.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        frame_rate: Fraction,
        time_base: Fraction,
        quality: int = 95,
    ) -> None:
        if not 1 <= quality <= 100:
            raise UsageError(f"quality is {quality}; allowed are 1 to 100")
        if frame_rate <= 0 or time_base <= 0:
            raise ValueError(f"frame rate {frame_rate} and time base {time_base} must be above 0")
        _check_holds(size, frame_rate, time_base)
        self._path = path
        # The name itself may be as long as the file system allows.
        name = path.name.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(name, digest_size=8).hexdigest()
        self._temporary = path.with_name(f".tmp-{os.getpid()}-{digest}")
        self._size, self._rate, self._base = size, frame_rate, time_base
        self._crf = 51 * math.sqrt(1 - quality / 100)
        self._av: Any = load_av("write")
        self._last: int | None = None

    def __enter__(self) -> Self:
        # FFmpeg itself creates the file only with the first packet.
        self._temporary.touch()
        ticks = str(self._base.denominator)
        self._container = self._av.open(
            f"file:{self._temporary}",
            "w",
            format="mp4",
            # Without the movie's own scale, the start would be rounded to milliseconds.
            container_options={
                "movflags": "+faststart",
                "fflags": "+bitexact",
                "video_track_timescale": ticks,
                "movie_timescale": ticks,
            },
        )
        try:
            self._stream = self._add_stream()
            self._reformatter = self._av.video.reformatter.VideoReformatter()
        except BaseException:
            self._drop()
            raise
        return self

    def _add_stream(self) -> Any:
        try:
            options = {"crf": f"{self._crf:.2f}", "preset": "medium"}
            stream = self._container.add_stream("libx264", rate=self._rate, options=options)
        except self._av.codec.codec.UnknownCodecError as error:
            raise UsageError(
                "this PyAV was built without libx264, which writes MP4; the wheels of PyPI have it:"
                " pip install 'latentcli[video]'"
            ) from error
        context = stream.codec_context
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuv420p"
        stream.time_base = context.time_base = self._base
        context.thread_count, context.thread_type = _THREADS, "FRAME"
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return stream

    def add(self, pixels: Tensor, time: int) -> None:
        """Adds a frame, uint8 [3, H, W] sRGB on any device, shown from `time` ticks on.

        ValueError for other pixels, and for a time below 0 or not after the frame before.
        """
        if pixels.dtype != torch.uint8 or tuple(pixels.shape) != (3, *self._size[::-1]):
            raise ValueError(
                f"pixels are {pixels.dtype} {tuple(pixels.shape)}, not uint8"
                f" {(3, *self._size[::-1])}"
            )
        self._check_time(time)
        array = pixels.permute(1, 2, 0).contiguous().cpu().numpy()
        frame = self._reformatter.reformat(
            self._av.VideoFrame.from_ndarray(array, format="rgb24"),
            format="yuv420p",
            dst_colorspace=_BT709,
            dst_color_range=_LIMITED_RANGE,
            interpolation=_AREA | _FULL_CHROMA | _EXACT,
        )
        frame.pts, frame.time_base = time, self._base
        self._mux(frame)

    def _check_time(self, time: int) -> None:
        before = -1 if self._last is None else self._last
        if time <= before:
            raise ValueError(f"time is {time}; it must be above {before}")
        step = (time - max(before, 0)) * self._base
        if step * self._base.denominator > _MOST:
            raise SampleError(
                "encode_image",
                f"a frame comes {float(step):g} s after the one before; in ticks of {self._base} s"
                " that is more than MP4 holds (write numbered frames instead)",
            )
        self._last = time

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            # Only that of the last packet counts: the others end where the next begins.
            packet.duration = max(1, round(1 / (self._rate * self._base)))
            self._container.mux(packet)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._drop()

    def _finish(self) -> None:
        if self._last is None:
            raise SampleError("encode_image", "the clip has no frame")
        self._mux(None)
        self._container.close()
        with self._temporary.open("ab") as file:
            file.write(_free_box(MADE_BY.encode()))
        _sync(self._temporary, os.O_RDONLY)
        self._temporary.replace(self._path)
        _sync(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)

    def _drop(self) -> None:
        """Nothing where the clip is finished."""
        with suppress(Exception):  # closing writes an index, which a broken clip may not have
            self._container.close()
        self._temporary.unlink(missing_ok=True)


def _free_box(data: bytes) -> bytes:
    """A part of an MP4 file that players pass over."""
    return (8 + len(data)).to_bytes(4, "big") + b"free" + data


def _check_holds(size: tuple[int, int], frame_rate: Fraction, time_base: Fraction) -> None:
    width, height = size
    if width % 2 or height % 2 or min(size) < 2:
        raise SampleError(
            "encode_image",
            f"frames are {width}x{height}; an MP4 file needs even sides (write numbered frames"
            " instead)",
        )
    if max(*time_base.as_integer_ratio(), *frame_rate.as_integer_ratio()) > _MOST:
        raise SampleError(
            "encode_image",
            f"time base is {time_base} s and frame rate {frame_rate}; MP4 holds numbers up to"
            f" {_MOST} (write numbered frames instead)",
        )


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:  # some file systems cannot sync folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
