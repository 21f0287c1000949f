"""Which paths --include and --exclude match."""

from __future__ import annotations

import pytest
from sourcekit import JPEG, found, put, scan

from latentcli.core.errors import UsageError
from latentcli.shards.sources.patterns import Patterns

PATHS = ["a.jpg", "cats/a.jpg", "cats/deep/b.png", "dogs/cats/c.jpg", "dogs/x [1].jpg", "UP.JPG"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("*.jpg", [0, 1, 3, 4]),
        ("a.jpg", [0, 1]),
        ("/a.jpg", [0]),
        ("./a.jpg", [0]),
        ("cats", [1, 2, 3]),
        ("cats/", [1, 2, 3]),
        ("/cats", [1, 2]),
        ("/cats/", [1, 2]),
        ("a.jpg/", []),
        ("cats/*", [1, 2]),
        ("cats/*.jpg", [1]),
        ("cats/**", [1, 2]),
        ("**/cats/**", [1, 2, 3]),
        ("**/cats/*.jpg", [1, 3]),
        ("cats/**/*.png", [2]),
        ("cats/**/a.jpg", [1]),
        ("*/cats", [3]),
        ("*", [0, 1, 2, 3, 4, 5]),
        ("**", [0, 1, 2, 3, 4, 5]),
        ("?.jpg", [0, 1, 3]),
        ("[ab].*", [0, 1, 2]),
        ("[!ab].*", [3]),
        ("[a-c].jpg", [0, 1, 3]),
        (r"x \[1\].jpg", [4]),
        ("x [[]1[]].jpg", [4]),
        ("*.{JPG,png}", [2, 5]),
        ("{cats,dogs}/*.jpg", [1, 4]),
        ("at", []),
    ],
)
def test_patterns(pattern, matched):
    expected = [PATHS[i] for i in matched]
    assert [path for path in PATHS if Patterns(include=(pattern,)).takes(path)] == expected
    kept = [path for path in PATHS if Patterns(exclude=(pattern,)).takes(path)]
    assert kept == [path for path in PATHS if path not in expected]


def test_any_of_include_and_none_of_exclude():
    patterns = Patterns(include=("*.jpg", "*.png"), exclude=("dogs", "UP*"))
    assert [path for path in PATHS if patterns.takes(path)] == PATHS[:3]
    assert Patterns().takes("anything") and not Patterns()


@pytest.mark.parametrize(
    ("pattern", "pruned"),
    [("cats", True), ("cats/", True), ("cats/**", True), ("*", True), ("cats/*.jpg", False)],
)
def test_folders_that_need_no_look(pattern, pruned):
    assert Patterns(exclude=(pattern,)).prunes("cats") == pruned
    assert not Patterns(include=(pattern,)).prunes("cats")


@pytest.mark.parametrize("pattern", ["", "/", "!*.jpg"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(UsageError, match="the pattern"):
        Patterns(exclude=(pattern,))


def test_what_a_pattern_left_out_is_counted(place):
    put(place, {"a.jpg": JPEG, "b.jpg": JPEG, "c.txt": b"x", "v/d.jpg": JPEG, "v/w/e.jpg": JPEG})
    patterns = Patterns(include=("*.jpg", "*.gif"), exclude=("b*", "/v/w", "nothing"))
    assert found(place, scan(patterns=patterns)) == (
        ["a.jpg", "v/d.jpg"],
        {"excluded": 2, "excluded_folders": 1},
    )
    assert patterns.unmet() == ["--include *.gif", "--exclude nothing"]


def test_folders_that_are_left_out_are_not_listed(tmp_path, monkeypatch):
    put(tmp_path, {"a.jpg": JPEG, "huge/b.jpg": JPEG})
    (tmp_path / "huge").rename(tmp_path / "huge.off")
    (tmp_path / "huge").symlink_to(tmp_path / "huge.off")
    listed = []
    import os

    whole = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or whole(path))
    assert found(tmp_path, scan(patterns=Patterns(exclude=("huge*",))))[0] == ["a.jpg"]
    assert listed == [str(tmp_path)]


@pytest.mark.parametrize(
    ("source", "exclude", "taken"),
    [
        ("*/*.jpg", "a/**", ["b/x.jpg"]),
        ("**", "/a", ["b/x.jpg"]),
        ("{a,b}/x.jpg", "a/x.jpg", ["b/x.jpg"]),
        ("{a,b}/*.jpg", "y*", ["a/x.jpg", "b/x.jpg"]),
        ("a/x.jpg", "y.jpg", ["x.jpg"]),
    ],
)
def test_they_hold_below_every_kind_of_source(place, source, exclude, taken):
    put(place, {"a/x.jpg": JPEG, "a/y.jpg": JPEG, "b/x.jpg": JPEG})
    assert found(f"{place}/{source}", scan(patterns=Patterns(exclude=(exclude,))))[0] == taken


def test_they_hold_for_lists(place, tmp_path):
    put(place, {"a/x.jpg": JPEG, "a/y.jpg": JPEG, "b/x.jpg": JPEG, "c/z.jpg": JPEG})
    lines = [f"{place}/a/x.jpg", f"{place}/b/x.jpg", f"{place}/c/"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    patterns = Patterns(exclude=("b/*", "/c/z.jpg"))
    taken, left = found(f"@{tmp_path}/list.txt", scan(patterns=patterns))
    assert (taken, left) == (["a/x.jpg"], {"excluded": 2})


def test_nothing_may_be_left_of_what_was_named(place):
    put(place, {"a.jpg": JPEG})
    assert found(f"{place}/a.jpg", scan(patterns=Patterns(include=("b*",)))) == (
        [],
        {"excluded": 1},
    )
