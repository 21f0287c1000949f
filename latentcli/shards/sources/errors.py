"""Says why a source gives no inputs."""

from __future__ import annotations

from collections.abc import Mapping

from latentcli.core.errors import UsageError
from latentcli.shards.sources.left_out import in_words
from latentcli.shards.sources.scan import Scan


def no_match(source: str, matched: int, scan: Scan, before: Mapping[str, int]) -> UsageError:
    """What to say of a glob that gives no input; `before` is what was left out before it."""
    return UsageError(
        f"{source} matches {matched or 'no'} files and no input among them: looked for"
        f" {_names_of(scan)}{_found(scan, before)}."
    )


def no_inputs(folder: str, scan: Scan, before: Mapping[str, int]) -> UsageError:
    """What to say of a folder that gives no input; `before` is what was left out before it."""
    found = _found(scan, before) or "; it is empty"
    return UsageError(
        f"{folder} holds no inputs: looked for {_names_of(scan)} in it and in the folders"
        f" below{found}."
    )


def is_a_store(folder: str) -> UsageError:
    """What to say of a latent store that is named as a source."""
    return UsageError(
        f"{folder} is a latent store, which is decoded and not encoded: name the pictures that it"
        " was made of, or see latentcli decode --help."
    )


def _names_of(scan: Scan) -> str:
    """What was looked for, in words."""
    return "files ending in " + ", ".join(sorted(scan.suffixes))


def _found(scan: Scan, before: Mapping[str, int]) -> str:
    """What was left out of one source, in words."""
    counts = scan.left_out.counts
    since = {reason: counts[reason] - before.get(reason, 0) for reason in counts}
    words = in_words({reason: n for reason, n in since.items() if n}, scan.unread)
    return f"; what is there: {words}" if words else ""
