from __future__ import annotations

import os
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.shards.keys import (
    KeyIndex,
    escape,
    folders_of,
    free_key,
    free_tar_key,
    tar_keys,
    unique_keys,
)

# Few letters, so that stems, suffixes and escapes clash often.
names = (
    st.lists(st.sampled_from([b"a", b"b", b".", b"%", b"4", b"1", b"\n", b"\xff", "é".encode()]))
    .map(b"".join)
    .filter(lambda name: name not in (b"", b".", b".."))
)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join).map(os.fsdecode)
path_sets = st.lists(paths, min_size=1, max_size=12, unique=True)
# Object storages have files below files, and parts that no folder has.
tar_names = st.lists(
    st.sampled_from(["a", "b", "~", ".", "..", "", "a.tar", "a.tar.gz", "a.tgz", "b.TAR", ".tar"]),
    min_size=1,
    max_size=3,
).map("/".join)
tar_sets = st.lists(tar_names.filter(bool), min_size=1, max_size=12, unique=True)


def assert_prefix_free(keys):
    assert len(set(keys)) == len(keys)
    assert not folders_of(keys) & set(keys)


@settings(max_examples=300)
@given(tar_sets, st.randoms())
def test_tar_keys_are_prefix_free_safe_and_independent_of_order(found, chance):
    keys = tar_keys(found)
    assert_prefix_free(keys)
    assert not any({"", ".", ".."} & set(key.split("/")) for key in keys)
    shuffled = chance.sample(found, len(found))
    assert dict(zip(shuffled, tar_keys(shuffled), strict=True)) == dict(
        zip(found, keys, strict=True)
    )


@settings(max_examples=150)
@given(tar_sets, tar_sets)
def test_a_free_tar_key_is_neither_above_nor_below_another(old, new):
    taken = set(tar_keys(old))
    for key in tar_keys(new):
        taken.add(free_tar_key(key, taken, folders_of(taken)))
    assert_prefix_free(taken)
    assert len(taken) == len(old) + len(new)


def test_tar_keys():
    assert tar_keys(["x/000.tar", "x/001.tar.gz", "y.TGZ"]) == ["x/000", "x/001", "y"]
    packed = ["a.tar.zst", "b.tzst", "c.tar.xz", "d.txz", "e.tar.bz2", "f.tbz2"]
    assert tar_keys(packed) == ["a", "b", "c", "d", "e", "f"]
    assert tar_keys(["a.tar", "a.tgz", "b.tar"]) == ["a.tar", "a.tgz", "b"]
    assert tar_keys(["a.tar", "a/b.tar", "a.b.tar"]) == ["a.tar", "a/b", "a.b"]
    assert tar_keys(["a.tar", "a.tar/b.tar"]) == ["a", "a.tar/b"]
    assert tar_keys(["a.tar", "a/b.tar", "a.tar/c.tar"]) == ["a.tar~", "a/b", "a.tar/c"]
    assert tar_keys([".tar", "x/.tar"]) == [".tar", "x/.tar"]


def test_free_tar_keys():
    assert free_tar_key("a", {"b"}, set()) == "a"
    assert free_tar_key("a", {"a"}, set()) == "a~2"
    assert free_tar_key("a", {"a/b"}, {"a"}) == "a~2"
    assert free_tar_key("a/b", {"a", "a~2"}, set()) == "a~3/b"


@settings(max_examples=300)
@given(path_sets, st.randoms())
def test_keys_are_unique_safe_and_independent_of_order(found, chance):
    keys = unique_keys(found)
    assert len(set(keys)) == len(keys)
    for key in keys:
        key.encode()
        assert key and not key.startswith("/")
        assert not {"", ".", ".."} & set(key.split("/"))
        assert not any(unicodedata.category(char).startswith("C") for char in key)
    shuffled = chance.sample(found, len(found))
    assert dict(zip(shuffled, unique_keys(shuffled), strict=True)) == dict(
        zip(found, keys, strict=True)
    )


@settings(max_examples=300)
@given(paths, paths)
def test_escaped_paths_differ_where_paths_do(one, other):
    assert (escape(one) == escape(other)) == (one == other)


def test_suffix_stays_where_stems_clash():
    assert unique_keys(["a.jpg", "a.png", "b.jpg"]) == ["a.jpg", "a.png", "b"]
    assert unique_keys(["a.jpg", "a.png", "a.jpg.png"]) == ["a.jpg", "a.png", "a.jpg.png"]
    assert unique_keys(["a", "a.jpg"]) == ["a", "a.jpg"]
    assert unique_keys(["x.d/a", "x.d/..b.jpg", "...jpg"]) == ["x.d/a", "x.d/..b", "...jpg"]


def test_escapes():
    assert escape("100%.jpg") == "100%.jpg"
    assert escape("100%41") == "100%2541"
    assert escape("a\nb\x85\u2028") == "a%0Ab%C2%85%E2%80%A8"
    assert escape(os.fsdecode(b"\xe9.jpg")) == "%E9.jpg"
    assert escape("a//b/../c/.d") == "a/%2F/b/%2E%2E/c/.d"
    assert escape("./a/") == "%2E/a/%2F"


def test_free_key_is_not_taken():
    assert free_key("a", "/x/a.png", {"a"}) == "a.png"
    assert free_key("a", "/x/a.png", {"a", "a.png", "a.png~2"}) == "a.png~3"
    assert free_key("a.png", "/x/a.png", {"a.png"}) == "a.png~2"


@given(st.dictionaries(st.text(max_size=4), st.integers(0, 50)))
def test_index_finds_every_key(units):
    index = KeyIndex(units.items())
    assert len(index) == len(units)
    assert all(index.units(key) == [unit] for key, unit in units.items())
    assert index.units("longer than any key") == []
    assert list(index.suspects()) == []


def test_index_suspects_keys_that_come_twice():
    index = KeyIndex([("a", 0), ("b", 1), ("c", 2), ("a", 3)])
    assert list(index.suspects()) == [0, 3]
    assert index.units("a") == [0, 3]
