"""That every file of a source is taken or counted, by why."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sourcekit import HEIC, JPEG, PNG, found, put, scan

from latentcli.core.errors import UsageError
from latentcli.images.formats import HEAD_BYTES
from latentcli.shards.sources import left_out
from latentcli.shards.sources.expand import expand_source
from latentcli.shards.sources.find_inputs import expand_sources
from latentcli.shards.sources.heads import HEAD
from latentcli.shards.sources.left_out import LeftOut, in_words, suffix_of

TREE = {
    "a.jpg": JPEG,
    "sub/b.PNG": PNG,
    "sub/c.heic": HEIC,
    "sub/d.HEIC": HEIC,
    "disguised.heic": JPEG,
    "e.svg": b"<svg/>",
    "e.txt": JPEG,
    "sub/e.txt": b"a cat",
    "e.tar.xz": b"x",
    "e.zip": b"x",
    "photo": JPEG,
    "x.jpg_large": JPEG,
    "apple": HEIC,
    "LICENSE": b"words",
    "odd.what is this": b"words",
    ".hidden.jpg": JPEG,
    ".git/x.jpg": JPEG,
    ".git/deep/y.jpg": JPEG,
}
TAKEN = ["a.jpg", "disguised.heic", "photo", "sub/b.PNG", "x.jpg_large"]
LEFT = {
    ".heic": 3,
    ".svg": 1,
    ".txt": 2,
    ".tar.xz": 1,
    ".zip": 1,
    "no_suffix": 2,
    "hidden_files": 1,
    "hidden_folders": 1,
}


def test_a_folder(place):
    put(place, TREE)
    assert found(place) == (TAKEN, dict(sorted(LEFT.items())))


def test_a_glob_of_all(place):
    put(place, TREE)
    assert found(f"{place}/**") == (TAKEN, dict(sorted(LEFT.items())))


def test_a_glob_of_some(place):
    put(place, TREE)
    assert found(f"{place}/*.*") == (
        ["a.jpg", "disguised.heic", "x.jpg_large"],
        {".svg": 1, ".tar.xz": 1, ".txt": 1, ".zip": 1, "hidden_files": 1, "no_suffix": 1},
    )
    assert found(f"{place}/[a-s]*/*") == (["sub/b.PNG"], {".heic": 2, ".txt": 1})


def test_braces_and_lists_of_folders(tmp_path):
    put(tmp_path, {"a/x.jpg": JPEG, "a/x.txt": b"x", "b/y.jpg": JPEG, "b/y.zip": b"x"})
    expected = {".txt": 1, ".zip": 1}
    assert found(f"{tmp_path}/{{a,b}}")[1] == expected
    (tmp_path / "list.txt").write_text("a\nb\n")
    assert found(f"@{tmp_path}/list.txt") == (["a/x.jpg", "b/y.jpg"], expected)


def test_what_lies_in_two_sources_is_counted_once(place):
    put(place, TREE)
    for sources in ([place, f"{place}/sub"], [f"{place}/sub", place], [place, f"{place}/"]):
        using = scan()
        expand_sources(sources, using)
        assert using.left_out.to_json() == dict(sorted(LEFT.items()))


def test_names_alone_tell_where_nothing_else_is_asked_for(place):
    put(place, TREE)
    taken, left = found(place, scan(told=None))
    assert taken == ["a.jpg", "sub/b.PNG"]
    assert (left[".jpg_large"], left["no_suffix"], left[".heic"]) == (1, 4, 3)


NAMES = st.sampled_from(["a", "b.jpg", "c.txt", "d.heic", ".e", "f.g", "h", "i.zip", "n.jpg"])
BYTES = st.sampled_from([JPEG, HEIC, b"", b"text", b"GIF89a" + b"x" * 20])


@given(st.dictionaries(st.tuples(st.sampled_from(["", "m/", "m/n/", "o/"]), NAMES), BYTES))
def test_every_file_is_taken_or_counted(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp(uuid.uuid4().hex)
    put(folder, {"a.png": PNG} | {f"{above}x{name}": data for (above, name), data in files.items()})
    taken, left = found(folder)
    assert len(taken) + sum(left.values()) == len(files) + 1
    remote = put(
        f"memory://{uuid.uuid4().hex}/x",
        {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        },
    )
    assert found(remote) == (taken, left)


def test_links(tmp_path):
    put(tmp_path / "photos", {"a.jpg": JPEG, "sub/b.jpg": JPEG})
    photos = tmp_path / "photos"
    put(tmp_path, {"elsewhere": PNG})
    for name, target in {
        "gone.jpg": "nowhere",
        "gone.txt": "nowhere",
        "gone": "nowhere",
        "self": "self",
        "sub/up": photos,
        "picture": tmp_path / "elsewhere",
    }.items():
        (photos / name).symlink_to(target)
    # What is named as a picture is an input that fails, and says why.
    assert found(photos) == (
        ["a.jpg", "gone.jpg", "picture", "sub/b.jpg"],
        {"broken_links": 3, "link_loops": 1},
    )


def test_a_pipe_is_not_opened(tmp_path):
    put(tmp_path, {"a.jpg": JPEG})
    os.mkfifo(tmp_path / "queue")
    assert found(tmp_path) == (["a.jpg"], {"special_files": 1})


@pytest.fixture
def closed(monkeypatch):
    """Makes the listing of a folder fail, for root as well."""

    def close(folder: Path, error: OSError) -> None:
        whole = os.scandir

        def scandir(path):
            if Path(path) == folder:
                raise error
            return whole(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return close


def test_a_folder_that_must_not_be_listed_is_counted(tmp_path, closed):
    put(tmp_path, {"a.jpg": JPEG, "lost+found/b.jpg": JPEG})
    closed(tmp_path / "lost+found", PermissionError(13, "Permission denied"))
    using = scan()
    assert found(tmp_path, using) == (["a.jpg"], {"unreadable_folders": 1})
    assert using.left_out.examples["unreadable_folders"] == [f"{tmp_path}/lost+found"]


def test_a_source_that_must_not_be_listed_is_refused(tmp_path, closed):
    put(tmp_path, {"a.jpg": JPEG})
    closed(tmp_path, PermissionError(13, "Permission denied"))
    with pytest.raises(UsageError, match="cannot be listed: Permission denied"):
        expand_source(str(tmp_path), scan())


def test_a_folder_that_is_out_of_reach_for_a_while_is_not_taken_for_empty(tmp_path, closed):
    put(tmp_path, {"a.jpg": JPEG, "sub/b.jpg": JPEG})
    closed(tmp_path / "sub", OSError(116, "Stale file handle"))
    with pytest.raises(UsageError, match="sub cannot be listed: Stale file handle"):
        expand_source(str(tmp_path), scan())


def test_a_folder_of_nothing_says_what_it_holds(place):
    put(place, {"a.heic": HEIC, "b.heic": HEIC, "c.7z": b"x", "d.txt": b"x", ".e": b"x"})
    with pytest.raises(UsageError) as caught:
        expand_source(place, scan())
    assert str(caught.value).endswith(
        "looked for files ending in .jpg, .png in it and in its subfolders; found: 2 .heic"
        " (get a decoder); 1 .7z (archives: unpack them first); 1 hidden file; 1 other file"
        " (.txt)."
    )


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.JPG", ".jpg"),
        ("a.tar.XZ", ".tar.xz"),
        (".tar.xz", ".xz"),
        ("a.jpg_large", ".jpg_large"),
        ("a.b.c", ".c"),
        ("a.7z", ".7z"),
        ("plain", ""),
        (".hidden", ""),
        ("a.", ""),
        ("version 1.2", ""),
        ("Mr. Smith went", ""),
        ("a.jpg?width=200", ""),
        ("a.averylongsuffix", ""),
    ],
)
def test_suffixes(name, suffix):
    assert suffix_of(name) == suffix


def test_words():
    counts = {".heic": 1200, ".hif": 1, ".zip": 1, ".txt": 3, ".json": 5, ".md": 1, ".py": 1}
    counts |= {"stores": 1, "output_files": 2, "hidden_files": 1}
    unread = {".heic": "get a decoder", ".hif": "get a decoder"}
    assert in_words(counts, unread) == (
        "1,200 .heic and 1 .hif (get a decoder); 1 .zip (archives: unpack them first); 1 hidden"
        " file; 1 latent store; 2 files that latentcli wrote (--include-output takes them); 10"
        " other files (.json, .txt, .md and others)"
    )
    assert in_words(counts, unread, advice=False).startswith("1,200 .heic and 1 .hif; 1 .zip; ")
    assert in_words({}, unread) == ""


def test_suffixes_without_end_are_summed(monkeypatch):
    monkeypatch.setattr(left_out, "MOST_SUFFIXES", 2)
    counted = LeftOut()
    for reason in (".a", ".b", ".c", ".d", ".a", "hidden_files"):
        counted.add(reason)
    expected = {".a": 2, ".b": 1, "hidden_files": 1, "other_suffixes": 2}
    assert counted.to_json() == expected


def test_a_head_is_long_enough_to_tell_a_picture():
    assert HEAD >= HEAD_BYTES
