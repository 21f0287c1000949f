"""Finds the inputs of sources, and whether they are pictures, clips, or tars of one of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from latentcli.core.errors import UsageError
from latentcli.core.fields import AUTO, CaptionRule
from latentcli.images.clips import CLIP_SUFFIXES, load_av
from latentcli.images.formats import picture_by_bytes, readable_suffixes
from latentcli.jobs.loader.left_out import UNREAD, left_out_notes
from latentcli.jobs.loader.readers import READERS, kind_of, packed_suffixes
from latentcli.jobs.loader.table_reader import is_cache, is_of_pictures
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.settings.images import ImageIntake
from latentcli.shards.sources.beside import Beside
from latentcli.shards.sources.expand import LIST
from latentcli.shards.sources.file_list import FoundInputs, Source
from latentcli.shards.sources.find_inputs import expand_sources, inputs_of
from latentcli.shards.sources.left_out import NO_SUFFIX, LeftOut, suffix_of
from latentcli.shards.sources.metadata_formats import METADATA
from latentcli.shards.sources.patterns import Patterns
from latentcli.shards.sources.scan import Scan

ANIMATED = frozenset((".gif", ".apng"))
"""Pictures that may move: clips where clips are asked for. FFmpeg reads no moving WebP."""
IMAGE_SUFFIXES = readable_suffixes()
"""Of the pictures that can be read here, with the extras that are installed."""
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
    """Video files, tars and tables among the pictures, and such, which are no inputs."""
    kind: str = "files"
    """What reads them, of READERS."""
    left_out_by: Mapping[str, int] = field(default_factory=dict)
    """All that the sources hold and that is no input: counts by suffix, or by a reason of
    `shards/sources/left_out.py:REASONS`."""

    @property
    def packed(self) -> bool:
        """Whether each input, such as a tar, holds many samples and is a unit."""
        return READERS[self.kind].packed


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the files that the sources mean are wanted; the fields are those of ImageIntake."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    null: bool = False
    include_output: bool = False
    texts: CaptionRule | None = AUTO
    """What belongs to the inputs, and so is not left out."""


def media_of(
    job: ImageIntake,
    reporter: Reporter,
    allow_pipe: bool = False,
    texts: CaptionRule | None = AUTO,
) -> FoundMedia:
    """The inputs of a job, as `find_media`; `texts` is what belongs to them."""
    choice = Choice(job.include, job.exclude, job.limit, job.null, job.include_output, texts)
    return find_media(job.sources, job.media, reporter, allow_pipe, choice)


def find_media(
    sources: Sequence[str],
    media: str,
    reporter: Reporter = SILENT,
    allow_pipe: bool = False,
    choice: Choice | None = None,
) -> FoundMedia:
    """Inputs of the sources; `media` is images, clips, or auto: clips where all are video files.

    Sources that are tars alone (or pipe:COMMAND) are tars, of images unless clips are asked for. So
    are tables; beside tars they are left out with a note: READERS has the order. What else lies in
    folders of pictures or clips is passed over with a note: tars, tables, and with auto video
    files. It is refused where it is named itself. Files whose names do not say what they are
    are inputs where their first bytes are those of a picture. What belongs to an input, such as its
    caption, does not count as left out. UsageError as `find_inputs`, and for clips without PyAV.
    """
    choice = choice or Choice()
    if choice.null and not any(source.startswith(LIST) for source in sources):
        raise UsageError("--null (-0) says how lists end their names; name one: @list.txt or @-.")
    scan = scan_of(media, choice, allow_pipe)
    reporter.status("Looking for inputs")
    expanded = expand_sources(sources, scan)
    if not any(len(source.files) for source in expanded):
        raise UsageError(
            f"--include and --exclude leave none of {scan.left_out.counts['excluded']:,} files."
        )
    untold = scan.left_out.counts.copy()
    found = _found(expanded, media, scan.left_out, reporter)
    if not found.packed:
        untold -= scan.left_out.take_back(found.inputs.files.paths)
    whole = len(found.inputs)
    if choice.limit is not None and choice.limit < whole:
        scan.left_out.add("over_limit", number=whole - choice.limit)
        found = replace(found, inputs=found.inputs.first(choice.limit))
    for note in left_out_notes(scan, untold, whole):
        reporter.note(note)
    return replace(found, left_out_by=scan.left_out.to_json())


def scan_of(media: str, choice: Choice, allow_pipe: bool = False) -> Scan:
    """What a job takes of its sources."""
    clips = media == "clips"
    return Scan(
        SUFFIXES[media] | packed_suffixes(),
        told=None if clips else picture_by_bytes,
        unread={} if clips else UNREAD,
        patterns=Patterns(choice.include, choice.exclude),
        include_output=choice.include_output,
        null=choice.null,
        allow_pipe=allow_pipe,
        left_out=LeftOut(beside=Beside.of(choice.texts, METADATA)),
    )


def _found(
    expanded: Sequence[Source], media: str, left_out: LeftOut, reporter: Reporter
) -> FoundMedia:
    """The inputs among all files of the sources."""
    kinds = _kinds(expanded)
    if "arrow" in kinds:
        expanded = _without_caches(expanded, left_out, reporter)
        kinds = _kinds(expanded)
    if "jsonl" in kinds and "files" in kinds:
        expanded = _chosen(expanded, lambda path: not is_of_pictures(path), left_out, named=True)
        kinds = _kinds(expanded)
    packed = [kind for kind, reader in READERS.items() if reader.packed and kind in kinds]
    taken = packed.pop(0) if "files" not in kinds else None
    before = left_out.counts.total()
    for kind in packed:
        expanded = _without(kind, expanded, left_out, reporter)
    count = left_out.counts.total() - before
    if taken is not None:
        holds = "clips" if media == "clips" else "images"
        if holds == "clips":
            load_av("read")
        return FoundMedia(inputs_of(expanded, packed=True), holds, count, taken)
    found = _pictures_or_clips(expanded, media, left_out, reporter)
    return replace(found, left_out=found.left_out + count)


def _kinds(expanded: Sequence[Source]) -> Counter[str]:
    return Counter(kind_of(path) for source in expanded for path in source.files.paths)


def _without_caches(
    expanded: Sequence[Source], left_out: LeftOut, reporter: Reporter
) -> list[Source]:
    """The sources without what the `datasets` library left beside its data."""
    caches = {
        path
        for source in expanded
        for path in source.files.paths
        if not source.named and is_cache(path)
    }
    if not caches:
        return list(expanded)
    reporter.note(
        f"{len(caches):,} {'cache' if len(caches) == 1 else 'caches'} of the datasets library left"
        f" out: {_some(caches)}."
    )
    rest = _chosen(expanded, lambda path: not is_cache(path), left_out, named=True)
    if not rest:
        raise UsageError(f"{expanded[0].text} holds nothing but caches of the datasets library.")
    return rest


def _without(
    kind: str, expanded: Sequence[Source], left_out: LeftOut, reporter: Reporter
) -> list[Source]:
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
    names = {path for source in expanded for path in source.files.paths if is_packed(path)}
    folder, count = min(names).rpartition("/")[0], len(names)
    reporter.note(
        f"{count:,} {noun}{' is' if count == 1 else 's are'} left out of what the folders hold:"
        f" {_some(names)}. To encode the samples in {noun}s, name them:"
        f" '{folder}/*{ending}'."
    )
    return _chosen(expanded, lambda path: not is_packed(path), left_out)


def _pictures_or_clips(
    expanded: Sequence[Source], media: str, left_out: LeftOut, reporter: Reporter
) -> FoundMedia:
    if media == "images":
        return FoundMedia(inputs_of(expanded), media)
    clips = {path for source in expanded for path in source.files.paths if is_clip(path)}
    if media == "clips" or all(is_clip(path) for source in expanded for path in source.files.paths):
        load_av("read")
        return FoundMedia(inputs_of(expanded), "clips")
    named = [source for source in expanded if source.named and is_clip(source.text)]
    if named:
        raise UsageError(
            f"{named[0].text} is a video file, named together with pictures; a job takes one or the"
            " other. Leave it out, or say --media clips or --media images."
        )
    found = inputs_of(_chosen(expanded, lambda path: not is_clip(path), left_out))
    if not clips:
        return FoundMedia(found, "images")
    count = len(clips)
    reporter.note(
        f"{count:,} video {'file' if count == 1 else 'files'} among the pictures"
        f" {'is' if count == 1 else 'are'} left out: {_some(clips)}. --media clips takes those."
    )
    return FoundMedia(found, "images", count)


def _chosen(
    expanded: Sequence[Source],
    wanted: Callable[[str], bool],
    left_out: LeftOut,
    named: bool = False,
) -> list[Source]:
    """The sources with only the files that are wanted; those that have none are gone.

    With `named`, what was named itself is wanted. The others are counted by suffix.
    """
    searched = (source for source in expanded if not (named and source.named))
    for path in {path for source in searched for path in source.files.paths if not wanted(path)}:
        left_out.add_file(suffix_of(path.rpartition("/")[2]) or NO_SUFFIX, path)
    chosen = (
        source if named and source.named else replace(source, files=source.files.where(wanted))
        for source in expanded
    )
    return [source for source in chosen if len(source.files)]


def _some(names: Set[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more


def check_clip_options(job: ImageIntake, media: str) -> None:
    """UsageError where what is for clips is asked of pictures."""
    if media == "images" and (job.stride != 1 or job.frames is not None):
        option = "--stride" if job.stride != 1 else "--frames"
        raise UsageError(f"{option} is for clips, and the sources are pictures; leave it out.")


def is_clip(path: str) -> bool:
    """Whether a file's name says that it is a video."""
    return path.lower().endswith(tuple(CLIP_SUFFIXES))
