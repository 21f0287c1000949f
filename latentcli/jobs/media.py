"""Sources as a user names them in; the inputs, and whether they are pictures or clips, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentcli.core.errors import UsageError
from latentcli.images.clips import CLIP_SUFFIXES, load_av
from latentcli.images.codec import IMAGE_SUFFIXES
from latentcli.jobs.config import ImageIntake
from latentcli.jobs.talk import SILENT, Talk
from latentcli.shards.plan import FoundInput, find_inputs

ANIMATED = frozenset((".gif", ".apng"))
"""Pictures that may move: clips where clips are asked for. FFmpeg reads no moving WebP."""
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
    left_out: int = 0
    """Video files among the pictures, which are no inputs."""


def find_media(sources: Sequence[str], media: str, talk: Talk = SILENT) -> Found:
    """Inputs of the sources; `media` is images, clips, or auto: clips where all are video files.

    With auto, video files among pictures are passed over with a note, or refused where they are
    named themselves. UsageError as `find_inputs`, and for clips without PyAV.
    """
    found = find_inputs(sources, SUFFIXES[media])
    if media == "images":
        return Found(found, media)
    clips = [item for item in found if is_clip(item.path)]
    if media == "clips" or len(clips) == len(found):
        load_av("read")
        return Found(found, "clips")
    named = [source for source in sources if is_clip(source) and Path(source).is_file()]
    if named:
        raise UsageError(
            f"{named[0]} is a video file, named together with pictures; a job takes one or the"
            " other. Leave it out, or say --media clips or --media images."
        )
    if clips:
        names = ", ".join(item.path for item in clips[:SHOWN])
        more = f" and {len(clips) - SHOWN:,} more" if len(clips) > SHOWN else ""
        talk.note(
            f"{len(clips):,} video {'file' if len(clips) == 1 else 'files'} among the pictures"
            f" {'is' if len(clips) == 1 else 'are'} left out: {names}{more}. --media clips takes"
            " those."
        )
    return Found([item for item in found if not is_clip(item.path)], "images", len(clips))


def check_clip_options(job: ImageIntake, media: str) -> None:
    """UsageError where what is for clips is asked of pictures."""
    if media == "images" and (job.stride != 1 or job.frames is not None):
        option = "--stride" if job.stride != 1 else "--frames"
        raise UsageError(f"{option} is for clips, and the sources are pictures; leave it out.")


def is_clip(path: str) -> bool:
    """Whether a file's name says that it is a video."""
    return path.lower().endswith(tuple(CLIP_SUFFIXES))
