"""Repositories of the Hub, read from a server of this machine: paths, requests, pins and errors."""

from __future__ import annotations

import errno
import re

import pytest
from harness.hub import HubServer, hub_server, point_at
from harness.hub_routes import Blob, Repository
from hypothesis import given
from hypothesis import strategies as st

from latentcli.shards.storage.hub import fetch, here, is_pinned, pinned
from latentcli.shards.storage.hub_files import HubPlace, place_of
from latentcli.shards.storage.paths import RemotePath, path_of

LARGE = bytes(range(256)) * 400
FILES = {
    "README.md": Blob(b"# words", False),
    "deep/inner/large.bin": Blob(LARGE, True),
    "deep/note.txt": Blob(b"a note", False),
    **{f"many/{i:03d}.txt": Blob(b"%d" % i, False) for i in range(45)},
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server with org/data, whose branch `old` is empty, and hub caches of the test's own."""
    with hub_server() as server:
        found = server.repositories["org/data"] = Repository(private=False)
        found.branches["old"] = found.branches["main"]
        found.commit("main", FILES, "files")
        server.objects |= {blob.sha256: blob.data for blob in FILES.values()}
        point_at(server, monkeypatch, tmp_path, None)
        yield server


def asked(hub: HubServer) -> list[str]:
    """The requests since the last call, commits cut short."""
    found = [re.sub("[0-9a-f]{40,}", "#", request) for request in hub.requests]
    hub.requests.clear()
    return found


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("datasets/a/b", HubPlace("dataset", "a/b", "main", "")),
        ("datasets/a/b/c/d.txt", HubPlace("dataset", "a/b", "main", "c/d.txt")),
        ("datasets/a/b@v1/c/d@2.txt", HubPlace("dataset", "a/b", "v1", "c/d@2.txt")),
        ("datasets/a/b/c@2/d", HubPlace("dataset", "a/b", "main", "c@2/d")),
        ("datasets/a/b@refs/pr/3/c", HubPlace("dataset", "a/b", "refs/pr/3", "c")),
        ("datasets/a/b@refs%2Fpr%2F3/c", HubPlace("dataset", "a/b", "refs/pr/3", "c")),
        ("datasets/a/b@feature%2Fx", HubPlace("dataset", "a/b", "feature/x", "")),
        ("a/b/c", HubPlace("model", "a/b", "main", "c")),
        ("spaces/a/b@main/c", HubPlace("space", "a/b", "main", "c")),
        ("buckets/a/b/c", None),
    ],
)
def test_a_path_names_repository_revision_and_file(path, place):
    assert place_of(path) == place


NAMES = st.text("abcXYZ019-_.", min_size=1, max_size=8)
REVISIONS = st.sampled_from(["main", "v1.0", "0123456789" * 4])


@given(st.sampled_from(["dataset", "space", "model"]), NAMES, NAMES, REVISIONS, st.lists(NAMES))
def test_a_place_comes_back_from_its_path(kind, owner, name, revision, parts):
    prefix = "" if kind == "model" else f"{kind}s/"
    if kind == "model" and owner in ("datasets", "spaces", "models", "buckets"):
        return
    inner = "/".join(parts)
    expected = HubPlace(kind, f"{owner}/{name}", revision, inner)
    assert place_of(f"{prefix}{owner}/{name}@{revision}/{inner}") == expected
    assert expected.is_pinned == (revision == "0123456789" * 4)


def test_one_request_reads_a_range_and_no_more(hub):
    path = path_of("hf://datasets/org/data/deep/inner/large.bin")
    assert path.read_range(1000, 1100) == LARGE[1000:1100]
    assert asked(hub) == [
        "GET /datasets/org/data/resolve/main/deep/inner/large.bin",
        "GET /cdn/#",
    ]
    assert sum(hub.sent.values()) == 100
    assert path.stat().st_size == len(LARGE)
    assert asked(hub) == ["POST /api/datasets/org/data/paths-info/main"]
    with path.open() as file:
        file.seek(-10, 2)
        assert file.read() == LARGE[-10:]
    with pytest.raises(OSError, match=f"it has {len(LARGE)} bytes now"):
        path.read_range(0, len(LARGE) + 1)


