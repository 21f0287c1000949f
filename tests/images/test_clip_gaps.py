"""Gaps in the times of a clip that does not say how long it is are noted, and nothing else is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import pytest
from harness.clip_files import av, make_clip

from latentcli.core.errors import SampleError
from latentcli.images.clip_frames import Steps
from latentcli.images.clips import open_clip

MILLISECOND = Fraction(1, 1000)
BACKWARD = {"x264-params": "bframes=3:b-adapt=0:scenecut=0"}
"""Frames that come before some that are shown earlier."""


def note_of(times: Iterable[int], time_base: Fraction = MILLISECOND) -> str:
    steps = Steps()
    for time in times:
        steps.add(time)
    return steps.note(time_base)


def late_notes(path: Path, limit: int | None = None) -> tuple[int, tuple[str, ...]]:
    """(frames, notes)."""
    with open_clip(str(path), max_pixels=10**7, limit=limit) as clip:
        return len(list(clip)), clip.late_notes


def test_a_gap_is_told_with_its_place():
    times = [0, 40, 80, 120, 160, 200, 240, 280, 320, 360, 600, 640]
    assert note_of(times) == (
        "gap in time: frames at 0.36 s and 0.60 s follow each other, others are 0.04 s apart;"
        " some may be missing"
    )
    assert "0.20 s and 0.44 s" in note_of([0, 40, 80, 120, 160, 200, 440, 480, 520, 560, 600, 840])


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [40],
        [40] * 50,
        [1501, 1502] * 25,
        [33, 34, 33] * 20,
        [3003, 4504] * 25,
        [20, 40, 80, 160, 30, 50] * 5,
        [*range(1, 3000)],
    ],
)
def test_even_and_uneven_times_have_no_gap(steps):
    assert note_of(itertools.accumulate([0, *steps])) == ""


def test_rounded_steps_may_have_a_gap():
    assert "gap in time" in note_of(itertools.accumulate([0, *[33, 34, 33] * 20, 100]))


def cut_between_packets(path: Path) -> Path:
    """Cuts a transport stream behind a frame that is shown later than the missing ones."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    shown = [packet.pts for packet in packets]
    at = max(i for i in range(len(packets) - 2) if shown[i + 1] < shown[i] and i > 20)
    path.write_bytes(path.read_bytes()[: packets[at + 1].pos])
    return path


def test_a_transport_stream_cut_between_packets_has_a_note(tmp_path):
    path = make_clip(tmp_path / "a.ts", 40, options=BACKWARD)
    assert late_notes(path) == (40, ())
    count, notes = late_notes(cut_between_packets(path))
    assert 10 < count < 40 and path.stat().st_size % 188 == 0
    assert len(notes) == 1 and notes[0].startswith("gap in time: frames at")
    assert late_notes(path, limit=5) == (5, ())


def test_a_transport_stream_that_lacks_a_packet_fails(tmp_path):
    path = make_clip(tmp_path / "a.ts", 40, options=BACKWARD)
    data = path.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    video = [i for i, p in enumerate(packets) if p[1] & 0x1F == 1 and p[2] == 0]
    del packets[video[len(video) // 2]]
    path.write_bytes(b"".join(packets))
    with pytest.raises(SampleError, match="a packet lacks some of its data"):
        late_notes(path)


def test_a_container_that_lists_its_frames_has_no_such_note(tmp_path):
    times = [*range(0, 1200, 40), 3000, 3040]
    path = make_clip(tmp_path / "a.mp4", 32, times=times, time_base=MILLISECOND)
    assert late_notes(path) == (32, ())
