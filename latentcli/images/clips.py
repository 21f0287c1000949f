"""Reads the frames of a video file, in order, as upright 8-bit RGB pictures.

PyAV reads the files, an extra of the package. Its FFmpeg also knows playlists, web addresses and
text drawn as pictures; only files on the disk, in the containers listed here, are opened.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from PIL import Image

from latentcli.core.errors import SampleError, UsageError
from latentcli.images.clip_containers import Fault, find_fault
from latentcli.images.clip_frames import Clock, Steps, Turn
from latentcli.images.codec import check_pixels

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# fmt: off
CLIP_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi",
    ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
))
# fmt: on
"""Lower-case suffixes that a folder scan takes as clips."""

_CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,gif,apng"
_UNLISTED = frozenset(("mpegts", "mpeg"))
"""Containers that do not say how long they are: one that lacks some of its packets looks whole."""
_GUESSED_RATE = Fraction(25)
_HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What is known of a clip once its first frame is decoded."""

    size: tuple[int, int]
    """(W, H) of every frame, so after the rotation that the file asks for."""
    frame_rate: Fraction
    """Frames per second, on average; guessed where the file does not say."""
    time_base: Fraction
    """Seconds per tick of a frame's time."""
    frames: int | None
    """As the container states it, which may be wrong; None where it does not."""
    notes: tuple[str, ...]
    """What was done, or left undone, to the frames."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as a person sees it."""

    image: Image.Image
    """Mode RGB, upright. Pixels are not stretched to the sample aspect ratio."""
    time: int
    """When it is shown, in ticks of the clip's time base; at least 0, and more than the last."""


class Clip:
    """An open clip. Its frames come once, in the order in which they are shown."""

    def __init__(self, info: ClipInfo, frames: Iterator[Frame], steps: Steps | None) -> None:
        self.info = info
        self._frames = frames
        self._steps = steps

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    @property
    def late_notes(self) -> tuple[str, ...]:
        """What is known of the clip only when its frames are out."""
        note = self._steps.note(self.info.time_base) if self._steps else ""
        return (note,) if note else ()


@contextmanager
def open_clip(
    path: str, *, max_pixels: int, stride: int = 1, limit: int | None = None
) -> Iterator[Clip]:
    """Opens a clip that gives frames 0, stride, 2 * stride and so on, at most `limit` of them.

    No more than a few frames are in memory. The pixels are those of swscale's conversion to
    rgb24, by the matrix and range that the file states; transparency is dropped, and neither
    interlacing nor HDR is undone. A clip with several video streams gives the one that FFmpeg
    ranks best. Times are the container's; a clip that begins before 0 is moved to begin at 0.

    SampleError of the stage "read" where there is no such file, and of "decode_image" where it is
    not a video, has more than `max_pixels` in a frame, or changes its frame size, and, after the
    frames before it, where it is damaged or breaks off. Frames behind the `limit` are not looked
    at. A transport or program stream that was cut between two packets looks whole: where its times
    show a gap, a late note says so. UsageError without PyAV.
    """
    if stride < 1 or (limit is not None and limit < 1):
        raise ValueError(f"stride is {stride} and limit {limit}; both must be at least 1")
    av = load_av("read")
    with _opened(av, path) as container:
        stream = _video_stream(av, container)
        stated = (stream.codec_context.width, stream.codec_context.height)
        check_pixels("frames are", stated, max_pixels)
        stream.thread_type = "AUTO"
        decoded = _decoded(av, path, container, stream)
        first = next(decoded, None)
        if first is None:
            raise SampleError("decode_image", "clip has no frame that can be decoded")
        check_pixels("frames are", (first.width, first.height), max_pixels)
        turn = Turn.of(first)
        info = _describe(container, stream, first, turn)
        clock = Clock(info.frame_rate, info.time_base, by_dts=container.format.name == "avi")
        last = None if limit is None else stride * (limit - 1)
        steps = Steps()
        frames = _shown(chain([first], decoded), clock, steps, turn, stride, last)
        yield Clip(info, frames, steps if container.format.name in _UNLISTED else None)


def load_av(verb: str) -> ModuleType:
    """PyAV, or a UsageError that says how to get it; `verb` is what is done to video."""
    try:
        import av
    except ImportError as error:
        raise UsageError(
            f"to {verb} video, PyAV is needed and is not installed ({error}):"
            " pip install 'latentcli[video]'"
        ) from error
    return av


