from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storekit import append_units

from latentcli.core.errors import UsageError
from latentcli.shards.keys import folders_of
from latentcli.shards.sources.file_list import FoundInput, FoundInputs
from latentcli.shards.sources.find_inputs import (
    assign_units,
    expand_sources,
    find_inputs,
    inputs_of,
)
from latentcli.shards.sources.scan import Scan

SUFFIXES = frozenset({".jpg", ".png"})


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.PNG", "cats/1.jpg", "cats/deep/2.jpg", "dogs/1.jpg", "notes.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    (folder / ".hidden.jpg").touch()
    (folder / ".thumbs").mkdir()
    (folder / ".thumbs" / "t.jpg").touch()
    return folder


def keys(*sources) -> list[str]:
    return [item.key for item in find_inputs([str(source) for source in sources], SUFFIXES)]


def test_folder(photos, monkeypatch):
    assert keys(photos) == ["a", "b", "cats/1", "cats/deep/2", "dogs/1"]
    first = find_inputs([str(photos)], SUFFIXES)[0]
    info = (photos / "a.PNG").stat()
    assert first == FoundInput(str(photos / "a.PNG"), "a", info.st_size, info.st_mtime_ns)
    monkeypatch.chdir(photos)
    assert find_inputs(["."], SUFFIXES) == find_inputs([str(photos)], SUFFIXES)


def test_several_sources_share_their_deepest_parent(photos):
    assert keys(photos / "cats", photos / "dogs") == ["cats/1", "cats/deep/2", "dogs/1"]
    assert keys(photos / "cats" / "1.jpg", photos / "dogs") == ["cats/1", "dogs/1"]
    assert keys(photos / "cats" / "1.jpg") == ["1"]


@pytest.mark.parametrize(
    ("names", "anchor"),
    [([""], ""), (["cats/deep"], "cats/deep"), (["cats/1.jpg"], "cats"), (["cats", "dogs"], "")],
)
def test_keys_are_relative_to_the_anchor(photos, names, anchor):
    found = find_inputs([str(photos / name) for name in names], SUFFIXES)
    assert found.anchor == str(photos / anchor)
    assert all(item.path.startswith(f"{found.anchor}/{item.key}.") for item in found)


def test_commands_have_no_anchor(photos):
    assert find_inputs(["pipe:cat x.tar"], SUFFIXES, allow_pipe=True).anchor is None
    assert FoundInputs.of(inputs("a.jpg")).anchor is None


def test_a_path_met_twice_counts_once(photos):
    assert keys(photos, photos / "b.jpg", f"{photos}/*.jpg") == keys(photos)
    assert keys(photos / "cats", photos / "cats" / ".." / "cats") == ["1", "deep/2"]


def test_file_is_taken_whatever_its_suffix(photos):
    assert keys(photos / "notes.txt", photos / ".hidden.jpg") == [".hidden", "notes"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b"]),
        ("*", ["a", "b"]),
        ("*/1.jpg", ["cats/1", "dogs/1"]),
        ("**/*.jpg", ["b", "cats/1", "cats/deep/2", "dogs/1"]),
        ("**", ["a", "b", "cats/1", "cats/deep/2", "dogs/1"]),
        ("cats/**/[0-9].jpg", ["1", "deep/2"]),
        ("c*/**/deep/*", ["cats/deep/2"]),
    ],
)
def test_glob(photos, monkeypatch, pattern, expected):
    assert keys(f"{photos}/{pattern}") == expected
    monkeypatch.chdir(photos)
    assert keys(pattern) == expected


def test_glob_characters_of_a_folder_are_not_magic(photos, monkeypatch):
    odd = photos / "set [1]"
    odd.mkdir()
    (odd / "x.jpg").touch()
    assert keys(odd) == ["x"]
    monkeypatch.chdir(odd)
    assert keys("*.jpg") == ["x"]


