"""Says why no store can be made at a path."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from latentcli.core.errors import NoPlaceForStore, StoreError
from latentcli.core.near_names import store_of_that_name
from latentcli.shards.layout import MANIFEST
from latentcli.shards.storage.atomic_write import NO_ROOM, refusal, write_error
from latentcli.shards.storage.paths import AnyPath

OTHER = "Choose another output folder (-o)."


def is_a_file(store: AnyPath) -> NoPlaceForStore:
    """What is told where a file has the name of a store."""
    return NoPlaceForStore(f"{store} is a file: a latent store is a folder. {OTHER}")


def not_a_store(folder: AnyPath) -> StoreError:
    """What is told where a folder that is there is not the one of a store."""
    near = store_of_that_name(folder, MANIFEST) if isinstance(folder, Path) else ""
    return StoreError(
        f"{folder} is not a latent store: it has no {MANIFEST}{near}. Name the folder that"
        " latentcli encode wrote."
    )


def check_place(store: Path) -> None:
    """NoPlaceForStore where the path leads through a file."""
    above = nearest(store)
    if not above.is_dir():
        raise NoPlaceForStore(
            f"{store} cannot be made: {above} is a file and not a folder. {OTHER}"
        )


def no_place(store: Path, error: OSError) -> StoreError:
    """What is told where the system refuses to make the folder of a store, or its first file."""
    if error.errno in NO_ROOM:  # there may be room later
        return write_error(store, error)
    above = nearest(store)
    why = refusal(error)
    if error.errno == errno.ENOENT:  # as of /proc
        why = "its file system takes no new folders"
    what = f"{store} cannot be made in the folder {above}"
    if above == store:
        what = f"The folder {store} cannot become a store"
    return NoPlaceForStore(f"{what}: {why}. {OTHER}")


def nearest(path: Path) -> Path:
    """The path, or the first folder above it, that is there as far as this process can see."""
    # Unlike Path.exists, this does not raise where a folder may not be searched.
    return next((p for p in (path, *path.parents) if os.access(p, os.F_OK)), Path())
