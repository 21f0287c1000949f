"""Which endings a folder has: right at every moment, and for few listings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from latentcli.core.fields import AUTO
from latentcli.shards.sources.companions import Companions
from latentcli.shards.sources.endings_there import PER_INPUT, SETTLED, EndingsThere

SUFFIXES = ("txt", "caption", "json")


@pytest.fixture
def listed(monkeypatch) -> list[int]:
    """How many names were given by each listing."""
    counts: list[int] = []
    scandir = os.scandir

    class Counting:
        def __init__(self, folder: str) -> None:
            self._entries = scandir(folder)
            counts.append(0)

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None:
            self._entries.close()

        def __iter__(self) -> Counting:
            return self

        def __next__(self) -> os.DirEntry[str]:
            entry = next(self._entries)
            counts[-1] += 1
            return entry

    monkeypatch.setattr(os, "scandir", Counting)
    return counts


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize(
    ("names", "there"),
    [
        ((), ()),
        (("1.jpg", "2.jpg.txt.png", "txt", "xtxt"), ()),
        (("1.jpg", "1.txt", "2.txt"), ("txt",)),
        (("1.json", "1.caption"), ("caption", "json")),
        # On a disk that knows no case, 1.txt finds this one.
        (("1.TXT", "1.Json"), ("txt", "json")),
        (SUFFIXES, ()),
        (tuple(f".{suffix}" for suffix in SUFFIXES), SUFFIXES),
    ],
)
def test_suffixes_that_no_file_has_are_left_out(tmp_path, names, there):
    write(tmp_path, *names)
    assert EndingsThere(str(tmp_path), SUFFIXES).of(10) == there


def test_letters_beyond_ascii_may_have_several_forms(tmp_path):
    assert EndingsThere(str(tmp_path), ("légende", "json")).of(10) == ("légende",)


def test_a_folder_that_cannot_be_listed_may_have_all(tmp_path):
    endings = EndingsThere(str(tmp_path / "folder"), SUFFIXES)
    assert endings.of(10) == SUFFIXES
    (tmp_path / "folder").mkdir()
    assert endings.of(10) == ()


def test_a_folder_that_stays_is_listed_again_once(tmp_path, listed):
    """When enough time has passed for a change to be seen."""
    write(tmp_path, *(f"{number}.jpg" for number in range(100)))
    # A look at the clock when it begins, and one at each answer.
    times = iter((0.0, 0.0, 1.0, SETTLED + 1, SETTLED + 2, SETTLED + 1000))
    endings = EndingsThere(str(tmp_path), SUFFIXES, lambda: next(times))
    assert [endings.of(10) for _ in range(5)] == [()] * 5
    assert listed == [100, 100, 100]


def test_what_appears_is_there_at_once(tmp_path):
    """Also within what the clock of the file system calls the same moment."""
    endings = EndingsThere(str(tmp_path), SUFFIXES, lambda: 0.0)
    for suffix in SUFFIXES:
        path = tmp_path / f"1.{suffix}"
        os.utime(tmp_path, ns=(10**18, 10**18))
        assert endings.of(10) == ()
        path.write_bytes(b"x")
        os.utime(tmp_path, ns=(10**18, 10**18))
        assert endings.of(10) == (suffix,)
        path.unlink()


def test_a_change_is_seen_where_a_listing_was_kept(tmp_path, listed):
    write(tmp_path, "1.jpg")
    times = iter((0.0, 0.0, SETTLED + 1, SETTLED + 2, SETTLED + 3, SETTLED + 4))
    endings = EndingsThere(str(tmp_path), SUFFIXES, lambda: next(times))
    assert [endings.of(10) for _ in range(3)] == [()] * 3 and len(listed) == 2
    write(tmp_path, "1.caption")
    os.utime(tmp_path, ns=(10**18, 10**18))
    assert endings.of(10) == ("caption",)
    # That one is kept no sooner than the first one was.
    write(tmp_path, "1.json")
    os.utime(tmp_path, ns=(10**18, 10**18))
    assert endings.of(10) == ("caption", "json")


def test_a_large_folder_that_changes_is_listed_now_and_then(tmp_path, listed):
    """Until then all may be there, so nothing is missed."""
    names = 40 * PER_INPUT
    write(tmp_path, *(f"{number}.jpg" for number in range(names)))
    endings = EndingsThere(str(tmp_path), SUFFIXES)
    answers = []
    for number in range(200):
        write(tmp_path, f"new{number}.jpg")
        answers.append(endings.of(1))
    assert set(answers) == {(), SUFFIXES}
    assert len(listed) < 14 and sum(listed) < 2 * 200 * PER_INPUT
    write(tmp_path, "1.txt")
    assert "txt" in endings.of(1)


def test_nothing_is_opened_where_no_text_is(tmp_path, monkeypatch):
    write(tmp_path, *(f"{number}.jpg" for number in range(50)))
    found = Companions([str(tmp_path)], AUTO)
    paths = [str(tmp_path / f"{number}.jpg") for number in range(50)]
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *given: opened.append(str(given[0])) or real(*given))
    assert not any(one.fields or one.problems for one in found.read(paths))
    assert opened == []
    write(tmp_path, "7.caption")
    assert [one.caption for one in found.read(paths)].count("x") == 1
    assert {Path(path).suffix for path in opened} == {".caption"}
