"""Places that a job is to write to are tried before its work, and stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jobkit import tree

from latentcli.core.errors import SampleError, UsageError
from latentcli.jobs.runtime.places import check_name, try_file, try_folder, try_outside_stores


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a file and a folder in it."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("place", ["new", "folder/new", "file", "n" * 250])
def test_a_file_can_be_made(here, place):
    before = tree(here)
    try_file("--csv", place)
    try_file("--csv", str(here / place))
    try_file("--csv", f"file://{here}/{place}")
    assert tree(here) == before


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("folder", "is a folder; name a file"),
        ("none/file", "there is no folder none; make it first"),
        ("file/below", "there is no folder file; make it first"),
        ("n" * 256, "the name is longer than the file system allows"),
        ("/sys/latentcli.csv", "nothing can be written to /sys"),
    ],
)
def test_no_file_can_be_made(here, place, said):
    before = tree(here)
    with pytest.raises(UsageError, match=f"^--csv {place}.*{said}"):
        try_file("--csv", place)
    assert tree(here) == before


@pytest.mark.parametrize("place", ["store", "store/shards", "store/new/deep"])
def test_a_store_is_no_place_for_other_files(here, place):
    (here / "store" / "shards").mkdir(parents=True)
    (here / "store" / "manifest.json").touch()
    before = tree(here)
    with pytest.raises(UsageError, match=f"^-o {place}: .+ is a latent store, which is no"):
        try_outside_stores("-o", place)
    assert tree(here) == before


@pytest.mark.parametrize("place", ["folder", "new", "folder/new/deep", "folder/../new", "."])
def test_a_folder_can_be_made(here, place):
    before = tree(here)
    try_folder("--save", place)
    try_folder("--save", str(here / place))
    assert tree(here) == before


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file", "is a file; name a folder"),
        ("file/below", "file exists and is not a folder"),
        ("new/" + "n" * 256, "the name is longer than the file system allows"),
        ("/sys/latentcli/deep", "nothing can be written to /sys"),
        ("s3://bucket/folder", "is remote storage; name a folder of this machine"),
    ],
)
def test_no_folder_can_be_made(here, place, said):
    before = tree(here)
    with pytest.raises(UsageError, match=f"^--save {place}.*{said}"):
        try_folder("--save", place)
    assert tree(here) == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_no_permission(here):
    (here / "folder").chmod(0o500)
    for call, place in ((try_file, "folder/a.csv"), (try_folder, "folder/deep/er")):
        with pytest.raises(UsageError, match="no permission to write there"):
            call("--x", place)


def test_remote_storage_is_tried_too():
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory", skip_instance_cache=True)
    memory.pipe("/tried/a.csv", b"mine")
    try:
        try_file("--csv", "memory://tried/a.csv")
        assert [Path(name).name for name in memory.find("/tried")] == ["a.csv"]
        assert memory.cat("/tried/a.csv") == b"mine"
    finally:
        memory.rm("/tried", recursive=True)


def test_names_that_fit_and_names_that_do_not(tmp_path):
    for folder in (tmp_path, tmp_path / "not" / "there"):
        check_name(folder, folder / ("d" * 255) / ("n" * 255))
        for path in ("n" * 256, f"{'d' * 256}/n", f"a/{'n' * 256}", "/".join(["d" * 250] * 20)):
            with pytest.raises(SampleError, match="longer than the file system of") as told:
                check_name(folder, folder / path)
            assert told.value.stage == "write"
    with pytest.raises(SampleError, match="cannot be that of a file"):
        check_name(tmp_path, tmp_path / "\ud800")
    assert not list(tmp_path.iterdir())
