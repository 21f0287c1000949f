"""That what this program wrote is known again, in every kind of source, and nothing else is."""

from __future__ import annotations

import shutil

import pytest
from sourcekit import JPEG, PNG, found, put, scan

from latentcli.core.errors import UsageError
from latentcli.core.mark import MADE_BY
from latentcli.shards.sources.expand import expand_source
from latentcli.shards.sources.own_output import (
    INNER,
    MARK,
    OUTPUT,
    REPORT_NOTE,
    SHARED,
    is_own,
    make_own_folder,
    mark,
)

OWN = PNG + MADE_BY.encode()
MANIFEST = b'{"format_version": 1, "spec_hash": "0", "latent_space": "x#raw"}'
LINE = b'{"key": "a", "source": "/x/a.jpg", "unit": 0, "size": 1, "mtime_ns": 1}\n'
STORE = {"manifest.json": MANIFEST, "inputs.jsonl": LINE, "shards/000000.tar": b"x"}
REPORT = {"index.html": b"<html>", "files/about.txt": REPORT_NOTE.encode(), "files/000/1.png": OWN}


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


@pytest.fixture
def mixed(place):
    """A user's folder with what was made in it: a store, an output, a report, and in-place ones."""
    output = {
        MARK: OUTPUT,
        "a.png": OWN,
        "mine.jpg": JPEG,
        "cats/b.png": OWN,
        f"cats/{MARK}": INNER,
    }
    return put(
        place,
        {"a.jpg": JPEG, "a.png": OWN, MARK: SHARED}
        | {"c/d.jpg": JPEG, "c/d.png": OWN, f"c/{MARK}": b"damaged"}
        | below("x.latents", STORE)
        | below("x.images", output)
        | below("report", REPORT),
    )


LEFT = {".html": 1, "output_files": 4, "reports": 1, "stores": 1}


@pytest.mark.parametrize("pattern", ["", "/**"])
def test_nothing_of_it_is_an_input(mixed, pattern):
    assert found(f"{mixed}{pattern}") == (["a.jpg", "c/d.jpg", "x.images/mine.jpg"], LEFT)


def test_globs_do_not_reach_into_it(mixed):
    assert found(f"{mixed}/*/*.*") == (
        ["c/d.jpg", "x.images/mine.jpg"],
        {".html": 1, "output_files": 2, "stores": 1},
    )
    assert found(f"{mixed}/*/*/*", scan(include_output=True)) == (
        ["x.images/cats/b.png"],
        {".txt": 1, "stores": 1},
    )


def test_an_option_takes_the_pictures(mixed):
    taken, left = found(mixed, scan(include_output=True))
    assert taken == [
        *("a.jpg", "a.png", "c/d.jpg", "c/d.png", "report/files/000/1.png"),
        *("x.images/a.png", "x.images/cats/b.png", "x.images/mine.jpg"),
    ]
    assert left == {".html": 1, ".txt": 1, "stores": 1}


@pytest.mark.parametrize("name", ["x.images", "x.images/", "x.images/**"])
def test_an_output_that_is_named_is_taken(mixed, name):
    assert found(f"{mixed}/{name}") == (["a.png", "cats/b.png", "mine.jpg"], {})


def test_a_folder_inside_of_an_output_that_is_named_is_taken(mixed):
    assert found(f"{mixed}/x.images/cats") == (["b.png"], {})


def test_an_output_inside_of_one_that_is_named_is_not_taken(place):
    put(place, {MARK: OUTPUT, "a.png": OWN, "again/b.png": OWN, f"again/{MARK}": OUTPUT})
    assert found(place) == (["a.png"], {"output_files": 1})


def test_a_user_s_folder_with_own_pictures_in_it_is_not_an_output(mixed):
    assert found(f"{mixed}/c") == (["d.jpg"], {"output_files": 1})


def test_own_pictures_are_taken_where_there_is_no_mark(place):
    """Who moves a picture elsewhere wants it there."""
    put(place, {"a.png": OWN})
    assert found(place) == (["a.png"], {})


def test_files_that_are_named_are_taken(mixed, tmp_path):
    assert found(f"{mixed}/c/d.png") == (["d.png"], {})
    (tmp_path / "list.txt").write_text(f"{mixed}/a.png\n{mixed}/c/d.png\n")
    assert found(f"@{tmp_path}/list.txt") == (["a.png", "c/d.png"], {})


@pytest.mark.parametrize(
    "name", ["", "/", "/shards", "/shards/000000.tar", "/shards/*.tar", "/*/*", "/**"]
)
def test_a_store_that_is_named_is_refused(place, name):
    put(place, STORE)
    with pytest.raises(UsageError, match=r"place is a latent store, which is decoded"):
        expand_source(f"{place}{name}", scan())


@pytest.mark.parametrize("name", ["manifest.json", "inputs.jsonl"])
def test_a_damaged_store_is_one_all_the_same(place, name):
    put(place, {"a.jpg": JPEG} | below("x", STORE | {name: b""}))
    assert found(place) == (["a.jpg"], {"stores": 1})


def test_other_folders_of_shards_are_no_stores(place):
    files = {"manifest.json": b'{"name": "my data"}', "inputs.jsonl": b'{"id": 1}\n'}
    put(place, below("data", {"shards/a.jpg": JPEG, "about.txt": b"about me"} | files))
    assert found(place) == (
        ["data/shards/a.jpg"],
        {".json": 1, ".jsonl": 1, ".txt": 1},
    )


def test_marks_of_folders_that_are_made(tmp_path):
    top = tmp_path / "new" / "out"
    make_own_folder(top / "a" / "b", top)
    marks = {str(p.parent.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob(MARK)}
    assert marks == {"new/out": OUTPUT, "new/out/a": INNER, "new/out/a/b": INNER}
    before = marks
    (top / "a.png").write_bytes(OWN)
    make_own_folder(top / "c", top)
    make_own_folder(top, top)
    marks = {str(p.parent.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob(MARK)}
    assert marks == before | {"new/out/c": INNER}


def test_marks_of_folders_that_were_there(tmp_path):
    put(tmp_path, {"a.jpg": JPEG, "cats/b.jpg": JPEG})
    (tmp_path / "empty").mkdir()
    for name in ("cats", "empty", "dogs"):
        make_own_folder(tmp_path / name, tmp_path)
    marks = {str(p.parent.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob(MARK)}
    assert marks == {"cats": SHARED, "empty": INNER, "dogs": INNER}
    mark(tmp_path / "dogs")
    assert (tmp_path / "dogs" / MARK).read_bytes() == INNER


def test_a_file_in_the_way_is_an_error(tmp_path):
    put(tmp_path, {"a": JPEG})
    with pytest.raises(FileExistsError):
        make_own_folder(tmp_path / "a", tmp_path)
    with pytest.raises(FileExistsError):
        make_own_folder(tmp_path / "a" / "b", tmp_path)


def test_words_in_the_middle_of_a_file_are_nobody_s_mark(place):
    put(place, {"a.png": b"x" * 6000 + MADE_BY.encode() + b"x" * 6000, "b.png": OWN})
    assert not is_own(f"{place}/a.png") and is_own(f"{place}/b.png")
    assert not is_own(f"{place}/nowhere")


def test_a_copy_is_known_as_the_first_one_is(mixed, tmp_path):
    if mixed.startswith("/"):
        shutil.copytree(mixed, tmp_path / "copy")
        assert found(tmp_path / "copy") == found(mixed)