def test_list(photos, monkeypatch):
    listed = photos / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbfcats/1.jpg\r\n\n# dogs/1.jpg\nb.jpg\ngone.jpg\n")
    assert keys(f"@{listed}") == ["b", "cats/1", "gone"]
    gone = find_inputs([f"@{listed}"], SUFFIXES)[2]
    assert (gone.size, gone.mtime_ns) == (-1, -1)
    monkeypatch.chdir(photos.parent)
    assert keys("@photos/list.txt") == ["b", "cats/1", "gone"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere", ["nowhere", "does not exist"]),
        ("", ["empty"]),
        ("none", ["none holds no inputs: it is empty."]),
        ("*.gif", ["*.gif matches no files", ".jpg, .png"]),
        ("nowhere/**/*.jpg", ["matches no files"]),
        ("no*/**/*.txt", ["matches no files"]),
        ("*/../*.jpg", ["after a wildcard"]),
        ("@nowhere.txt", ["the list nowhere.txt cannot be read"]),
        ("@empty.txt", ["names no file"]),
        ("@binary.txt", ["binary"]),
    ],
)
def test_what_is_not_there_is_said(photos, monkeypatch, source, words):
    (photos / "none").mkdir()
    (photos / "empty.txt").write_text("# nothing\n\n")
    (photos / "binary.txt").write_bytes(b"\0\1")
    monkeypatch.chdir(photos)
    with pytest.raises(UsageError) as caught:
        find_inputs(["b.jpg", source], SUFFIXES)
    assert all(word in str(caught.value) for word in words)


def test_no_source():
    with pytest.raises(UsageError, match="no source"):
        find_inputs([], SUFFIXES)


def test_links(photos):
    (photos / "cats" / "up").symlink_to(photos)
    (photos / "self").symlink_to(photos / "self")
    (photos / "more").symlink_to(photos / "dogs")
    (photos / "dangling.jpg").symlink_to(photos / "gone")
    assert keys(photos) == ["a", "b", "cats/1", "cats/deep/2", "dangling", "dogs/1", "more/1"]
    assert "cats/1" in keys(f"{photos}/**/*.jpg")


def test_parent_of_a_linked_folder_is_that_of_its_target(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos / "cats" / "deep")
    assert keys(f"{tmp_path}/link/../1.jpg", photos / "dogs") == ["cats/1", "dogs/1"]


def test_file_names_of_any_bytes(photos):
    for name in (b"\xff.jpg", b"new\nline.jpg", "é.jpg".encode()):
        (photos / "cats" / os.fsdecode(name)).touch()
    found = find_inputs([str(photos / "cats")], SUFFIXES)
    assert [item.key for item in found] == ["%FF", "1", "deep/2", "new%0Aline", "é"]
    assert all(Path(item.path).exists() for item in found)


def inputs(*names: str) -> list[FoundInput]:
    return [FoundInput(f"/x/{name}", name.partition(".")[0], 1, 2) for name in names]