def test_listings_and_kinds(hub):
    root = path_of("hf://datasets/org/data")
    assert sorted(path.name for path in root.iterdir()) == ["README.md", "deep", "many"]
    assert len(list((root / "many").iterdir())) == 45
    assert (root / "deep").is_dir() and not (root / "deep").is_file()
    assert (root / "deep" / "note.txt").read_bytes() == b"a note"
    assert not (root / "none.txt").exists() and not (root / "none" / "none.txt").exists()
    assert [p.name for p, _ in (root / "deep").find()] == ["large.bin", "note.txt"]
    with pytest.raises(FileNotFoundError):
        (root / "none").entries()
    assert list(path_of("hf://datasets/org/data@old").iterdir()) == []


def test_a_pin_holds_against_a_later_commit(hub):
    store = pinned(path_of("hf://datasets/org/data"))
    assert is_pinned(store) and asked(hub) == ["GET /api/datasets/org/data/revision/main"]
    assert pinned(store) == store and asked(hub) == []
    assert (store / "deep" / "note.txt").is_file() and not (store / "deep" / "other.txt").exists()
    assert len(asked(hub)) == 1
    new = FILES | {"deep/note.txt": Blob(b"changed", False)}
    hub.repositories["org/data"].commit("main", new, "later")
    assert here(store / "deep" / "note.txt").read_bytes() == b"a note"
    assert path_of("hf://datasets/org/data/deep/note.txt").read_bytes() == b"changed"


def test_a_file_of_a_commit_is_fetched_once(hub):
    store = pinned(path_of("hf://datasets/org/data"))
    asked(hub)
    for _ in range(3):
        assert here(store / "deep" / "inner" / "large.bin").read_bytes() == LARGE
    where = "/datasets/org/data/resolve/#/deep/inner/large.bin"
    assert asked(hub) == [f"HEAD {where}", "GET /cdn/#"]
    fetch(store / "many" / f"{i:03d}.txt" for i in range(45))
    assert len(asked(hub)) == 90
    texts = [here(store / "many" / f"{i:03d}.txt").read_bytes() for i in range(45)]
    assert texts == [b"%d" % i for i in range(45)] and asked(hub) == []


def test_other_paths_are_left_alone(tmp_path):
    for path in (tmp_path, RemotePath("s3://b/x"), RemotePath("hf://datasets/a/b")):
        assert here(path) == path and not is_pinned(path)
    assert pinned(tmp_path) == tmp_path and pinned(RemotePath("s3://b/x")) == RemotePath("s3://b/x")


def test_errors_say_what_is_missing(hub, monkeypatch):
    def told(url: str) -> str:
        with pytest.raises(OSError) as caught:
            pinned(path_of(url))
        return caught.value.strerror

    assert "no such repository" in told("hf://datasets/org/none")
    assert "no such branch" in told("hf://datasets/org/data@none")
    hub.repositories["org/data"].private = True
    assert "or this token may not read it" in told("hf://datasets/org/data")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not know the token" in told("hf://datasets/org/data")


def test_offline_is_said_at_once(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError) as caught:
        pinned(path_of("hf://datasets/org/data"))
    assert caught.value.strerror == "HF_HUB_OFFLINE is set, so the Hub is not asked"
    assert asked(hub) == []


def test_a_hub_that_is_away_is_asked_again_and_then_told_of(hub):
    store = pinned(path_of("hf://datasets/org/data"))
    kept = here(store / "README.md")
    hub.close()
    with pytest.raises(OSError) as caught:
        pinned(path_of("hf://datasets/org/data"))
    assert caught.value.errno == errno.ETIMEDOUT
    assert "the look-up failed 6 times" in caught.value.strerror
    assert here(store / "README.md") == kept
