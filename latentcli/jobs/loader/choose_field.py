"""Chooses which members of a sample are encoded: its picture or clip, or every one of them.

A field without a dot (0001.jpg) is what a sample is about, and the others are beside it
(0001.mask.png). Where that does not settle it, nothing is guessed: a depth map or a mask among the
latents would be noticed by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from latentcli.core.errors import SampleError
from latentcli.core.first_bytes import is_text
from latentcli.core.types import Member
from latentcli.images.clips import CLIP_SUFFIXES
from latentcli.images.formats import EXTRAS, FORMATS, IMAGE_SUFFIXES, format_of, picture_by_bytes
from latentcli.jobs.settings.images import ALL_FIELDS

SHOWN = 4
"""Fields in a message."""
PICTURES = frozenset(suffix for row in FORMATS for suffix in row.suffixes)
"""Suffixes of all pictures, those that cannot be read too."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What becomes of the members of one sample."""

    taken: tuple[Member, ...]
    """What is encoded; empty where the sample holds nothing of the kind."""
    others: tuple[Member, ...]
    """What goes along."""
    note: str = ""
    """Which was chosen among several, where the job did not say it."""


def are_images(suffixes: frozenset[str]) -> bool:
    """Whether these are suffixes of pictures, and not of clips."""
    return ".jpg" in suffixes


def known_suffixes(suffixes: frozenset[str]) -> frozenset[str]:
    """With those of pictures that cannot be read, which have their place in a sample too."""
    return suffixes | PICTURES if are_images(suffixes) else suffixes


def choose(members: Sequence[Member], suffixes: frozenset[str], wanted: str | None) -> Chosen:
    """What is encoded of a sample; `suffixes` are those of the media that the job takes.

    `wanted` is a field, a field without its suffix, ALL_FIELDS, or None where nobody said it.
    SampleError of stage read where it cannot be told, or is not there.
    """
    found = [member for member in members if is_media(member, suffixes)]
    meant = called(members, found, wanted) if wanted not in (None, ALL_FIELDS) else found
    taken = meant if wanted == ALL_FIELDS else one_of(meant)
    if not taken:
        check_missing(members, found, suffixes, wanted)
        return Chosen((), tuple(members))
    if len(taken) > 1 and wanted != ALL_FIELDS:
        kind = "pictures" if are_images(suffixes) else "clips"
        raise SampleError(
            "read",
            f"its sample has several {kind}, {names(taken)}: say with --image-field which one is"
            f" meant, or {ALL_FIELDS} for a latent of each",
        )
    beside = [member for member in found if member not in taken]
    note = f"field {names(taken)} taken, not {names(beside)}" if beside and wanted is None else ""
    others = (member for member in members if member not in taken)
    return Chosen(tuple(taken), tuple(others), note)


def is_media(member: Member, suffixes: frozenset[str]) -> bool:
    """Whether a member is a picture (or clip), by its field; of odd formats also by its bytes."""
    suffix = suffix_of(member)
    row = format_of(suffix) if are_images(suffixes) else None
    if suffix in suffixes or row is None:
        return suffix in suffixes
    return row.reader in EXTRAS or picture_by_bytes(member.data) is not None


def suffix_of(member: Member) -> str:
    """What follows the last dot of a field, or all of it, as a suffix."""
    return f".{member.field.rpartition('.')[2].lower()}"


def called(members: Iterable[Member], found: Iterable[Member], wanted: str | None) -> list[Member]:
    """The member with this field, or else the pictures whose field without its suffix it is."""
    exact = [member for member in members if member.field.lower() == wanted]
    return exact or [m for m in found if m.field.lower().rpartition(".")[0] == wanted]


def one_of(found: list[Member]) -> list[Member]:
    """The one without a dot in its field; all of them where that is none or several."""
    short = [member for member in found if "." not in member.field]
    return short if len(short) == 1 else found


def check_missing(
    members: Iterable[Member],
    found: Sequence[Member],
    suffixes: frozenset[str],
    wanted: str | None,
) -> None:
    """SampleError where a sample without what the job takes holds what somebody may have meant."""
    if found:
        reason = f"its sample has no field {wanted}, which --image-field names, only {names(found)}"
        raise SampleError("read", reason)
    reasons = (odd_one(member, are_images(suffixes)) for member in members)
    odd = next(filter(None, reasons), None)
    if odd is not None:
        raise SampleError("read", odd)


def odd_one(member: Member, images: bool) -> str | None:
    """Why a member that is not taken may be meant all the same; None for a text and the like."""
    suffix = suffix_of(member)
    if images and suffix in CLIP_SUFFIXES:
        return f"its sample holds a clip, {member.field}, and no picture: say --media clips"
    if not images and suffix in IMAGE_SUFFIXES:
        return f"its sample holds a picture, {member.field}, and no clip: say --media images"
    known = None if is_text(member.data[:64]) else picture_by_bytes(member.data)
    row = format_of(known or "")
    if not images or row is None:
        return None
    return (
        f"its member {member.field} holds a {row.name} picture, and is not named as one: say"
        f" --image-field {member.field}"
    )


def names(members: Sequence[Member]) -> str:
    """The fields of some members, for a sentence."""
    fields = [member.field for member in members]
    if len(fields) > SHOWN:
        return f"{', '.join(fields[:SHOWN])} and {len(fields) - SHOWN} more"
    *first, last = fields
    return f"{', '.join(first)} and {last}" if first else last
