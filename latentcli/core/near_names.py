"""Finds the name that a mistyped one is likely to mean, among those that are allowed or there."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from errno import ENOENT
from glob import escape
from itertools import islice
from pathlib import Path

from latentcli.core.errors import NoSuchStore, NoSuchWeights, UsageError

MOST_NAMES = 5000
"""Names of a folder that are compared: more would take longer than a person waits for a message."""


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that is most like another one; None where none is like it."""
    return next(iter(difflib.get_close_matches(name, list(allowed), n=1)), None)


def suggestion(name: str, allowed: Iterable[str], prefix: str = "") -> str:
    """' (did you mean ...?)' or nothing; a prefix that all names have makes none of them alike."""
    bare = [one.removeprefix(prefix) for one in allowed]
    near = nearest(name.removeprefix(prefix), bare)
    return f" (did you mean {prefix + near!r}?)" if near else ""


def near_path(path: str | Path) -> str:
    """' (did you mean ...?)' with the path that is there and is most like one that is not.

    The first part that is missing is compared with what its folder holds. Nothing for a URL, and
    for what is there but of another kind.
    """
    if "://" in str(path) or os.path.lexists(path):
        return ""
    path = missing = Path(path)
    while not os.path.lexists(missing.parent):
        missing = missing.parent
    try:
        with os.scandir(missing.parent) as entries:
            names = [entry.name for entry in islice(entries, MOST_NAMES)]
    except OSError:
        return ""
    near = nearest(missing.name, names)
    if near is None:
        return ""
    there = missing.with_name(near) / path.relative_to(missing)
    return f" (did you mean {str(there)!r}?)" if os.path.lexists(there) else ""


def store_of_that_name(path: str | Path, manifest: str) -> str:
    """' (did you mean ...?)' with a store, a folder with a `manifest`, for one that is none.

    It is the store that a folder lies in, or one that encode made of it, here or beside it.
    """
    path = Path(path)
    made = (
        one for folder in (Path(), path.parent) for one in folder.glob(f"{escape(path.name)}.*")
    )
    for store in (path.parent, *sorted(islice(made, MOST_NAMES), key=lambda one: len(one.name))):
        if (store / manifest).is_file():
            return f" (did you mean {str(store)!r}?)"
    return ""


def missing_store(path: object) -> NoSuchStore:
    """The error for a store's folder that is not there, or is a file."""
    # Not by Path, which raises where a name is too long for the file system.
    is_file = os.path.isfile(str(path))  # noqa: PTH113
    found = "it is a file" if is_file else "there is no such folder"
    return NoSuchStore(
        f"{path} is not a latent store: {found}{near_path(str(path))}. Name the"
        " folder that latentcli encode wrote."
    )


def missing_source(source: str) -> UsageError:
    """The error for a source that is not there."""
    return UsageError(
        f"{source} does not exist{near_path(source)}. A source is a folder, a file, a quoted glob"
        " or brace list, a URL of one of these, or @list.txt with one path per line."
    )


def empty_source(folder: object) -> UsageError:
    """The error for a folder without a single file."""
    return UsageError(f"{folder} holds no inputs: it is empty.")


def missing_list(name: str) -> UsageError:
    """The error for a list of sources that is not there."""
    return UsageError(f"the list {name} cannot be read: {os.strerror(ENOENT)}{near_path(name)}.")


def missing_latents(path: object, others: str) -> NoSuchStore:
    """The error for latents that are not there; `others` is what may be named but for a store."""
    return NoSuchStore(
        f"There is no {path}{near_path(str(path))}: name a store folder, one of its shards,"
        f" {others}."
    )


def missing_features(path: object) -> UsageError:
    """The error for a file of features that is not there."""
    return UsageError(
        f"There is no file {path}{near_path(str(path))}; latentcli video-embed makes one."
    )


def missing_weights(path: object) -> NoSuchWeights:
    """The error for weights that are not there."""
    return NoSuchWeights(
        f"There are no weights at {path}: no such file or folder{near_path(str(path))}."
    )