@given(st.integers(0, 30), st.integers(1, 12))
def test_units_are_full_but_for_the_last(count, per_unit):
    rows = assign_units(inputs(*(f"{i:03d}.jpg" for i in range(count))), per_unit)
    assert [row.unit for row in rows] == [i // per_unit for i in range(count)]
    assert [row.key for row in rows] == [f"{i:03d}" for i in range(count)]


def test_units_need_a_size():
    with pytest.raises(UsageError, match="at least 1"):
        assign_units(inputs("a.jpg"), 0)


def test_append_takes_new_paths_into_new_units():
    frozen = assign_units(inputs("a.jpg", "b.jpg", "c.jpg"), 2)
    new = append_units(frozen, inputs("a.jpg", "aa.jpg", "b.png", "d.jpg"), 2)
    assert [(row.key, row.source, row.unit) for row in new] == [
        ("aa", "/x/aa.jpg", 2),
        ("b.png", "/x/b.png", 2),
        ("d", "/x/d.jpg", 3),
    ]
    assert append_units(frozen, inputs("c.jpg"), 2) == []
    assert [row.unit for row in append_units([], inputs("c.jpg"), 2)] == [0]


@given(
    st.lists(st.sampled_from(["a", "a.png", "a.png~2", "b", "b.png"]), unique=True),
    st.lists(st.sampled_from(["a", "a.png", "a.png~2", "b", "b.png"]), unique=True),
)
def test_append_never_takes_a_key_twice(old, new):
    frozen = assign_units([FoundInput(f"/old/{key}", key, 1, 1) for key in old], 2)
    rows = append_units(frozen, [FoundInput(f"/new/{k}.png", k, 1, 1) for k in new], 2)
    taken = [row.key for row in [*frozen, *rows]]
    assert len(rows) == len(new) and len(set(taken)) == len(taken)


def test_inputs_are_a_sequence():
    items = inputs("a.jpg", "b.jpg", "c.jpg")
    found = FoundInputs.of(items)
    assert list(found) == items and found == items and found != items[:2]
    assert (found[1], found[-1], found[1:], len(found)) == (items[1], items[2], items[1:], 3)
    with pytest.raises(IndexError):
        _ = found[3]
    found.clear()
    assert len(found) == 0 and list(found) == []


def tar_inputs(*sources: str, **options: bool) -> dict[str, str]:
    """Paths by key."""
    scan = Scan(frozenset({".tar"}), **options)
    return {i.key: i.path for i in inputs_of(expand_sources(sources, scan), packed=True)}


def test_keys_of_tars(tmp_path):
    for name in ("a.tar", "a/b.tar", "c.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = {"a.tar": "a.tar", "a/b": "a/b.tar", "c": "c.tar"}
    assert tar_inputs(str(tmp_path)) == {k: f"{tmp_path}/{v}" for k, v in names.items()}


def test_keys_of_pipes_and_of_several_storages(tmp_path):
    (tmp_path / "x.tar").touch()
    (tmp_path / "list").write_text("s3://b/x.tar\nhttps://h/d/x.tar?token=1\n")
    commands = ["pipe:cat /q/x.tar", "pipe:gzip -d < /r/y.tar | cat", "pipe:make-one"]
    found = tar_inputs(*commands, allow_pipe=True)
    assert list(found) == ["pipe", "x", "y"]
    both = tar_inputs(*commands, "pipe:cat /s/x.tar", str(tmp_path / "x.tar"), allow_pipe=True)
    assert len(both) == 5 and sum(key.startswith("x-") for key in both) == 3


def test_tars_are_appended_beside_each_other():
    def tars(*names: str) -> FoundInputs:
        found = FoundInputs.of(FoundInput(f"/x/{name}.tar", name, 1, 2) for name in names)
        found.packed = True
        return found

    frozen = assign_units([FoundInput("/old/a.tar", "a", 1, 1)], 1)
    rows = append_units(frozen, tars("a/b", "a/c", "d"), 1)
    assert [(row.key, row.unit) for row in rows] == [("a~2/b", 1), ("a~2/c", 2), ("d", 3)]
    frozen = assign_units([FoundInput("/old/b.tar", "a/b", 1, 1)], 1)
    assert [row.key for row in append_units(frozen, tars("a"), 1)] == ["a~2"]


@given(
    st.lists(st.sampled_from(["a", "a/b", "a~2", "b", "b/c/d", "b/c"]), unique=True),
    st.lists(st.sampled_from(["a", "a/b", "a~2", "b/c", "b/c/d"]), unique=True),
)
def test_appended_tars_are_neither_above_nor_below_others(old, new):
    old = [key for key in old if not folders_of([key]) & set(old)]
    new = [key for key in new if not folders_of([key]) & set(new)]
    frozen = assign_units([FoundInput(f"/old/{key}", key, 1, 1) for key in old], 1)
    found = FoundInputs.of(FoundInput(f"/new/{key}", key, 1, 1) for key in sorted(new))
    found.packed = True
    keys = [row.key for row in [*frozen, *append_units(frozen, found, 1)]]
    assert len(set(keys)) == len(old) + len(new)
    assert not folders_of(keys) & set(keys)


@given(st.permutations(["a", "b", "c", "d"]), st.sets(st.sampled_from("abcd")))
def test_append_knows_its_inputs_in_any_order(order, gone):
    frozen = assign_units(inputs(*(f"{name}.jpg" for name in order)), 3)
    kept = [f"{name}.jpg" for name in "abcde" if name not in gone]
    new = append_units(frozen, inputs(*kept), 3)
    assert [(row.key, row.unit) for row in new] == [("e", 2)]


def test_append_keeps_the_key_that_an_input_was_listed_with():
    frozen = assign_units([FoundInput("/x/a.jpg", "k/a", 1, 2)], 1)
    found = [FoundInput("/x/a.jpg", "a", 1, 2), FoundInput("/x/k/a.png", "k/a", 1, 2)]
    assert [row.key for row in append_units(frozen, found, 1)] == ["k/a.png"]
