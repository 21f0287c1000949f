"""A written clip has the colours, the times and the bytes that it should, or is not there."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.clip_files import av, number_of, numbered
from torch import Tensor

from latentcli.core.errors import SampleError, UsageError
from latentcli.images.clip_writer import ClipWriter
from latentcli.images.clips import ClipInfo, Frame, open_clip

THIRTIETH = Fraction(1, 30)
RATE = (Fraction(30), THIRTIETH)
# fmt: off
COLOURS = [
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255),
    (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 100, 50), (16, 16, 16), (235, 235, 235),
    (64, 128, 192), (250, 128, 114), (1, 2, 3), (90, 160, 40),
]
# fmt: on


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def write(
    path: Path,
    pictures: list[np.ndarray],
    times: list[int],
    *,
    rate: Fraction = Fraction(30),
    base: Fraction = THIRTIETH,
    quality: int = 95,
) -> Path:
    height, width = pictures[0].shape[:2]
    with ClipWriter(path, (width, height), rate, base, quality) as writer:
        for picture, time in zip(pictures, times, strict=True):
            writer.add(tensor(picture), time)
    return path


def read(path: Path) -> tuple[ClipInfo, list[Frame]]:
    with open_clip(str(path), max_pixels=10**7) as clip:
        return clip.info, list(clip)


def test_the_longest_name_that_a_file_system_takes(tmp_path):
    path = write(tmp_path / ("n" * 251 + ".mp4"), [chart(), chart()], [0, 1])
    assert len(read(path)[1]) == 2 and list(tmp_path.iterdir()) == [path]


def chart() -> np.ndarray:
    rows = np.array(COLOURS, np.uint8).reshape(4, 4, 3)
    return rows.repeat(48, axis=0).repeat(48, axis=1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize(("quality", "tolerance"), [(100, 2), (95, 3), (80, 6)])
def test_colours_come_back(tmp_path, quality, tolerance):
    path = write(tmp_path / "chart.mp4", [chart()] * 3, [0, 1, 2], quality=quality)
    for frame in read(path)[1]:
        difference = np.abs(np.asarray(frame.image).astype(int) - chart())
        inside = difference.reshape(4, 48, 4, 48, 3)[:, 8:40, :, 8:40]
        assert inside.max() <= tolerance


def test_edges_of_colour_stay_in_place(tmp_path):
    _, (frame,) = read(write(tmp_path / "chart.mp4", [chart()], [0], quality=100))
    # swscale's default conversion, which skips columns, is at 1.36.
    assert np.abs(np.asarray(frame.image).astype(int) - chart()).mean() < 1


def test_the_file_says_which_colours_it_has(tmp_path):
    path = write(tmp_path / "chart.mp4", [chart()], [0])
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
    tags = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
    assert tags == (1, 1, 1, 1)
    assert frame.format.name == "yuv420p"


@pytest.mark.parametrize(
    ("base", "times"),
    [
        (THIRTIETH, list(range(40))),
        (Fraction(1001, 30000), list(range(12))),
        (Fraction(1499, 45000), [0, 1, 2, 7]),
        (Fraction(1, 1000), [0, 33, 66, 500, 501, 2000]),
        (Fraction(1, 90000), [126000, 129003, 140000]),
        (Fraction(1, 90000), [95443717, 95446720]),
        (Fraction(1, 12800), [7]),
        (Fraction(1, 7), [3, 4, 9]),
        (Fraction(2), [1, 2, 5]),
        (Fraction(1, 10**9), [0, 33366666, 66733333, 1000000001]),
    ],
)
def test_times_are_kept_exactly(tmp_path, base, times):
    pictures = [numbered(index) for index in range(len(times))]
    info, frames = read(write(tmp_path / "clip.mp4", pictures, times, base=base))
    assert [number_of(frame.image) for frame in frames] == list(range(len(times)))
    assert [frame.time * info.time_base for frame in frames] == [time * base for time in times]
    assert info.frames == len(times)
    assert info.time_base == Fraction(1, base.denominator)


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(45000, 1499)])
def test_a_constant_rate_is_read_back(tmp_path, rate):
    pictures = [numbered(index) for index in range(10)]
    info, _ = read(
        write(tmp_path / "clip.mp4", pictures, list(range(10)), rate=rate, base=1 / rate)
    )
    assert info.frame_rate == rate
    assert info.notes == ()


def test_equal_frames_give_equal_bytes(tmp_path):
    pictures = [numbered(index, 256, 192) for index in range(40)]
    one = write(tmp_path / "one.mp4", pictures, list(range(40)))
    two = write(tmp_path / "two.mp4", pictures, list(range(40)))
    assert one.read_bytes() == two.read_bytes()
    # The index comes first, so that a player can begin before it has the whole file.
    assert one.read_bytes().index(b"moov") < one.read_bytes().index(b"mdat")


def test_more_quality_is_closer_and_larger(tmp_path):
    noise = np.random.default_rng(0).integers(0, 60, (64, 128, 3))
    pictures = [(numbered(index) // 2 + noise).astype(np.uint8) for index in range(6)]
    sizes, figures = [], []
    for quality in (1, 50, 80, 95, 100):
        path = write(tmp_path / "clip.mp4", pictures, list(range(6)), quality=quality)
        sizes.append(path.stat().st_size)
        figures.append(psnr(np.asarray(read(path)[1][3].image), pictures[3]))
    assert sizes == sorted(sizes)
    assert figures == sorted(figures)
    assert figures[0] < 20 < figures[3]


def test_lossless_quality_loses_only_colour_resolution(tmp_path):
    grey = np.repeat(numbered(5)[:, :, :1], 3, axis=2)
    _, (frame,) = read(write(tmp_path / "grey.mp4", [grey], [0], quality=100))
    assert np.abs(np.asarray(frame.image).astype(int) - grey).max() <= 1


def test_a_failed_clip_leaves_the_folder_as_it_was(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"what was there")
    with pytest.raises(RuntimeError, match="model"), ClipWriter(path, (128, 64), *RATE) as writer:
        for index in range(70):
            writer.add(tensor(numbered(index)), index)
        assert len(list(tmp_path.iterdir())) == 2
        raise RuntimeError("model failed")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"what was there"
    with pytest.raises(SampleError, match="no frame"), ClipWriter(path, (128, 64), *RATE):
        pass
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"what was there"


def test_a_name_appears_when_the_clip_is_whole(tmp_path):
    path = tmp_path / "clip.mp4"
    with ClipWriter(path, (128, 64), *RATE) as writer:
        for index in range(3):
            writer.add(tensor(numbered(index)), index)
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    assert len(read(path)[1]) == 3


@pytest.mark.parametrize("size", [(127, 64), (128, 63), (0, 0)])
def test_odd_sizes_are_refused(tmp_path, size):
    with pytest.raises(SampleError, match="even sides") as caught:
        ClipWriter(tmp_path / "clip.mp4", size, *RATE)
    assert caught.value.stage == "encode_image"


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_is_1_to_100(tmp_path, quality):
    with pytest.raises(UsageError, match="1 to 100"):
        ClipWriter(tmp_path / "clip.mp4", (128, 64), *RATE, quality)


def test_wrong_frames_and_times_are_refused(tmp_path):
    with ClipWriter(tmp_path / "clip.mp4", (128, 64), *RATE) as writer:
        with pytest.raises(ValueError, match="above -1"):
            writer.add(tensor(numbered(0)), -1)
        writer.add(tensor(numbered(0)), 4)
        with pytest.raises(ValueError, match="above 4"):
            writer.add(tensor(numbered(1)), 4)
        with pytest.raises(ValueError, match=re.escape("not uint8 (3, 64, 128)")):
            writer.add(tensor(numbered(1, 64, 64)), 5)
        with pytest.raises(ValueError, match="not uint8"):
            writer.add(tensor(numbered(1)).float(), 5)
    assert len(read(tmp_path / "clip.mp4")[1]) == 1


def test_a_gap_that_mp4_cannot_hold_is_refused(tmp_path):
    path = tmp_path / "clip.mp4"
    with (
        pytest.raises(SampleError, match="5 s after"),
        ClipWriter(path, (128, 64), Fraction(30), Fraction(1, 10**9)) as writer,
    ):
        writer.add(tensor(numbered(0)), 0)
        writer.add(tensor(numbered(1)), 5 * 10**9)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SampleError, match="MP4 holds numbers"):
        ClipWriter(path, (128, 64), Fraction(30), Fraction(1, 10**10))


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with (
        pytest.raises(OSError, match="No such file"),
        ClipWriter(tmp_path / "none" / "clip.mp4", (128, 64), *RATE),
    ):
        pass


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'latentcli[video]'")):
        ClipWriter(tmp_path / "clip.mp4", (128, 64), *RATE)
