"""That files without a telling name are known by their first bytes, at a cost that has an end."""

from __future__ import annotations

import pytest
from sourcekit import HEIC, JPEG, PNG, found, put, scan

from latentcli.shards.sources import heads
from latentcli.shards.sources.heads import ends_of, head_of
from latentcli.shards.storage.paths import RemotePath


@pytest.fixture
def opened(monkeypatch):
    """Paths of the files that are opened to see what they are."""
    paths: list[str] = []
    whole = heads._parts

    def parts(path, size, **options):
        paths.append(path)
        return whole(path, size, **options)

    monkeypatch.setattr(heads, "_parts", parts)
    return paths


@pytest.fixture
def few(monkeypatch):
    """More than 20 files of a kind are many, and 4 are a sample."""
    monkeypatch.setattr(heads, "SAMPLE", 4)
    for module in ("local.LOCAL_LIMIT", "remote.REMOTE_LIMIT"):
        monkeypatch.setattr(f"latentcli.shards.sources.{module}", 20)


def test_only_what_might_be_a_picture_is_opened(place, opened):
    names = ["a.txt", "b.json", "c.py", "d.mp4", "e.zip", "f.npz", "g.tar.xz", ".h", "i.jpg"]
    put(place, dict.fromkeys(names, JPEG) | {"j": PNG, "k.large": b"x", "l.heic": HEIC})
    taken, left = found(place)
    assert taken == ["i.jpg", "j"]
    assert sorted(path.rpartition("/")[2] for path in opened) == ["j", "k.large", "l.heic"]
    assert (left[".large"], left[".heic"]) == (1, 1)


def test_a_picture_that_is_not_read_is_counted_as_what_it_is(place):
    put(place, {"a.jpg": JPEG, "b": HEIC, "c.download_1": HEIC, "d.heic": HEIC})
    assert found(place) == (["a.jpg"], {".heic": 3})


def test_sizes_and_times_are_those_of_the_files(place):
    put(place, {"a": JPEG, "b.jpg": JPEG})
    using = scan()
    from latentcli.shards.sources.find_inputs import expand_sources, inputs_of

    a, b = inputs_of(expand_sources([place], using))
    assert (a.key, a.size) == ("a", len(JPEG))
    assert a.mtime_ns > 10**18 and abs(a.mtime_ns - b.mtime_ns) < 10**11


def test_of_many_that_are_no_pictures_a_sample_is_opened(place, opened, few):
    put(place, {f"{i:03d}": b"words" for i in range(30)} | {"a.jpg": JPEG})
    using = scan()
    assert found(place, using) == (["a.jpg"], {"no_suffix": 30})
    assert (len(opened), using.left_out.unopened) == (4, 26)


def test_of_many_among_which_are_pictures_all_are_opened(place, few):
    put(place, {f"{i:03d}": JPEG if i % 2 else b"words" for i in range(30)})
    using = scan()
    taken, left = found(place, using)
    assert (len(taken), left, using.left_out.unopened) == (15, {"no_suffix": 15}, 0)


def test_few_of_each_kind_are_opened_however_many_others_there_are(place, few):
    many = {f"{i:03d}": b"words" for i in range(30)}
    put(place, many | {"a.jpg_large": JPEG, "b.picture": PNG})
    assert found(place) == (["a.jpg_large", "b.picture"], {"no_suffix": 30})


def test_a_remote_file_is_not_fetched_as_a_whole(monkeypatch):
    ranges = []
    monkeypatch.setattr(
        RemotePath,
        "read_range",
        lambda self, begin, end: ranges.append((begin, end)) or b"x" * (end - begin),
    )
    assert len(head_of("s3://bucket/a", 10**9)) == heads.HEAD
    assert len(ends_of("s3://bucket/a", 10**9)) == 2 * heads.HEAD
    assert ranges == [(0, 4096), (0, 4096), (10**9 - 4096, 10**9)]
    assert head_of("s3://bucket/a", 10) == b"x" * 10


@pytest.mark.parametrize("size", [0, 10, 4096, 5000, 9000])
def test_both_ends(place, size):
    data = bytes(i % 251 for i in range(size))
    put(place, {"a": data})
    expected = data if size <= 8192 else data[:4096] + data[-4096:]
    assert ends_of(f"{place}/a") == expected
    assert head_of(f"{place}/a") == data[:4096]


def test_what_cannot_be_read_has_no_head(place, tmp_path):
    assert head_of(f"{place}/nowhere") == head_of(str(tmp_path)) == b""
