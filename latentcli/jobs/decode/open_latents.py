"""Opens what `decode` can read: a store, a shard, a safetensors file, or another tool's latents."""

from __future__ import annotations

from latentcli.core.near_names import missing_latents
from latentcli.jobs.decode.from_foreign import open_foreign_latents
from latentcli.jobs.decode.from_store import open_store_latents
from latentcli.jobs.decode.from_tensors import open_tensors
from latentcli.jobs.decode.latents import LatentSource
from latentcli.jobs.runtime.given_names import DECODED
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.file import SafetensorsFile


def open_latents(path: AnyPath, state: str | None, *, closely: bool = True) -> LatentSource:
    """The source; `state` is for files that do not say it, `closely` as `open_store_latents`.

    StoreError where there is nothing.
    """
    if not path.exists():
        raise missing_latents(path, DECODED)
    if path.suffix != ".tar":
        foreign = open_foreign_latents(path, state)
        if foreign is not None:
            return foreign
    if path.is_file() and path.suffix != ".tar":
        file = SafetensorsFile(path)
        if file.metadata.get("format") != "latentcli":
            return open_tensors(file, state or "whitened")
    return open_store_latents(path, closely=closely)
