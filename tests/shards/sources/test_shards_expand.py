"""Brace lists, URLs and pipes as sources; memory:// stands for remote storage."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import fsspec
import pytest

from latentcli.core.errors import UsageError
from latentcli.shards.sources import braces
from latentcli.shards.sources.expand import common_anchor, expand_source
from latentcli.shards.sources.file_list import Source
from latentcli.shards.sources.find_inputs import find_inputs
from latentcli.shards.sources.remote import LISTED_FROM
from latentcli.shards.sources.scan import Scan

TARS = frozenset({".tar", ".tar.gz"})
BOTH = TARS | {".jpg"}


def expand(source: object, suffixes: frozenset[str] = TARS, **options: Any) -> Source:
    return expand_source(str(source), Scan(suffixes, **options))


def paths(source: object, suffixes: frozenset[str] = TARS, **options: bool) -> list[str]:
    return sorted(expand(source, suffixes, **options).files.paths)


@pytest.fixture
def tars(tmp_path):
    folder = tmp_path / "data"
    names = [*(f"{i:03d}.tar" for i in range(12)), "a/x.tar", "b/x.tar", "b/y.tar.gz"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 7)
    return folder


@pytest.fixture
def bucket():
    """The URL of a folder in memory:// with the same names, and some that are to be left out."""
    url = f"memory://{uuid.uuid4().hex}/p"
    memory = fsspec.filesystem("memory")
    names = [*(f"{i:03d}.tar" for i in range(12)), "a/x.tar", "b/x.tar", "b/y.tar.gz"]
    for name in [*names, "notes.txt", ".hidden.tar", ".trash/z.tar"]:
        memory.pipe(f"{url}/{name}", b"x" * 7)
    yield url
    memory.rm(url, recursive=True)


@pytest.fixture
def calls(monkeypatch):
    """How often the storage is asked, by method."""
    kind, counts = type(fsspec.filesystem("memory")), Counter[str]()

    def counting(name):
        whole = getattr(kind, name)

        def counted(self, *args, **options):
            counts[name] += 1
            return whole(self, *args, **options)

        monkeypatch.setattr(kind, name, counted)

    for name in ("info", "ls", "find"):
        counting(name)
    return counts


def test_braces(tars, monkeypatch):
    assert paths(f"{tars}/{{000..009}}.tar") == [f"{tars}/{i:03d}.tar" for i in range(10)]
    monkeypatch.chdir(tars)
    assert paths("{a,b}/x.tar") == [f"{tars}/a/x.tar", f"{tars}/b/x.tar"]
    assert paths("{a,b}/*.tar*") == [f"{tars}/a/x.tar", f"{tars}/b/x.tar", f"{tars}/b/y.tar.gz"]
    assert paths("{a,b}") == paths("{a,b}/*")
    found = expand("{a,b}/x.tar")
    assert (found.named, found.anchor) == (True, str(tars))
    assert not expand("{a,b}").named


def test_a_file_of_that_very_name_is_no_brace_list(tars):
    odd = tars / "{000..001}.tar"
    odd.touch()
    assert paths(odd) == [str(odd)]
    assert paths(tars / "{000..002}.tar") == [f"{tars}/{i:03d}.tar" for i in range(3)]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{010..013}.tar", ["012.tar does not exist", "2 of the 4"]),
        ("{000.tar", ["{000.tar does not exist"]),
        ("{1..9999999999}.tar", ["more than 1,000 names"]),
        ("{0..99}{0..99}.tar", ["more than 1,000 names"]),
        ("{a,b}/*.jpg", ["matches no files", ".tar"]),
        ("pipe:cat x.tar", ["--allow-pipe allows it"]),
    ],
)
def test_what_is_not_there_is_said(tars, monkeypatch, source, words):
    monkeypatch.chdir(tars)
    monkeypatch.setattr(braces, "MOST_NAMES", 1000)
    with pytest.raises(UsageError) as caught:
        expand(source)
    assert all(word in str(caught.value) for word in words)


