"""Reads latents to decode from a file of another tool, or from a folder of such files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from latentcli.jobs.decode.latents import LatentSample, LatentSource
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.foreign.ai_toolkit import FOLDER
from latentcli.shards.tensors.foreign.folder import ForeignFolder, below, open_foreign_folder
from latentcli.shards.tensors.foreign.formats import open_foreign
from latentcli.shards.tensors.foreign.latents import ForeignFile, ForeignLatent, named


def open_foreign_latents(path: AnyPath, state: str | None) -> LatentSource | None:
    """The latents of another tool's file or folder; None where it is neither. Errors as those."""
    if path.is_dir():
        folder = open_foreign_folder(path, state)
        return None if folder is None else source_of_folder(folder)
    opened = open_foreign(path, state)
    return None if opened is None else source_of_file(opened[1])


def source_of_file(file: ForeignFile) -> LatentSource:
    """One file, which one process reads."""

    def samples(units: Iterable[int]) -> Iterator[LatentSample]:
        for latent in (latent for _ in units for latent in file.latents):
            yield sample_of(named(latent, file.path), file.path)

    count = len(file.latents)
    return LatentSource(file.path, count, file.state, None, file.space, None, samples)


def source_of_folder(folder: ForeignFolder) -> LatentSource:
    """A folder, whose blocks of files several processes share."""

    def samples(units: Iterable[int]) -> Iterator[LatentSample]:
        for index in (index for unit in units for index in folder.blocks[unit]):
            place = beside(folder.path, folder.names[index])
            yield from (sample_of(latent, place) for latent in folder.latents([index]))

    return LatentSource(
        *(folder.path, folder.count, folder.state, None, folder.space, None, samples),
        units=range(len(folder.blocks)),
    )


def beside(path: AnyPath, name: str) -> AnyPath:
    """A file beside the pictures: where ai-toolkit's own folder is left out."""
    parts = [part for part in PurePosixPath(name).parts if part != FOLDER]
    return below(path, str(PurePosixPath(*parts)))


def sample_of(latent: ForeignLatent, place: AnyPath) -> LatentSample:
    """A latent to decode; no picture in the folder of `place` is ever replaced by its own."""
    return LatentSample(latent.key, latent.load, str(place), latent.others)