def _opened(av: Any, path: str) -> InputContainer:
    try:
        info = Path(path).stat()
        # A pipe without a writer would block an open for ever.
        if not stat.S_ISREG(info.st_mode):
            raise SampleError("read", "it is not a regular file but a folder, a device or a pipe")
        with Path(path).open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SampleError("read", error.strerror or str(error)) from error
    if empty:
        raise SampleError("decode_image", "file is empty (0 bytes)")
    try:
        # The prefix keeps a name such as http: or concat: from being more than a name.
        container: InputContainer = av.open(
            f"file:{path}",
            container_options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        reason = f"not a video, or its header is damaged ({text})"
        raise SampleError("decode_image", reason) from error
    return container


def _video_stream(av: Any, container: InputContainer) -> VideoStream:
    stream: Any = container.streams.best("video")
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        kinds = " and ".join(sorted({str(other.type) for other in container.streams}))
        found = f"there is {kinds}" if kinds else "there are no streams at all"
        raise SampleError("decode_image", f"no video stream; {found}")
    if stream.codec_context is None:
        raise SampleError("decode_image", "its video codec is not one that FFmpeg decodes")
    return stream  # type: ignore[no-any-return]


def _decoded(
    av: Any, path: str, container: InputContainer, stream: VideoStream
) -> Iterator[VideoFrame]:
    """All frames of the stream in the order of showing; SampleError where it is not whole."""
    frames = packets = 0
    size, trouble, ended = None, "", True
    try:
        for packet in container.demux(stream):
            # What stands before a broken packet still waits in the decoder.
            broken = packet.is_corrupt
            packets += packet.size > 0 and not broken
            for frame in stream.decode(None if broken else packet):
                if frame.is_corrupt:
                    raise ValueError("a frame lacks some of its data")
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise _size_change(size, frame, frames)
                yield frame
                frames += 1
            if broken:
                trouble = "a packet lacks some of its data"
                break
    except (av.FFmpegError, ValueError) as error:
        trouble, ended = getattr(error, "strerror", None) or str(error), False
    promised = _promised(container, stream) if ended else None
    fault = _find_fault(path, container.format.name, packets, promised, trouble)
    if fault is not None:
        noun = "frame" if frames == 1 else "frames"
        reason = f"clip is {fault.state} after {frames:,} {noun}: {fault.reason}"
        raise SampleError("decode_image", reason)


def _size_change(size: tuple[int, int], frame: VideoFrame, frames: int) -> SampleError:
    return SampleError(
        "decode_image",
        f"frames change from {size[0]}x{size[1]} to {frame.width}x{frame.height} after"
        f" {frames:,} of them; a clip has frames of one size",
    )


def _promised(container: InputContainer, stream: VideoStream) -> int | None:
    """Packets that the container lists, which an MP4 does unless it is fragmented.

    What an edit list hides is not in FFmpeg's index.
    """
    listed = "mp4" in container.format.name and stream.frames > 0
    return len(stream.index_entries) if listed else None


def _find_fault(
    path: str, container: str, packets: int, promised: int | None, trouble: str
) -> Fault | None:
    """Why the frames ended before the clip did, or None where they did not.

    FFmpeg ends without an error where a file lacks some of its packets.
    """
    damage = Fault("damaged", trouble) if trouble else None
    if promised is not None:
        if packets < promised:
            reason = f"its header states {promised:,} frames; there is data for {packets:,}"
            return Fault("cut short", reason)
        return damage
    try:
        return find_fault(path, container) or damage
    except OSError as error:
        return Fault("unreadable", error.strerror or str(error))


def _describe(
    container: InputContainer, stream: VideoStream, first: VideoFrame, turn: Turn
) -> ClipInfo:
    width, height = first.width, first.height
    notes = [turn.note] if turn.note else []
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        notes.append(f"pixel aspect {aspect.numerator}:{aspect.denominator} not applied")
    if first.interlaced_frame:
        notes.append("interlaced")
    if first.color_trc in _HDR:
        notes.append(f"HDR ({_HDR[first.color_trc]}) not mapped to sRGB")
    if len(container.streams.video) > 1:
        notes.append(f"one of {len(container.streams.video)} video streams")
    if (first.pts or 0) < 0:
        notes.append("moved to begin at time 0")
    return ClipInfo(
        size=(height, width) if turn.swaps else (width, height),
        frame_rate=stream.average_rate or stream.guessed_rate or _GUESSED_RATE,
        time_base=stream.time_base or Fraction(1, 1_000_000),
        frames=stream.frames or None,
        notes=tuple(notes),
    )


def _shown(
    frames: Iterator[VideoFrame],
    clock: Clock,
    steps: Steps,
    turn: Turn,
    stride: int,
    last: int | None,
) -> Iterator[Frame]:
    for index, frame in enumerate(frames):
        time = clock.read(frame)
        steps.add(time)
        if index % stride == 0:
            pixels = turn.apply(frame.to_ndarray(format="rgb24"))
            yield Frame(Image.fromarray(pixels), time)
        if index == last:
            return
