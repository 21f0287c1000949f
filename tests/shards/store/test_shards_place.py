"""What is told where no store can be made: of which folder it is, and nothing of committed work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import storekit

from latentcli.core.errors import StoreError
from latentcli.shards.store import writer
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.place import no_place

DENIED = "there is no permission to write there. Choose another output folder (-o)."


def refusing(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_a_folder_that_takes_no_folder(tmp_path, monkeypatch):
    def mkdir(*_: object, **__: object) -> None:
        raise refusing(errno.EACCES)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(StoreError) as told:
        StoreLock(tmp_path / "a" / "b").__enter__()
    what = f"{tmp_path}/a/b cannot be made in the folder {tmp_path}"
    assert (str(told.value), told.value.exit_code) == (f"{what}: {DENIED}", 2)


def test_an_empty_folder_that_takes_no_file(tmp_path, monkeypatch):
    def write(*_: object) -> None:
        raise StoreError("a manifest") from refusing(errno.EACCES)

    monkeypatch.setattr(writer, "write_manifest", write)
    with pytest.raises(StoreError) as told:
        writer.open_for_writing(tmp_path, storekit.manifest())
    assert str(told.value) == f"The folder {tmp_path} cannot become a store: {DENIED}"


def test_a_full_disk_may_have_room_later(tmp_path):
    told = no_place(tmp_path / "store", refusing(errno.ENOSPC))
    assert "the disk is full" in str(told) and "run the same command again" in str(told)
    assert told.exit_code == 1
