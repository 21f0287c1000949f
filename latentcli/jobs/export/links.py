"""Lays pictures and captions where a trainer looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentcli.core.errors import UsageError
from latentcli.exports.format import ExportFormat, ExportSample, File
from latentcli.shards.storage.atomic_write import writing


def check_links(format: ExportFormat, packed: bool) -> None:
    """UsageError where there are no pictures to link to, or no place for them."""
    if not format.pictures:
        raise UsageError(
            f"The trainers that read {format.name} need no pictures: leave out --link-images."
        )
    if packed:
        raise UsageError(
            "--link-images needs pictures that are files, and these are in tars or tables."
        )


def lay(samples: Sequence[ExportSample], format: ExportFormat, folder: Path) -> list[File]:
    """Links each picture, and gives the captions as files to write.

    A link that is there and leads elsewhere is replaced; a file is not. UsageError where a picture
    is gone, or a file is in the way.
    """
    captions: list[File] = []
    for sample in samples:
        picture = Path(sample.picture)
        place = f"{format.pictures}/{sample.name}".removeprefix("./")
        link(folder / f"{place}{picture.suffix}", picture)
        if sample.caption:
            captions.append(File(f"{place}.txt", sample.caption.encode()))
    return captions


def link(path: Path, picture: Path) -> None:
    """A symbolic link to a picture."""
    if not picture.is_file():
        raise UsageError(f"The picture {picture} is no longer there, so it cannot be linked to.")
    if path.exists() and path.samefile(picture):
        return
    if path.exists() and not path.is_symlink():
        raise UsageError(f"{path} is in the way: it is no link to {picture}. Move it.")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(picture.resolve())
