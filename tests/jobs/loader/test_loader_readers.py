"""A new kind of source is one class and one row: zip files, as a toy."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

import pytest
import torch
from jobkit import encode, toy_pictures

from latentcli import open_store
from latentcli.core.errors import UsageError
from latentcli.core.types import InputRow, Row
from latentcli.jobs.loader.packed_reader import PackedReader
from latentcli.jobs.loader.prepare import RawSample
from latentcli.jobs.loader.readers import READERS, Reader, kind_of
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.verify import run_verify


@dataclass(slots=True)
class ZipReader(PackedReader):
    """Reads zip files of pictures."""

    noun: ClassVar[str] = "zip"
    endings: ClassVar[tuple[str, ...]] = (".zip",)

    def samples(self, row: InputRow) -> Iterator[RawSample]:
        with zipfile.ZipFile(row.source) as file:
            for name in sorted(file.namelist()):
                key = self.prefix(row) + str(PurePosixPath(name).with_suffix(""))
                yield RawSample(Row(key, f"{row.source}::{name}", "ok"), file.read(name))

    def again(self, row: Row) -> RawSample:
        path, _, name = row.source.partition("::")
        with zipfile.ZipFile(path) as file:
            return RawSample(row, file.read(name))


@pytest.fixture
def zips(tmp_path, monkeypatch):
    """Two zip files of five and four pictures, and the folder that they were made of."""
    monkeypatch.setitem(READERS, "zips", ZipReader)
    pictures = toy_pictures(tmp_path / "pictures", 9)
    folder = tmp_path / "zips"
    folder.mkdir()
    files = sorted(path for path in pictures.rglob("*") if path.is_file())
    for name, share in (("a", files[:5]), ("b", files[5:])):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as file:
            for path in share:
                file.write(path, path.name)
    return folder


def test_encode_from_a_new_kind(zips, model, tmp_path):
    plain, store = tmp_path / "plain", tmp_path / "store"
    encode(zips.parent / "pictures", plain, model)
    told = encode(zips, store, model, samples_per_shard=None, workers=1)
    assert (told["encoded"], told["failed"], told["shards"]) == (9, 0, 2)
    expected, found = open_store(plain), open_store(store)
    assert len(found) == len(expected) == 9
    assert {key.partition("/")[0] for key in found.keys()} == {"a.zip", "b.zip"}  # noqa: SIM118
    by_name = {key.rpartition("/")[2]: key for key in found.keys()}  # noqa: SIM118
    for key in expected.keys():  # noqa: SIM118
        assert torch.equal(found[by_name[key.rpartition("/")[2]]], expected[key])
    assert encode(zips, store, model, samples_per_shard=None)["skipped"] == 9
    assert run_verify(VerifyJob(store=str(store), samples=4))["ok"]


def test_beside_pictures_a_new_kind_is_left_out_with_a_note(zips, model, tmp_path):
    notes: list[str] = []
    told = encode(zips.parent, tmp_path / "store", model, Reporter(note=notes.append))
    assert (told["encoded"], told["left_out"]) == (9, 2)
    (note,) = (note for note in notes if "left out" in note)
    assert note.startswith("2 zips are left out") and "name them" in note and "/*.zip'" in note
    with pytest.raises(UsageError, match=r"a\.zip is a zip of samples, named together"):
        encode(f"@{listed(zips)}", tmp_path / "other", model)


def listed(zips) -> str:
    path = zips.parent / "list.txt"
    picture = next(path for path in (zips.parent / "pictures").rglob("*") if path.is_file())
    path.write_text(f"{zips / 'a.zip'}\n{picture}\n")
    return str(path)


def test_what_no_packed_kind_owns_is_a_file():
    assert [kind_of(path) for path in ("a.jpg", "a.zip", "x/A.TAR", "pipe:cat x")] == [
        *("files", "files", "tars", "tars")
    ]
    assert not Reader.owns("a.jpg") and all(reader.noun for reader in READERS.values())
