"""Writes a report: originals, reconstructions and latents as pictures, and their page."""

from __future__ import annotations

import copy
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from latentcli.images.codec import encode_image, encode_lossless
from latentcli.images.views import signed_difference, thumbnail
from latentcli.jobs.roundtrip.single_page import embedded, refuse_more
from latentcli.jobs.runtime.machine import cores
from latentcli.jobs.runtime.report_folder import (
    FILES,
    check_report_folder,
    report_error,
    report_folder,
)
from latentcli.latents.pca import ChannelMoments, PcaBasis, colours, fit
from latentcli.reports.viewer import PAGE, write_viewer

THUMBNAIL = 192
"""Longest side of a thumbnail in pixels."""
PCA_SIDE = 64
"""Longest side of a latent whose colours are shown; a larger one is averaged down to it."""
DIFFERENCE_QUALITY = 92
BEHIND, BEHIND_BYTES = 32, 256 * 2**20
"""Pictures whose files may be waiting to be written, and their bytes in memory."""

_HEADER = struct.Struct("<IIII")
"""Index of the picture, and C, h, w of the latent that follows in float16."""


class ReportWriter:
    """Files of pictures as they come; the colours of latents and the page at the end.

    A basis of colours belongs to a whole set, so latents wait on the disk until the last has come.
    They are those of each encoder in `groups`: indices of the models that share it. The page is
    `single`, with all pictures in it, or stands in the folder beside them.
    """

    def __init__(
        self, path: str, groups: Sequence[Sequence[int]], gain: float, single: Path | None = None
    ) -> None:
        self.folder = check_report_folder(path)
        self._single = single
        self._groups, self._gain = groups, gain
        self._threads = ThreadPoolExecutor(cores(), thread_name_prefix="report")
        self._pending: deque[Future[None]] = deque()
        self._waiting: deque[int] = deque()
        """Bytes in memory of each of them."""
        self._moments = [ChannelMoments() for _ in groups]
        self._spools: list[IO[bytes]] = []
        """None before the first picture: until then an earlier report stays as it is."""

    def add(
        self, index: int, original: Tensor, decoded: Sequence[Tensor], latents: Sequence[Tensor]
    ) -> None:
        """One picture: uint8 [3, H, W] and those of all models; a latent [C, h, w] per group.

        All are on the CPU, and latents finite float32. StoreError where a file cannot be written
        (it may come with a later picture), or where there are too many pictures for one page.
        """
        if self._single is not None:
            refuse_more(index)
        if not self._spools:
            self._begin()
        for moments, spool, latent in zip(self._moments, self._spools, latents, strict=True):
            small = at_most(latent, PCA_SIDE)
            moments.add(small[None])
            self._local(spool.write, _HEADER.pack(index, *small.shape))
            self._local(spool.write, small.half().numpy().tobytes())
        pictures = [original, *decoded]
        size = sum(picture.nbytes for picture in pictures)
        while self._pending and (self._pending[0].done() or self._is_far_behind(size)):
            self._settle_one()
        self._pending.append(self._threads.submit(self._write, index, *pictures))
        self._waiting.append(size)

    def _begin(self) -> None:
        report_folder(self.folder)
        names = (f"latents-{i}.tmp" for i in range(len(self._groups)))
        try:
            self._spools += [(self.folder / FILES / name).open("w+b") for name in names]
        except OSError as error:
            raise report_error(self.folder, error) from error

    def _is_far_behind(self, size: int) -> bool:
        return len(self._pending) >= BEHIND or sum(self._waiting) + size > BEHIND_BYTES

    def _write(self, index: int, original: Tensor, *decoded: Tensor) -> None:
        base = base_of(self.folder, index)
        self._local(base.parent.mkdir, exist_ok=True)
        for what, data in files_of(original, decoded, self._gain):
            self._local(Path(f"{base}.{what}").write_bytes, data)

    def _settle(self) -> None:
        """Waits until all files so far are written; StoreError where one could not be."""
        while self._pending:
            self._settle_one()

    def _settle_one(self) -> None:
        self._waiting.popleft()
        self._pending.popleft().result()

    def mark(self) -> tuple[list[int], list[ChannelMoments]]:
        """Where the report stands; `back_to` forgets the latents that came later."""
        return [spool.tell() for spool in self._spools], copy.deepcopy(self._moments)

    def back_to(self, mark: tuple[list[int], list[ChannelMoments]]) -> None:
        """Forgets what came after a mark. Files of pictures are replaced by those that follow."""
        self._settle()  # a file of the old pictures must not come after one of the new
        positions, self._moments = mark
        for spool, position in zip(self._spools, positions or [0] * len(self._spools), strict=True):
            spool.seek(position)
            spool.truncate()

    def finish(
        self, end: int, rows: Callable[[], Iterator[dict[str, Any]]], document: dict[str, Any]
    ) -> dict[str, Any]:
        """Writes the colours and the page; `end` is above every index.

        Gives its path, the bytes of it and its pictures together and, of a single page, how many
        pictures are thumbnails only. `document` is that of --json; each of its models gets
        `pca_explained`, the part of the latents' variance that the colours show.
        """
        self._settle()
        for group, moments, spool in zip(self._groups, self._moments, self._spools, strict=True):
            basis = fit(moments)
            self._colour(group, basis, spool)
            for m in group:
                document["models"][m]["pca_explained"] = round(basis.explained, 4)
        self._drop_beyond(end)
        page = self._single or self.folder / PAGE
        found = None if self._single is None else embedded(self.folder, rows)
        shown = (row | {"pca": [True] * len(document["models"])} for row in rows())
        try:
            write_viewer(page, document, shown, found)
            size = page.stat().st_size if found else bytes_below(self.folder)
        except OSError as error:
            raise report_error(page if self._single else self.folder, error) from error
        return {"page": str(page), "page_bytes": size, "page_thumbnails": found and found.small}

    def _colour(self, group: Sequence[int], basis: PcaBasis, spool: IO[bytes]) -> None:
        """Writes the colours of one encoder's latents."""
        for index, latent in latents_of(spool):
            data = encode_image(colours(latent[None], basis)[0], "png")
            for m in group:
                self._local(Path(f"{base_of(self.folder, index)}.{m}.pca.png").write_bytes, data)

    def _drop_beyond(self, end: int) -> None:
        """Deletes what is left of pictures that were taken back at the end."""
        for folder in (self.folder / FILES).iterdir():
            for path in folder.iterdir() if folder.name.isdecimal() else ():
                number = path.name.partition(".")[0]
                # Other programs leave files of their own in any folder.
                if number.isdecimal() and int(number) >= end:
                    path.unlink()

    def _local(self, call: Callable[..., object], *words: Any, **options: Any) -> None:
        """A call that writes; StoreError where the system refuses."""
        try:
            call(*words, **options)
        except OSError as error:
            raise report_error(self.folder, error) from error

    def close(self) -> None:
        """Ends the threads, and deletes the latents that waited."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for spool in self._spools:
            spool.close()
            Path(spool.name).unlink(missing_ok=True)


def files_of(
    original: Tensor, decoded: Sequence[Tensor], gain: float
) -> Iterator[tuple[str, bytes]]:
    """Endings of the names of a picture's files, and their bytes, but for its latents."""
    yield "thumb.webp", thumbnail(original, THUMBNAIL)
    for name, picture in (("original", original), *enumerate(decoded)):
        data, suffix = encode_lossless(picture)
        yield f"{name}.{suffix}", data
    for m, picture in enumerate(decoded):
        difference = signed_difference(original, picture, gain)
        yield f"{m}.diff.jpg", encode_image(difference, "jpeg", DIFFERENCE_QUALITY)


