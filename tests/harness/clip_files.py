"""Makes real clips, every frame of which carries its number as a pattern."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

av: Any = pytest.importorskip("av")

BLOCK = 8
BITS = 12
MILLISECOND = Fraction(1, 1000)
CODECS = {
    ".mp4": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".mkv": ("matroska", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
    ".avi": ("avi", "mpeg4"),
    ".mpg": ("mpeg", "mpeg2video"),
    ".ts": ("mpegts", "libx264"),
    ".gif": ("gif", "gif"),
    ".apng": ("apng", "apng"),
}
BITS_PER_SECOND = {"mpeg4": 1_000_000, "mpeg2video": 1_000_000}
PIXELS = {"gif": "rgb8", "apng": "rgb24"}
# Long groups with B-frames that lean on the next group's first picture.
OPEN_GOP = {"x264-params": "open-gop=1:bframes=4:keyint=12:b-adapt=0"}
PRESET = {
    "libx264": {"preset": "veryfast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def numbered(index: int, width: int = 128, height: int = 64) -> np.ndarray:
    """uint8 [H, W, 3]: the number in 12 black and white blocks, over a noisy moving scene."""
    y, x = np.mgrid[0:height, 0:width]
    scene = np.stack([x + 3 * index, 2 * y + index, x + y], axis=-1) % 256
    noise = np.random.default_rng(index).integers(0, 40, (height, width, 1))
    pixels = (scene // 2 + 40 + noise).astype(np.uint8)
    for bit in range(BITS):
        top, left = BLOCK * (bit // 6), BLOCK * (bit % 6)
        pixels[top : top + BLOCK, left : left + BLOCK] = 255 * (index >> bit & 1)
    return pixels


def number_of(image: Image.Image) -> int:
    """The number that `numbered` drew, whatever a codec has done to it since."""
    pixels = np.asarray(image.convert("L"))
    corners = [(BLOCK * (bit // 6), BLOCK * (bit % 6)) for bit in range(BITS)]
    blocks = [pixels[y + 2 : y + BLOCK - 2, x + 2 : x + BLOCK - 2].mean() for y, x in corners]
    assert all(abs(level - 127.5) > 60 for level in blocks), "the pattern did not survive"
    return sum((level > 127.5) << bit for bit, level in enumerate(blocks))


def make_clip(
    path: Path,
    count: int = 30,
    *,
    size: tuple[int, int] = (128, 64),
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rate: Fraction = Fraction(25),
    codec: str | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    prepare: Callable[[Any], None] | None = None,
) -> Path:
    """A clip of `count` numbered frames; the suffix chooses container and codec.

    `times` are in ticks of `time_base`; without them the rate is constant. `prepare` gets the
    stream before the first frame.
    """
    default_container, default_codec = CODECS[path.suffix]
    codec = codec or default_codec
    base = time_base or (MILLISECOND if times else 1 / rate)
    with av.open(
        str(path), "w", format=container or default_container, container_options=muxing or {}
    ) as file:
        options = PRESET.get(codec, {}) | (options or {})
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = PIXELS.get(codec, "yuv420p")
        if codec in BITS_PER_SECOND:
            stream.bit_rate = BITS_PER_SECOND[codec]
        stream.time_base = stream.codec_context.time_base = base
        if prepare is not None:
            prepare(stream)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(index, *size), format="rgb24")
            frame.pts, frame.time_base = times[index] if times else index, base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def repeat_clip(source: Path, path: Path, times: int) -> Path:
    """The same packets again and again, without a second encoding; no B-frames in `source`."""
    with av.open(str(path), "w") as out:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(source)) as file:
                video = file.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                for packet in file.demux(video):
                    if packet.size:
                        packet.pts += offset
                        packet.dts += offset
                        end = packet.pts + packet.duration
                        packet.stream = stream
                        out.mux(packet)
                offset = end
    return path


def sound_only(path: Path) -> Path:
    """An MP4 with a second of silence."""
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=44100)
        silence = np.zeros((1, 44100), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 44100
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def raw_pixels(path: Path) -> list[np.ndarray]:
    """Every frame by PyAV's plain conversion, on one thread: uint8 [H, W, 3]."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
