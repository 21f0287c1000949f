"""Finds the inputs of sources, and whether they are pictures, clips, or tars of one of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from latentcli.core.errors import UsageError
from latentcli.images.clips import CLIP_SUFFIXES, load_av
from latentcli.images.codec import IMAGE_SUFFIXES
from latentcli.jobs.loader.readers import READERS, kind_of, packed_suffixes
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.settings import ImageIntake
from latentcli.shards.sources.file_list import FoundInputs, Source
from latentcli.shards.sources.find_inputs import expand_sources, inputs_of

ANIMATED = frozenset((".gif", ".apng"))
"""Pictures that may move: clips where clips are asked for. FFmpeg reads no moving WebP."""
SUFFIXES = {
    "auto": IMAGE_SUFFIXES | CLIP_SUFFIXES,
    "images": IMAGE_SUFFIXES,
    "clips": CLIP_SUFFIXES | ANIMATED,
}
PER_SHARD = {"images": 1000, "clips": 16}
"""Inputs of a shard, unless the user says otherwise. Of tars, each is a shard."""
SHOWN = 3
"""Names in a message."""


@dataclass(frozen=True, slots=True)
class FoundMedia:
    """The inputs of a job."""

    inputs: FoundInputs
    media: str
    """images or clips; of tars, what their samples hold."""
    left_out: int = 0
    """Video files and tars among the pictures, or tars among the clips, which are no inputs."""
    kind: str = "files"
    """What reads them, of READERS."""

    @property
    def packed(self) -> bool:
        """Whether each input, such as a tar, holds many samples and is a unit."""
        return READERS[self.kind].packed


def find_media(
    sources: Sequence[str], media: str, reporter: Reporter = SILENT, allow_pipe: bool = False
) -> FoundMedia:
    """Inputs of the sources; `media` is images, clips, or auto: clips where all are video files.

    Sources that are tars alone (or pipe:COMMAND) are tars, of images unless clips are asked for.
    What else lies in folders of pictures or clips is passed over with a note: tars, and with auto
    video files. It is refused where it is named itself. UsageError as `find_inputs`, and for clips
    without PyAV.
    """
    reporter.status("Looking for inputs")
    expanded = expand_sources(sources, SUFFIXES[media] | packed_suffixes(), allow_pipe=allow_pipe)
    kinds = Counter(kind_of(path) for source in expanded for path in source.files.paths)
    packed = [kind for kind in kinds if READERS[kind].packed]
    if len(kinds) == 1 and packed:
        holds = "clips" if media == "clips" else "images"
        if holds == "clips":
            load_av("read")
        return FoundMedia(inputs_of(expanded, packed=True), holds, kind=packed[0])
    left_out = 0
    for kind in packed:
        expanded = _without(kind, expanded, kinds[kind], reporter)
        left_out += kinds[kind]
    found = _pictures_or_clips(expanded, media, reporter)
    return replace(found, left_out=found.left_out + left_out)


def _without(kind: str, expanded: Sequence[Source], count: int, reporter: Reporter) -> list[Source]:
    """The sources without the packed inputs of a kind that lie in their folders."""
    noun, ending = READERS[kind].noun, READERS[kind].endings[-1]

    def is_packed(path: str) -> bool:
        return kind_of(path) == kind

    for source in expanded:
        first = next(filter(is_packed, source.files.paths), None)
        if first is not None and (source.named or all(map(is_packed, source.files.paths))):
            if not source.named and not is_packed(source.text):
                continue
            raise UsageError(
                f"{first} is a {noun} of samples, named together with other files; a job takes one"
                " or the other. Leave it out, or run a job of its own for it."
            )
    names = [path for source in expanded for path in source.files.paths if is_packed(path)]
    folder = names[0].rpartition("/")[0]
    reporter.note(
        f"{count:,} {noun}{' is' if count == 1 else 's are'} left out of what the folders hold:"
        f" {_some(names)}. To encode the samples in {noun}s, name them:"
        f" '{folder}/*{ending}'."
    )
    return _chosen(expanded, lambda path: not is_packed(path))


def _pictures_or_clips(expanded: Sequence[Source], media: str, reporter: Reporter) -> FoundMedia:
    if media == "images":
        return FoundMedia(inputs_of(expanded), media)
    clips = [path for source in expanded for path in source.files.paths if is_clip(path)]
    if media == "clips" or len(clips) == sum(len(source.files) for source in expanded):
        load_av("read")
        return FoundMedia(inputs_of(expanded), "clips")
    named = [source for source in expanded if source.named and is_clip(source.text)]
    if named:
        raise UsageError(
            f"{named[0].text} is a video file, named together with pictures; a job takes one or the"
            " other. Leave it out, or say --media clips or --media images."
        )
    found = inputs_of(_chosen(expanded, lambda path: not is_clip(path)))
    if not clips:
        return FoundMedia(found, "images")
    count = len(set(clips))
    reporter.note(
        f"{count:,} video {'file' if count == 1 else 'files'} among the pictures"
        f" {'is' if count == 1 else 'are'} left out: {_some(clips)}. --media clips takes those."
    )
    return FoundMedia(found, "images", count)


def _chosen(expanded: Sequence[Source], wanted: Callable[[str], bool]) -> list[Source]:
    """The sources with only the files that are wanted; those that have none are gone."""
    chosen = (replace(source, files=source.files.where(wanted)) for source in expanded)
    return [source for source in chosen if len(source.files)]


def _some(names: Sequence[str]) -> str:
    names = sorted(set(names))
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def check_clip_options(job: ImageIntake, media: str) -> None:
    """UsageError where what is for clips is asked of pictures."""
    if media == "images" and (job.stride != 1 or job.frames is not None):
        option = "--stride" if job.stride != 1 else "--frames"
        raise UsageError(f"{option} is for clips, and the sources are pictures; leave it out.")


def is_clip(path: str) -> bool:
    """Whether a file's name says that it is a video."""
    return path.lower().endswith(tuple(CLIP_SUFFIXES))
