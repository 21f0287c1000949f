"""Reads and writes files of features: rows, checked and a few at a time, and their metadata."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.near_names import missing_features
from latentcli.shards.storage.atomic_write import write_error
from latentcli.shards.tensors.file import SafetensorsFile
from latentcli.shards.tensors.write import tensor_bytes, write_safetensors

TENSOR = "features"
FORMAT = "latentcli features 1"
"""The metadata's `format` of a file that this module wrote."""
SUFFIXES = (".safetensors", ".npy", ".npz")
ROWS = 4096
"""Rows in memory at once."""
COPIED = 4 * 2**20
MUST_AGREE = ("extractor", "weights_sha256", "frames", "stride", "size", "preprocess")
"""What two files must say alike, where both say it, for their distance to mean anything."""


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """An open file of features [N, D]."""

    path: Path
    rows: int
    dim: int
    metadata: dict[str, str]
    """Empty of files that other programs wrote."""
    _source: Any
    _name: str | None = None

    def chunks(self) -> Iterator[Tensor]:
        """float64 [n, D], n at most ROWS, in order; UsageError at a value that is not finite."""
        for start in range(0, self.rows, ROWS):
            part = self._read(start, min(start + ROWS, self.rows)).double()
            bad = ~torch.isfinite(part).all(dim=1)
            if bad.any():
                row = start + int(bad.nonzero()[0])
                raise UsageError(
                    f"{self.path} has a value that is not finite (NaN or infinite) in row"
                    f" {row:,} of {self.rows:,}; make the features again."
                )
            yield part

    def _read(self, start: int, stop: int) -> Tensor:
        if self._name is not None:
            return self._source.rows(self._name, start, stop)  # type: ignore[no-any-return]
        return torch.from_numpy(np.array(self._source[start:stop], dtype=np.float64))


@contextmanager
def open_features(path: Path) -> Iterator[FeatureFile]:
    """Opens `.safetensors` with one 2-D tensor, `.npy`, or `.npz` with one array; never a pickle.

    UsageError or StoreError where it is missing, damaged, of another kind or shape, or has fewer
    than two rows.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path} is not a file of features: its name must end in {', '.join(SUFFIXES)}."
            " Pickles, such as .pt and .pkl, are not read, because that may run code."
        )
    if not path.is_file():
        raise missing_features(path)
    if path.suffix.lower() == ".safetensors":
        with SafetensorsFile(path) as file:
            yield _of_safetensors(path, file)
        return
    yield _of_numpy(path)


def _of_safetensors(path: Path, file: SafetensorsFile) -> FeatureFile:
    tables = [name for name, entry in file.entries.items() if len(entry.shape) == 2]
    name = TENSOR if TENSOR in file.entries else tables[0] if len(tables) == 1 else None
    if name is None:
        raise UsageError(
            f"{path} must hold one 2-D tensor, or one named {TENSOR!r}; it holds"
            f" {len(tables)} among {len(file.entries)} tensors."
        )
    shape, dtype = file.entries[name].shape, file.entries[name].dtype
    _check(path, shape, dtype.startswith(("F", "BF", "I", "U")))
    return FeatureFile(path, shape[0], shape[1], file.metadata, file, name)


def _of_numpy(path: Path) -> FeatureFile:
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        array = content if isinstance(content, np.ndarray) else _only_array(path, content)
    except (OSError, ValueError, EOFError, SyntaxError, BadZipFile, zlib.error) as error:
        # NumPy takes whatever it does not know for a pickle, and tells how to read it unsafely.
        reason = (
            "it holds Python objects, or is not a NumPy file"
            if "pickle" in str(error)
            else str(error)
        )
        raise StoreError(
            f"{path} is not a complete NumPy file of numbers: {reason}".rstrip(".") + "."
        ) from error
    _check(path, array.shape, array.dtype.kind in "fiu")
    return FeatureFile(path, array.shape[0], array.shape[1], {}, array)


def _only_array(path: Path, content: Any) -> Any:
    with content:
        names = content.files
        if len(names) != 1:
            raise UsageError(f"{path} must hold one array; it holds {len(names)}.")
        return content[names[0]]


def _check(path: Path, shape: tuple[int, ...], real: bool) -> None:
    if len(shape) != 2 or not shape[1] or not real:
        kind = "" if real else " of something else than real numbers"
        raise UsageError(
            f"{path} holds features of shape {list(shape)}{kind}; they must be [N, D]: a row for"
            " each group of frames."
        )
    if shape[0] < 2:
        raise UsageError(
            f"{path} has {shape[0]} row{'' if shape[0] == 1 else 's'}; a distance needs at least"
            " 2, and means something with thousands."
        )


def differences(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What two files' metadata both say, and say differently."""
    return {
        name: (a[name], b[name])
        for name in MUST_AGREE
        if name in a and name in b and a[name] != b[name]
    }


@dataclass(slots=True)
class FeatureSpool:
    """Collects feature vectors in a nameless file, so that memory does not grow with the clips.

    It is a tensor as the writers of files take it. StoreError where the disk refuses.
    """

    dim: int
    count: int = 0
    dtype: torch.dtype = torch.float32
    _file: Any = field(default_factory=tempfile.TemporaryFile)

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, D] of all rows so far."""
        return (self.count, self.dim)

    def element_size(self) -> int:
        """Bytes of one value."""
        return self.dtype.itemsize

    def add(self, rows: Tensor) -> None:
        """Appends float rows [n, D]."""
        try:
            self._file.write(tensor_bytes(rows.to("cpu", self.dtype).contiguous()))
        except OSError as error:
            raise write_error(Path(tempfile.gettempdir()), error) from error
        self.count += len(rows)

    def cut(self, count: int) -> None:
        """Forgets all rows but the first `count`: a clip broke in its midst."""
        end = count * self.dim * self.element_size()
        self._file.seek(end)
        self._file.truncate(end)
        self.count = count

    def pieces(self) -> Iterator[bytes]:
        """The rows' bytes, in order."""
        self._file.seek(0)
        while piece := self._file.read(COPIED):
            yield piece

    def close(self) -> None:
        """Lets the file go."""
        self._file.close()


def check_output(path: Path) -> None:
    """UsageError where no features may be written there: another kind of file is in the way."""
    if path.suffix.lower() != ".safetensors":
        raise UsageError(f"--output is {path}; a file of features must end in .safetensors.")
    if path.is_dir():
        raise UsageError(f"--output is {path}, which is a folder; name a file.")
    if path.exists():
        try:
            with SafetensorsFile(path) as file:
                is_features = file.metadata.get("format") == FORMAT
        except StoreError:
            is_features = False
        if not is_features:
            raise UsageError(
                f"{path} exists and is not a file of features; it is not overwritten. Name another"
                " file."
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path.parent, error) from error


def write_features(path: Path, spool: FeatureSpool, metadata: Mapping[str, str]) -> None:
    """The spool as a file, complete or not at all; StoreError where the disk refuses."""
    write_safetensors(path, {TENSOR: spool}, {"format": FORMAT, **metadata})
