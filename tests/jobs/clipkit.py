"""What the tests of video jobs share: folders of clips, and looks at what came of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jobkit
import numpy as np
import torch
from harness import clip_files
from PIL import Image

from latentcli.images.clips import open_clip

MODEL = "linear16"
BATCH = 3
"""jobkit's: clips of 7 frames end with a batch of one."""
NUMBERS = (7, 4, 1, 9, 5)
"""Frames of the clips of `clips_in`."""


def clips_in(folder: Path, lengths: Sequence[int] = NUMBERS, first: int = 0) -> Path:
    """c00.mp4, c01.mp4 and so on, of these many frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, length in enumerate(lengths, first):
        clip_files.make_clip(folder / f"c{number:02d}.mp4", length)
    return folder


def cut(source: Path, target: Path, share: float = 0.6) -> Path:
    """A copy of a clip whose index is whole and whose last frames are gone."""
    fast = target.with_suffix(".fast.mp4")
    remux(source, fast)
    data = fast.read_bytes()
    fast.unlink()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def remux(source: Path, target: Path) -> None:
    """The same packets with the index in front."""
    options = {"movflags": "+faststart"}
    with (
        clip_files.av.open(str(source)) as old,
        clip_files.av.open(str(target), "w", format="mp4", container_options=options) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def frames_of(path: Path) -> list[tuple[int, int]]:
    """(number drawn on it, time in ticks) of every frame of a clip."""
    with open_clip(str(path), max_pixels=10**7) as clip:
        return [(int(clip_files.number_of(frame.image)), frame.time) for frame in clip]


def seconds_of(path: Path) -> list[Any]:
    """Exact time in seconds of every frame of a clip."""
    with open_clip(str(path), max_pixels=10**7) as clip:
        return [frame.time * clip.info.time_base for frame in clip]


def numbers_of(folder: Path) -> list[int]:
    """Numbers drawn on the pictures of a folder, by their names' order."""
    paths = sorted(folder.glob("[!.]*"))
    assert [path.stem for path in paths] == [f"{index:06d}" for index in range(len(paths))]
    return [int(clip_files.number_of(Image.open(path))) for path in paths]


def as_pictures(clip: Path, folder: Path, indices: Iterable[int] | None = None) -> Path:
    """The frames of a clip as numbered PNG files."""
    folder.mkdir(parents=True)
    raw = clip_files.raw_pixels(clip)
    for index in range(len(raw)) if indices is None else indices:
        Image.fromarray(raw[index]).save(folder / f"{index:06d}.png")
    return folder


def pixels_of(clip: Path) -> torch.Tensor:
    """uint8 [T, 3, H, W]."""
    return torch.from_numpy(np.stack(clip_files.raw_pixels(clip))).permute(0, 3, 1, 2)


def unfinished(store: Path) -> list[str]:
    """Temporary files below a folder."""
    return [name for name in jobkit.tree(store) if ".tmp-" in name]