def bytes_below(folder: Path) -> int:
    """Bytes of a report's files, without the latents that waited."""
    files = (path for path in folder.rglob("*.*") if path.suffix != ".tmp" and path.is_file())
    return sum(path.stat().st_size for path in files)


def base_of(folder: Path, index: int) -> Path:
    """How the names of a picture's files begin: files/012/012345."""
    return folder / FILES / f"{index // 1000:03d}" / f"{index:06d}"


def at_most(latent: Tensor, side: int) -> Tensor:
    """A latent [C, h, w] averaged down to sides of at most `side`."""
    height, width = latent.shape[1:]
    if max(height, width) <= side:
        return latent
    scale = side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return adaptive_avg_pool2d(latent[None], size)[0]


def latents_of(spool: IO[bytes]) -> Iterator[tuple[int, Tensor]]:
    """Index and latent, float32 [C, h, w], of everything that a spool holds."""
    spool.seek(0)
    while header := spool.read(_HEADER.size):
        index, *shape = _HEADER.unpack(header)
        data = bytearray(spool.read(2 * shape[0] * shape[1] * shape[2]))
        yield index, torch.frombuffer(data, dtype=torch.float16).view(shape).float()


def encoder_groups(encoders: Sequence[object]) -> list[list[int]]:
    """Indices of compared models' indices, grouped by the very encoder that they use."""
    groups: dict[int, list[int]] = {}
    for i, encoder in enumerate(encoders):
        groups.setdefault(id(encoder), []).append(i)
    return list(groups.values())