def test_pipes_are_taken_as_they_are_where_they_are_allowed():
    command = "pipe:aws s3 cp s3://b/{00..02}.tar -"
    expected = [f"pipe:aws s3 cp s3://b/{i:02d}.tar -" for i in range(3)]
    assert paths(command, allow_pipe=True) == expected
    found = find_inputs([command], TARS, allow_pipe=True)
    assert [(item.size, item.mtime_ns) for item in found] == [(-1, -1)] * 3
    with pytest.raises(UsageError, match="no command"):
        expand("pipe: ", allow_pipe=True)


def test_remote_folder_is_listed_at_once(bucket, calls):
    found = expand(bucket)
    assert found.files.paths == [
        *(f"{bucket}/{i:03d}.tar" for i in range(12)),
        f"{bucket}/a/x.tar",
        f"{bucket}/b/x.tar",
        f"{bucket}/b/y.tar.gz",
    ]
    assert set(found.files.sizes) == {7} and min(found.files.times) > 10**18
    assert calls["find"] == 1 and calls["info"] <= 2
    assert paths(f"{bucket}/") == found.files.paths
    assert (found.anchor, found.named) == (bucket, False)


def test_remote_file(bucket):
    found = expand(f"{bucket}/b/x.tar")
    assert (found.files.paths, found.anchor) == ([f"{bucket}/b/x.tar"], f"{bucket}/b")
    listed = expand(bucket).files
    assert found.files.times[0] == listed.times[listed.paths.index(f"{bucket}/b/x.tar")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tar", [f"{i:03d}.tar" for i in range(12)]),
        ("01?.tar", ["010.tar", "011.tar"]),
        ("*/x.tar", ["a/x.tar", "b/x.tar"]),
        ("**/x.tar", ["a/x.tar", "b/x.tar"]),
        ("**/*.tar.gz", ["b/y.tar.gz"]),
        ("{a,b}/*.tar", ["a/x.tar", "b/x.tar"]),
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
        ("{a/x,b/*}.tar", ["a/x.tar", "b/x.tar"]),
    ],
)
def test_remote_patterns(bucket, pattern, expected):
    assert paths(f"{bucket}/{pattern}") == [f"{bucket}/{name}" for name in expected]


def test_many_remote_names_are_looked_up_by_one_listing(bucket, calls):
    memory = fsspec.filesystem("memory")
    for i in range(12, LISTED_FROM):
        memory.pipe(f"{bucket}/{i:03d}.tar", b"x" * 7)
    calls.clear()
    assert len(paths(f"{bucket}/{{000..{LISTED_FROM - 1:03d}}}.tar")) == LISTED_FROM
    assert calls["info"] + calls["ls"] + calls["find"] <= 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{010..013}.tar", ["012.tar does not exist", "2 of the 4"]),
        ("gone.tar", ["gone.tar does not exist"]),
        ("gone/", ["gone/ does not exist"]),
        ("*.jpg", ["matches no files"]),
        ("notes.*", ["matches 1 file, which is not an input"]),
    ],
)
def test_what_is_not_in_the_storage_is_said(bucket, name, words):
    with pytest.raises(UsageError) as caught:
        expand(f"{bucket}/{name}")
    assert all(word in str(caught.value) for word in words)


def test_a_folder_without_inputs_is_said(bucket):
    with pytest.raises(UsageError, match=r"holds no inputs: looked for files ending in \.jpg"):
        expand(bucket, frozenset({".jpg"}))


