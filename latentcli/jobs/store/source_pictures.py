"""Reads the pictures that samples of a store were made from, where they are at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from latentcli.core.errors import LatentCliError
from latentcli.core.types import Row
from latentcli.jobs.loader.readers import is_lasting
from latentcli.jobs.store.damaged_reader import ReadableStore
from latentcli.jobs.store.verify import pictures
from latentcli.shards.storage.paths import is_remote
from latentcli.shards.store.roots import Roots, read_roots


class Sources:
    """The pictures of a store's samples, read once more from this machine."""

    def __init__(self, store: ReadableStore) -> None:
        self._spec = store.manifest.spec if store.manifest else {}
        try:
            self._roots = read_roots(store.path) if store.manifest else Roots()
        except LatentCliError:  # the store's damage is told elsewhere; a report needs no sources
            self._spec, self._roots = {}, Roots()

    def pixels(self, row: Row) -> Tensor | None:
        """uint8 [3, H, W] as it was encoded; None where it is gone, changed, remote or a clip."""
        if "preprocess" not in self._spec or "clips" in self._spec:
            return None
        row = replace(row, source=self._roots.whole(row.source))
        if is_remote(row.source) or not is_lasting(row.source):
            return None
        if not Path(row.source).is_absolute():  # the store does not say where it lies
            return None
        try:
            ((now, pixels),) = pictures([row], self._spec)
        except (LatentCliError, OSError):
            return None
        if pixels is None or now.sha256 not in (None, row.sha256):
            return None
        return pixels[0]
