"""Sources are written relative to roots, and come back as they were."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from harness.processor import processor_seconds
from hypothesis import example, given
from hypothesis import strategies as st

from latentcli.core.errors import StoreError
from latentcli.shards.store.roots import Roots, below, join, read_roots, write_roots

ODD = ["@1", "@", "@0", "pipe:cat", "-", "-::k", "a:", "s3:", "", ".", "..", "é", "\udcff", "x y"]
names = st.lists(st.sampled_from(ODD) | st.text(max_size=4), min_size=1, max_size=4).map("/".join)
tops = st.sampled_from(["/", "/data", "/data/cats", "s3://b", "s3://b/in", "https://h/d", "gs://"])
roots_of = st.lists(tops | st.tuples(tops, names).map(lambda parts: join(*parts)), max_size=4)
whole_sources = st.one_of(
    st.tuples(tops, names).map(lambda parts: join(*parts)),
    names.map(lambda name: f"pipe:{name}"),
    names.map(lambda name: f"-::{name}"),
    st.just("-"),
)
"""Every source is an absolute path, a URL, a command, or comes from standard input."""


@given(whole_sources, st.lists(roots_of, min_size=1, max_size=3))
@example("/data/@1/x", [["/data", "/other"]])
@example("/data/@0/x", [[]])
@example("/data/pipe:cat x", [["/data"]])
@example("/data/-::k", [["/data"]])
@example("/data/-", [["/data"]])
@example("/data/a://b", [["/data"]])
@example("/data//x", [["/data"]])
@example("/data", [["/data"]])
@example("/database/x", [["/data"]])
@example("/x", [["/"]])
@example("/b/x", [["/a"], ["/b"]])
def test_a_source_comes_back(source, added):
    roots = Roots()
    texts = []
    for paths in added:
        roots = roots.with_roots(paths, None)
        texts.append(roots.stored(source))
    # What was written before there were further roots is still that source.
    assert {roots.whole(text) for text in texts} == {source}


@given(names, names)
def test_two_sources_are_never_written_alike(one, other):
    roots = Roots(("/data", "/data2", "s3://b"))
    sources = {join(root, name) for root in (*roots.paths, "/", "gs://") for name in (one, other)}
    assert len({roots.stored(source) for source in sources}) == len(sources)


@given(whole_sources, roots_of)
def test_the_roots_above_a_source_are_those_that_it_is_below(source, paths):
    roots = Roots(tuple(paths))
    wanted = {root for root in roots.paths if below(root, source) is not None}
    assert set(roots.above(source)) == wanted


def test_a_source_is_written_as_fast_below_many_roots_as_below_one():
    folders = [f"/data/train/n{number:05d}" for number in range(5000)]

    def stored(below: Sequence[str]) -> list[str]:
        roots = Roots().with_roots(below, "/data/train")
        return [roots.stored(f"{folder}/x") for folder in folders]

    assert stored(folders)[4321] == "@4321/x"
    # It is 4 times as long.
    one = processor_seconds(lambda: stored(["/data/train"]))
    assert processor_seconds(lambda: stored(folders)) < 20 * one


def test_sources_are_written_as_short_as_can_be():
    roots = Roots(("/data", "s3://b/in"))
    for source, text in {
        "/data/cats/1.jpg": "cats/1.jpg",
        "s3://b/in/1.jpg": "@1/1.jpg",
        "/data/@1/x": "@0/@1/x",
        "/other/1.jpg": "/other/1.jpg",
        "s3://b/other": "s3://b/other",
        "/data/a.tar::x/y": "a.tar::x/y",
        "pipe:cat /data/a.tar": "pipe:cat /data/a.tar",
        "-::k": "-::k",
    }.items():
        assert roots.stored(source) == text
        assert roots.whole(text) == source


def test_without_roots_texts_stay_as_they_are():
    for text in ("/data/x", "x", "@1/x", "s3://b/x", "-::k"):
        assert Roots().whole(text) == Roots().stored(text) == text
    assert Roots(("/data",)).whole("@1/x") == "@1/x"


def test_roots_lie_behind_those_that_were_there():
    roots = Roots().with_roots(["/b", "/a", "/b/c"], "/")
    assert (roots.paths, roots.anchor) == (("/a", "/b"), "/")
    more = roots.with_roots(["/", "/a/x", "/b"], "/a")
    assert (more.paths, more.anchor) == (("/a", "/b", "/"), "/")


@given(names.filter(bool), st.sampled_from(["/old", "/old/in", "/else"]))
def test_what_moves_keeps_what_is_written(name, anchor):
    roots = Roots(("/old", "/else"), anchor)
    moved = roots.moved("/old", "s3://b/new")
    assert moved.paths == ("s3://b/new", "/else")
    assert moved.whole(roots.stored(f"/old/{name}")) == f"s3://b/new/{name}"
    assert moved.whole(roots.stored(f"/else/{name}")) == f"/else/{name}"
    assert moved.anchor == anchor.replace("/old", "s3://b/new")


def test_a_name_is_below_folders_only():
    assert below("/data", "/data/x") == below("/data/", "/data/x") == "x"
    assert below("/", "/data") == "data"
    assert below("/data", "/data") is None
    assert below("/data", "/data/") is None
    assert below("/data", "/database/x") is None
    assert below("s3://b", "s3://b/x/y") == "x/y"


def test_roots_are_read_as_they_were_written(tmp_path):
    assert read_roots(tmp_path) == Roots()
    roots = Roots(("/data/\udcff é", "s3://b/in"), "/data")
    write_roots(tmp_path, roots)
    assert read_roots(tmp_path) == roots
    write_roots(tmp_path, Roots(("/data",)))
    assert read_roots(tmp_path) == Roots(("/data",))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"roots": "/data"}', '{"roots": [5]}'])
def test_damaged_roots_are_refused(tmp_path, content):
    (tmp_path / "sources.json").write_text(content)
    with pytest.raises(StoreError, match=r"sources\.json is damaged"):
        read_roots(tmp_path)
