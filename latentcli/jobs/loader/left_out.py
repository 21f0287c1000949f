"""Tells what the sources hold and a job does not take, and what would bring it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from latentcli.images.formats import EXTRAS, FORMATS, PictureFormat
from latentcli.shards.sources.left_out import in_words
from latentcli.shards.sources.scan import Scan


def advice(format: PictureFormat) -> str:
    """What to do about pictures of a format that is not read here."""
    if format.reader in EXTRAS:
        return f"pip install 'latentcli[{format.reader}]' reads them"
    return "pictures of a format that is not supported"


UNREAD: Mapping[str, str] = {
    suffix: advice(row) for row in FORMATS if not row.is_read for suffix in row.suffixes
}
"""Suffixes of pictures that cannot be read here, with what to do about it."""
TOLD_APART = ("unreadable_folders", "over_limit")
"""Reasons that have a note of their own."""


def left_out_words(counts: Mapping[str, int], *, advice: bool = False) -> str:
    """What was left out, by a document's `left_out_by`; empty where nothing was."""
    return in_words(counts, UNREAD, advice=advice)


def left_out_notes(scan: Scan, counts: Mapping[str, int], inputs: int) -> Iterator[str]:
    """What to say of a scan that found so many inputs, however many of them are taken.

    `counts` are those of `scan.left_out` that were not told yet.
    """
    left_out = scan.left_out
    untold = {reason: counts[reason] for reason in counts if reason not in TOLD_APART}
    if untold:
        yield f"Not taken as inputs: {left_out_words(untold, advice=True)}."
    if folders := left_out.counts["unreadable_folders"]:
        named = ", ".join(left_out.examples["unreadable_folders"])
        yield (
            f"{folders:,} {'folder' if folders == 1 else 'folders'} cannot be listed by this user,"
            f" so it is not known what is in there: {named}{' and others' if folders > 3 else ''}."
        )
    if left_out.unopened:
        yield (
            f"{left_out.unopened:,} files without the suffix of a picture were not opened: a"
            " sample of them held no picture. Name them in @list.txt to take them."
        )
    if beyond := left_out.counts["over_limit"]:
        yield f"--limit takes the first {inputs - beyond:,} of {inputs:,} inputs."
    for pattern in scan.patterns.unmet():
        yield f"{pattern} matches nothing in the sources."
