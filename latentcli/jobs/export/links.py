"""Lays pictures and captions where a trainer looks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentcli.core.errors import UsageError
from latentcli.core.types import Row
from latentcli.exports.format import ExportFormat, ExportSample, File
from latentcli.exports.names import stem
from latentcli.jobs.export.samples import name_of
from latentcli.shards.storage.atomic_write import writing


@dataclass(frozen=True, slots=True)
class Links:
    """Where the pictures of an export are linked to."""

    format: ExportFormat
    folder: Path
    """Of the export."""

    def place(self, name: str) -> str:
        """Where the picture of a name belongs, below the export's folder, without its suffix."""
        inside = stem(name) if self.format.flat else name
        return f"{self.format.pictures}/{inside}".removeprefix("./")

    def missing(self, rows: Sequence[Row], packed: bool) -> set[int]:
        """Rows whose pictures are not where the trainer looks, by their place in `rows`.

        UsageError where there are no pictures to link to, no place for them, or one is taken.
        """
        if not self.format.pictures:
            raise UsageError(
                f"The trainers that read {self.format.name} need no pictures: leave out"
                " --link-images."
            )
        if packed:
            raise UsageError(
                "--link-images needs pictures that are files, and these are in tars or tables."
            )
        found = set()
        for number, row in enumerate(rows):
            if "://" in row.source:
                raise UsageError(
                    f"--link-images needs pictures on this machine, and {row.source} is in remote"
                    " storage."
                )
            picture = Path(row.source)
            place = self.folder / f"{self.place(name_of(row, packed))}{picture.suffix}"
            if not is_laid(place, picture):
                found.add(number)
        return found

    def place_of(self, sample: ExportSample) -> str:
        """`place` of a sample, by its number where the trainer pairs by that."""
        if self.format.place is None:
            return self.place(sample.name)
        return f"{self.format.pictures}/{self.format.place(sample)}"

    def lay(self, samples: Sequence[ExportSample]) -> Iterator[File]:
        """Links each picture, and gives the captions as files to write.

        A trainer may refuse a caption file without words, so there is none of a blank caption.
        """
        for sample in samples:
            picture, place = Path(sample.picture), self.place_of(sample)
            link(self.folder / f"{place}{picture.suffix}", picture)
            if sample.caption.strip() and self.format.place is None:
                yield File(f"{place}.txt", sample.caption.encode())


def is_laid(path: Path, picture: Path) -> bool:
    """Whether the picture is at a path already, itself or by a link.

    A link that leads elsewhere is replaced; a file is not. UsageError where the picture is gone, or
    a file is in the way.
    """
    if not picture.is_file():
        raise UsageError(f"The picture {picture} is no longer there, so it cannot be linked to.")
    if path.exists() and path.samefile(picture):
        return True
    if path.exists() and not path.is_symlink():
        raise UsageError(f"{path} exists and is not a link to {picture}. Move it away.")
    return False


def link(path: Path, picture: Path) -> None:
    """A symbolic link to a picture."""
    if is_laid(path, picture):
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(picture.resolve())
