"""Sources as a user names them in; the inputs, and whether they are pictures or clips, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentcli.images.clips import CLIP_SUFFIXES, load_av
from latentcli.images.codec import IMAGE_SUFFIXES
from latentcli.jobs.talk import SILENT, Talk
from latentcli.shards.plan import FoundInput, find_inputs

ANIMATED = frozenset((".gif", ".webp", ".apng"))
"""Pictures that may move: clips where clips are asked for."""
SUFFIXES = {
    "auto": IMAGE_SUFFIXES | CLIP_SUFFIXES,
    "images": IMAGE_SUFFIXES,
    "clips": CLIP_SUFFIXES | ANIMATED,
}
PER_SHARD = {"images": 1000, "clips": 16}
"""Inputs of a shard, unless the user says otherwise."""
SHOWN = 3
"""Names in a message."""


@dataclass(frozen=True, slots=True)
class Found:
    """The inputs of a job."""

    inputs: list[FoundInput]
    media: str
    """images or clips."""


def find_media(sources: Sequence[str], media: str, talk: Talk = SILENT) -> Found:
    """Inputs of the sources; `media` is images, clips, or auto: clips where all are video files.

    With auto, video files among pictures are passed over with a note. UsageError as `find_inputs`,
    and for clips without PyAV.
    """
    found = find_inputs(sources, SUFFIXES[media])
    if media == "images":
        return Found(found, media)
    clips = [item for item in found if is_clip(item.path)]
    if media == "clips" or len(clips) == len(found):
        load_av("read")
        return Found(found, "clips")
    if clips:
        names = ", ".join(item.path for item in clips[:SHOWN])
        more = f" and {len(clips) - SHOWN:,} more" if len(clips) > SHOWN else ""
        talk.note(
            f"{len(clips):,} video files among the pictures are left out: {names}{more}."
            " --media clips encodes those."
        )
    return Found([item for item in found if not is_clip(item.path)], "images")


def is_clip(path: str) -> bool:
    """Whether a file's name says that it is a video."""
    return path.lower().endswith(tuple(CLIP_SUFFIXES))
