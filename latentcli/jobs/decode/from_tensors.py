"""Reads latents to decode from a safetensors file of plain tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from torch import Tensor

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.decode.latents import LatentSample, LatentSource
from latentcli.shards.tensors.file import SafetensorsFile


def open_tensors(file: SafetensorsFile, state: str) -> LatentSource:
    """Every tensor [C, h, w] of a file is a latent, and every [N, C, h, w] is N of them."""
    if state == "moments":
        raise UsageError(
            "--latents moments needs a shard of a store: another file does not say which tensors"
            " are means."
        )
    ranks = {name: len(entry.shape) for name, entry in file.entries.items()}
    wrong = [name for name, rank in ranks.items() if rank not in (3, 4)]
    if wrong or not ranks:
        found = ", ".join(f"{n} {list(file.entries[n].shape)}" for n in wrong[:3]) or "no tensor"
        raise StoreError(
            f"{file.path} is not a file of latents: it has {found}; tensors must be [C, h, w] or"
            " [N, C, h, w]."
        )
    counts = {name: file.entries[name].shape[0] for name, rank in ranks.items() if rank == 4}

    def samples(units: Iterable[int]) -> Iterator[LatentSample]:
        for name in (name for _ in units for name in ranks):
            # Of no latents at all the tensor itself is the one that fails.
            if not counts.get(name):
                yield LatentSample(name, partial(file.tensor, name))
            for i in range(counts.get(name, 0)):
                yield LatentSample(f"{name}_{i:05d}", partial(item_of, file, name, i))

    count = sum(counts.get(name) or 1 for name in ranks)
    return LatentSource(file.path, count, state, None, None, None, samples)


def item_of(file: SafetensorsFile, name: str, index: int) -> Tensor:
    """One latent [C, h, w] of a tensor [N, C, h, w]."""
    return file.tensor(name)[index]
