"""Says why a source gives no inputs."""

from __future__ import annotations

from collections.abc import Mapping

from latentcli.core.errors import UsageError
from latentcli.core.near_names import empty_source
from latentcli.shards.sources.left_out import in_words
from latentcli.shards.sources.scan import Scan

SHOWN = 12
"""Suffixes that are all named."""
KNOWN = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".avif", ".mp4", ".tar"))
"""Suffixes that are named of more."""


def no_match(source: str, matched: int, scan: Scan, before: Mapping[str, int]) -> UsageError:
    """What to say of a glob that gives no input; `before` is what was left out before it."""
    files = "1 file" if matched == 1 else f"{matched or 'no'} files"
    but = {0: "", 1: ", which is not an input"}.get(matched, ", and none of them is an input")
    return UsageError(
        f"{source} matches {files}{but}: looked for {_names_of(scan)}{_found(scan, before)}."
    )


def no_inputs(folder: str, scan: Scan, before: Mapping[str, int]) -> UsageError:
    """What to say of a folder that gives no input; `before` is what was left out before it."""
    found = _found(scan, before)
    if not found:
        return empty_source(folder)
    return UsageError(
        f"{folder} holds no inputs: looked for {_names_of(scan)} in it and in its"
        f" subfolders{found}."
    )


def is_a_store(folder: str) -> UsageError:
    """What to say of a latent store that is named as a source."""
    return UsageError(
        f"{folder} is a latent store, which is decoded and not encoded: name the pictures that it"
        " was made of, or see latentcli decode --help."
    )


def _names_of(scan: Scan) -> str:
    """What was looked for, in words: of very many suffixes those that people know."""
    named = sorted(scan.suffixes)
    if len(named) > SHOWN:
        named = sorted(scan.suffixes & KNOWN)
    more = len(scan.suffixes) - len(named)
    rest = f" or one of {more} others (docs/guides/pictures.md)" if more else ""
    return f"files ending in {', '.join(named)}{rest}"


def _found(scan: Scan, before: Mapping[str, int]) -> str:
    """What was left out of one source, in words."""
    counts = scan.left_out.counts
    since = {reason: counts[reason] - before.get(reason, 0) for reason in counts}
    words = in_words({reason: n for reason, n in since.items() if n}, scan.unread)
    return f"; found: {words}" if words else ""
