"""Clips of every kind give each frame once, in order, on time; broken ones never look whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.clip_files import (
    CODECS,
    MILLISECOND,
    OPEN_GOP,
    av,
    make_clip,
    number_of,
    raw_pixels,
    repeat_clip,
    sound_only,
)
from PIL import Image

from latentcli.core.errors import SampleError, UsageError
from latentcli.images.clip_frames import Clock
from latentcli.images.clips import CLIP_SUFFIXES, ClipInfo, Frame, open_clip
from latentcli.images.formats import IMAGE_SUFFIXES

PLENTY = 10_000_000


def read(path: Path, **options: Any) -> tuple[ClipInfo, list[Frame]]:
    with open_clip(str(path), max_pixels=PLENTY, **options) as clip:
        return clip.info, list(clip)


def numbers(path: Path, **options: Any) -> list[int]:
    return [number_of(frame.image) for frame in read(path, **options)[1]]


def refused(path: Path, **options: Any) -> tuple[str, str, int]:
    """(stage, reason, frames that came before)."""
    frames = 0
    with (
        pytest.raises(SampleError) as caught,
        open_clip(str(path), **{"max_pixels": PLENTY, **options}) as clip,
    ):
        for _ in clip:
            frames += 1
    assert "\n" not in caught.value.reason
    return caught.value.stage, caught.value.reason, frames


def overwrite(path: Path, start: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + len(content)] = content
    path.write_bytes(data)


def test_suffixes_are_those_of_a_folder_scan():
    assert {".mp4", ".mkv", ".webm", ".mov", ".avi", ".ts"} <= CLIP_SUFFIXES
    assert not CLIP_SUFFIXES & IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() for suffix in CLIP_SUFFIXES)


@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_gives_each_frame_once_in_order(tmp_path, suffix):
    path = make_clip(tmp_path / f"clip{suffix}", 40, options={"g": "12"})
    info, frames = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(40))
    assert info.size == (128, 64)
    seconds = [(frame.time - frames[0].time) * info.time_base for frame in frames]
    assert seconds == pytest.approx([index / 25 for index in range(40)], abs=1e-3)
    assert all(frame.image.mode == "RGB" and frame.image.size == info.size for frame in frames)


@pytest.mark.parametrize(
    ("name", "count", "size", "rate"),
    [
        ("realshort.mp4", 36, (320, 240), Fraction(45000, 1499)),
        ("cockatoo_yuv420.mp4", 280, (1280, 720), Fraction(20)),
        ("newtonscradle.gif", 36, (200, 150), None),
    ],
)
def test_real_clips_give_exactly_the_pixels_and_times_of_pyav(shared, name, count, size, rate):
    path = shared / "video" / name
    info, frames = read(path, stride=7 if count > 100 else 1)
    assert info.size == size
    assert info.frames == count
    assert rate is None or info.frame_rate == rate
    assert len(frames) == -(-count // (7 if count > 100 else 1))
    if count < 100:
        for frame, pixels in zip(frames, raw_pixels(path), strict=True):
            assert np.array_equal(np.asarray(frame.image), pixels)
    if name == "newtonscradle.gif":
        assert [frame.time for frame in frames[:4]] == [0, 5, 7, 9]
        assert info.time_base == Fraction(1, 100)


def test_times_of_a_variable_rate_are_kept_with_b_frames_and_open_groups(tmp_path):
    times = [int(value) for value in np.cumsum([0, *([20, 40, 7, 250, 33] * 8)])]
    path = make_clip(tmp_path / "vfr.mp4", len(times), times=times, options=OPEN_GOP)
    info, frames = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(len(times)))
    assert [frame.time * info.time_base for frame in frames] == [t * MILLISECOND for t in times]
    singles = raw_pixels(path)
    assert all(
        np.array_equal(np.asarray(frame.image), pixels)
        for frame, pixels in zip(frames, singles, strict=True)
    )


def test_an_avi_with_b_frames_begins_at_zero_and_is_even(tmp_path):
    path = make_clip(tmp_path / "clip.avi", 30, codec="libx264", options=OPEN_GOP)
    info, frames = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == list(range(30))
    assert info.time_base == 1 / info.frame_rate == Fraction(1, 25)


def test_times_that_are_absent_or_fall_are_made_up():
    clock = Clock(Fraction(25), Fraction(1, 1000), by_dts=False)
    times = []
    for stated in (None, None, 90, None, None, 150, 200):
        frame = av.VideoFrame(16, 16)
        frame.pts = stated
        times.append(clock.read(frame))
    assert times == [0, 40, 90, 130, 170, 171, 200]


def test_a_clip_that_begins_before_zero_is_moved_and_one_that_begins_late_is_not(tmp_path):
    late = make_clip(tmp_path / "late.mp4", 5, times=[700, 720, 740, 800, 900])
    info, frames = read(late)
    assert [frame.time * info.time_base for frame in frames][:2] == [
        Fraction(7, 10),
        Fraction(18, 25),
    ]
    early = make_clip(tmp_path / "early.avi", 5)
    info, frames = read(early)
    assert frames[0].time >= 0
    early = make_clip(
        tmp_path / "early.mkv", 5, times=[-40, 0, 40, 90, 130], codec="mpeg4",
        muxing={"avoid_negative_ts": "disabled"},
    )  # fmt: skip
    info, frames = read(early)
    assert [frame.time * info.time_base * 1000 for frame in frames] == [0, 40, 80, 130, 170]
    assert info.notes == ("moved to begin at time 0",)


def test_stride_and_limit_choose_frames(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 30)
    assert numbers(path, stride=7) == [0, 7, 14, 21, 28]
    assert numbers(path, limit=3) == [0, 1, 2]
    assert numbers(path, stride=10, limit=2) == [0, 10]
    assert numbers(path, stride=29) == [0, 29]
    assert numbers(path, stride=100) == [0]
    assert numbers(path, limit=1000) == list(range(30))
    info, frames = read(path, stride=7)
    assert [frame.time * info.time_base for frame in frames] == [
        Fraction(i, 25) for i in (0, 7, 14, 21, 28)
    ]
    for wrong in ({"stride": 0}, {"limit": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            read(path, **wrong)


def test_odd_sizes_are_read_as_they_are(tmp_path):
    path = make_clip(tmp_path / "odd.webm", 4, size=(131, 77))
    info, frames = read(path)
    assert info.size == frames[0].image.size == (131, 77)
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("degrees", "hflip", "vflip"),
    [(0, 0, 0), (90, 0, 0), (180, 0, 0), (-90, 0, 0), (0, 1, 0), (0, 0, 1), (90, 1, 0), (90, 0, 1)],
)
def test_frames_are_turned_as_the_file_says(tmp_path, degrees, hflip, vflip):
    from av.video.stream import VideoStream

    if not hasattr(VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a rotation")
    path = make_clip(
        tmp_path / "turned.mp4",
        3,
        prepare=lambda stream: stream.set_display_rotation(degrees, bool(hflip), bool(vflip)),
    )
    wanted = np.rot90(raw_pixels(path)[2], degrees // 90)
    wanted = wanted[:, ::-1] if hflip else wanted
    wanted = wanted[::-1] if vflip else wanted
    info, frames = read(path)
    assert np.array_equal(np.asarray(frames[2].image), wanted)
    assert info.size == frames[2].image.size == wanted.shape[1::-1]
    turned = bool(degrees or hflip or vflip)
    assert info.notes == (("rotation applied",) if turned else ())


def test_pixel_aspect_is_noted_and_not_applied(tmp_path):
    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    info, frames = read(make_clip(tmp_path / "wide.mp4", 2, prepare=prepare))
    assert info.notes == ("pixel aspect 4:3 not applied",)
    assert frames[0].image.size == (128, 64)


@pytest.mark.parametrize("part", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("suffix", CODECS)
def test_a_clip_that_breaks_off_never_looks_whole(tmp_path, suffix, part):
    muxing = {"movflags": "faststart"} if suffix in (".mp4", ".mov") else {}
    path = make_clip(tmp_path / f"clip{suffix}", 40, options={"g": "12"}, muxing=muxing)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    stage, reason, frames = refused(path)
    assert stage == "decode_image"
    assert frames <= 40
    # Streams do not say how long they are, so there a cut looks like damage.
    state = "(cut short|damaged)" if suffix in (".mpg", ".ts") else "cut short"
    assert re.match(rf"clip is {state} after {frames} frames?: ", reason), reason


def test_a_transport_stream_that_ends_inside_a_packet_is_cut_short(tmp_path):
    path = make_clip(tmp_path / "clip.ts", 20)
    path.write_bytes(path.read_bytes()[:-100])
    assert re.search(r"cut short after \d+ frames: .* end inside a packet", refused(path)[1])


def test_a_cut_clip_gives_every_frame_before_the_cut(tmp_path):
    muxing = {"movflags": "faststart"}
    path = make_clip(tmp_path / "clip.mp4", 40, options={"bf": "0"}, muxing=muxing)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    _, reason, frames = refused(path)
    assert frames >= 5
    assert reason.endswith(f"its header states 40 frames; there is data for {frames}")
    assert numbers(path, limit=5) == [0, 1, 2, 3, 4]


def test_a_fragmented_clip_is_read_whole_and_its_cut_is_noticed(tmp_path):
    muxing = {"movflags": "frag_keyframe+empty_moov"}
    path = make_clip(tmp_path / "clip.mp4", 40, options={"g": "10"}, muxing=muxing)
    info, frames = read(path)
    assert len(frames) == 40
    assert info.frames is None
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moof") + 200])
    assert refused(path)[1].startswith("clip is cut short after ")


def test_what_an_edit_list_hides_is_not_missed(tmp_path):
    times = [-400 + 40 * index for index in range(40)]
    path = make_clip(tmp_path / "edited.mp4", 40, times=times, options={"g": "5", "bf": "0"})
    assert 0 < len(numbers(path)) < 40
    assert numbers(path) == list(range(40))[-len(numbers(path)) :]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".gif", ".avi", ".ts"])
def test_garbage_in_the_middle_is_not_passed_over(tmp_path, suffix):
    path = make_clip(tmp_path / f"clip{suffix}", 40, options={"g": "12"})
    size = path.stat().st_size
    overwrite(path, size // 2, bytes(max(600, size // 10)))
    assert re.match(r"clip is damaged after \d+ frames?: ", refused(path)[1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "file is empty (0 bytes)"),
        (b"not a clip, only words\n" * 90, "not a video, or its header is damaged"),
        (bytes(50_000), "not a video, or its header is damaged"),
    ],
)
def test_what_is_no_clip_is_refused(tmp_path, content, reason):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    stage, found, _ = refused(path)
    assert stage == "decode_image"
    assert found.startswith(reason)


def test_a_clip_without_its_index_is_refused(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 20)
    path.write_bytes(path.read_bytes()[:-900])
    assert refused(path)[1].startswith(("not a video, or its header is damaged", "no video stream"))


def test_files_that_are_not_there_are_a_failure_of_read(tmp_path):
    assert refused(tmp_path / "none.mp4")[:2] == ("read", "No such file or directory")
    assert "not a regular file but a folder" in refused(tmp_path)[1]


def test_sound_and_pictures_have_no_video(tmp_path):
    assert refused(sound_only(tmp_path / "sound.mp4"))[1] == "no video stream; there is audio"
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    assert refused(tmp_path / "picture.png")[0] == "decode_image"


def test_a_clip_opens_no_other_file(tmp_path, monkeypatch):
    make_clip(tmp_path / "other.mp4", 3)
    lure = tmp_path / "lure.mp4"
    lure.write_text("ffconcat version 1.0\nfile other.mp4\n")
    assert refused(lure)[0] == "decode_image"
    monkeypatch.chdir(tmp_path)
    assert refused(Path("concat:other.mp4"))[0] == "read"
    make_clip(tmp_path / "new.mp4", 5).rename("concat:other.mp4")
    assert numbers(Path("concat:other.mp4")) == [0, 1, 2, 3, 4]


def test_large_frames_are_refused_before_they_are_decoded(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 3)
    reason = "frames are 128x64, 8,192 pixels; the limit is 8,000 (--max-pixels raises it)"
    assert refused(path, max_pixels=8000) == ("decode_image", reason, 0)
    assert len(read(path)[1]) == 3
    start = path.read_bytes().index(b"mdat") + 4
    overwrite(path, start, bytes(path.read_bytes().index(b"moov") - start - 4))
    assert refused(path, max_pixels=8000) == ("decode_image", reason, 0)


def test_a_change_of_size_is_refused(tmp_path):
    first = make_clip(tmp_path / "a.mpg", 10, container="mpeg2video")
    second = make_clip(tmp_path / "b.mpg", 10, container="mpeg2video", size=(96, 48))
    both = tmp_path / "both.mpg"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    stage, reason, frames = refused(both)
    assert stage == "decode_image"
    assert reason.startswith(f"frames change from 128x64 to 96x48 after {frames} of them")


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "clip.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'latentcli[video]'")):
        read(path)


PEAK = """
import resource, sys
from latentcli.images.clips import open_clip
count = 0
with open_clip(sys.argv[1], max_pixels=10**6) as clip:
    for frame in clip:
        count += 1
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_length(tmp_path):
    peaks = []
    short = make_clip(tmp_path / "short.mp4", 200, size=(320, 240), codec="mpeg4")
    long = repeat_clip(short, tmp_path / "long.mp4", 10)
    for path, count in ((short, 200), (long, 2000)):
        ran = subprocess.run(
            [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
        )
        frames, peak = map(int, ran.stdout.split())
        assert frames == count
        peaks.append(peak)
    # 1,800 more frames would be 400 MB.
    assert peaks[1] < peaks[0] + 20_000


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    stage, reason, _ = refused(tmp_path / "x.mp4")
    assert stage == "read" and "not a regular file" in reason
