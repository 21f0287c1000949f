"""Resolves the paths of files that a table names, and keeps them inside a folder."""

from __future__ import annotations

import posixpath

from latentcli.core.errors import SampleError
from latentcli.shards.storage.paths import is_remote


def path_inside(text: str, folder: str, root: str | None = None) -> str:
    """The path or URL of a file that a table in `folder` names; `folder` and `root` are absolute.

    A relative path begins in the root, or where that would leave it, in the folder; without a root
    the folder is the root. Parts that are `..` count by their names: no link is followed for them.
    SampleError of stage read where the file is outside the root: who made the table may not be
    who runs the job.
    """
    root = folder if root is None else root
    for start in (root, folder):
        found = _joined(start, text)
        if found is not None and _below(found, root):
            return found
    raise SampleError(
        "read",
        f"the path {text[:200]!r} leads out of {root}; --image-root names the folder that must"
        " contain the files of a table",
    )


def _joined(start: str, text: str) -> str | None:
    """A path as seen from a folder; None where it belongs to another storage."""
    if is_remote(text):
        scheme, _, path = text.partition("://")
        return f"{scheme}://{posixpath.normpath(path)}"
    if not is_remote(start):
        return posixpath.normpath(posixpath.join(start, text))
    if text.startswith("/"):
        return None
    scheme, _, path = start.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, text))}"


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder if folder.endswith("/") else f"{folder}/")