def test_list_of_paths_and_urls(tars, bucket):
    listed = tars / "list.txt"
    lines = [
        "a/x.tar",
        f"{tars}/b/x.tar",
        f"{bucket}/000.tar",
        f"{bucket}/gone.tar",
        f"{bucket}/b/",
    ]
    listed.write_text("\n".join(lines))
    assert paths(f"@{listed}") == sorted(
        [
            f"{tars}/a/x.tar",
            f"{tars}/b/x.tar",
            *(f"{bucket}/{name}" for name in ("000.tar", "gone.tar", "b/x.tar", "b/y.tar.gz")),
        ]
    )
    found = {item.path: item for item in find_inputs([f"@{listed}"], TARS)}
    assert len({item.key for item in found.values()}) == len(found)
    assert found[f"{bucket}/gone.tar"].size == -1 and found[f"{bucket}/000.tar"].size == 7
    listed.write_text("pipe:cat x.tar\na/x.tar\n")
    with pytest.raises(UsageError, match="--allow-pipe"):
        expand(f"@{listed}")
    assert paths(f"@{listed}", allow_pipe=True) == [f"{tars}/a/x.tar", "pipe:cat x.tar"]


def test_list_in_the_storage(bucket):
    fsspec.filesystem("memory").pipe(f"{bucket}/list.txt", b"a/x.tar\n000.tar\n")
    assert paths(f"@{bucket}/list.txt") == [f"{bucket}/000.tar", f"{bucket}/a/x.tar"]
    with pytest.raises(UsageError, match=r"the list .*gone\.txt cannot be read"):
        expand(f"@{bucket}/gone.txt")


def test_lines_of_a_list_lead_to_the_same_file_once(tars):
    listed = tars / "list.txt"
    listed.write_text("a/x.tar\n./a/x.tar\na//x.tar\na/../a/x.tar\n")
    assert [item.path for item in find_inputs([f"@{listed}"], TARS)] == [f"{tars}/a/x.tar"]


def test_file_urls_are_paths(tars):
    assert paths(f"file://{tars}/a") == [f"{tars}/a/x.tar"]
    assert paths(f"file://{tars}/{{a,b}}/x.tar") == paths(f"{tars}/{{a,b}}/x.tar")


def test_names_of_a_storage_that_would_leave_a_folder(bucket):
    memory = fsspec.filesystem("memory")
    memory.store[f"/{bucket.partition('://')[2]}/../up.jpg"] = memory.store[
        f"/{bucket.partition('://')[2]}/a/x.tar"
    ]
    try:
        keys = [item.key for item in find_inputs([f"{bucket}/"], BOTH)]
    finally:
        del memory.store[f"/{bucket.partition('://')[2]}/../up.jpg"]
    assert not {"", ".", ".."} & {part for key in keys for part in key.split("/")}


@pytest.mark.parametrize(
    ("anchors", "expected"),
    [
        ([], None),
        (["/a/b", "/a/c"], "/a"),
        (["s3://b/x/y", "s3://b/x"], "s3://b/x"),
        (["s3://b/x", "s3://c/x"], "s3://"),
        (["s3://b//x", "s3://b/x"], "s3://b"),
        (["s3://b/x", "/b/x"], "/"),
        (["s3://b/x", "gs://b/x"], "/"),
    ],
)
def test_common_anchor(anchors, expected):
    assert common_anchor(anchors) == expected


def test_a_remote_file_of_that_very_name_is_no_brace_list(bucket):
    fsspec.filesystem("memory").pipe(f"{bucket}/{{000..001}}.tar", b"x")
    assert paths(f"{bucket}/{{000..001}}.tar") == [f"{bucket}/{{000..001}}.tar"]


def test_times_of_remote_files_are_whole_seconds(bucket):
    """A listing knows them more exactly than the look-up of one file: nothing has changed then."""
    assert {time % 10**9 for time in expand(bucket).files.times} == {0}


def test_a_list_of_lines_is_not_taken_for_one_name_with_null(tars, tmp_path):
    listed = tmp_path / "list"
    listed.write_bytes(b"data/000.tar\ndata/001.tar\n")
    with pytest.raises(UsageError, match="holds no NUL and several lines"):
        expand(f"@{listed}", null=True)
    listed.write_bytes(b"data/000.tar\0data/001.tar")
    assert len(paths(f"@{listed}", null=True)) == 2
