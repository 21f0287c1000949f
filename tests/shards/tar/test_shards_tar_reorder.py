"""Tars whose samples are not in a row are read in an order in which they are."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from harness.tars import BLOCK, END, FORMATS, PICTURES, member, pairs, pax, tar

from latentcli.core.types import Sample
from latentcli.shards.tar import reorder
from latentcli.shards.tar.reorder import OrderedTar, find_order, places
from latentcli.shards.tar.samples import CAME_BEFORE, read_samples

Files = list[tuple[str, bytes]]


def in_order(path: Path) -> list[Sample]:
    """The samples as they are read, in another order where there is one."""
    spans = find_order(path, PICTURES)
    with path.open("rb") as file:
        stream = file if spans is None else OrderedTar(file, spans)
        return list(read_samples(stream, PICTURES))


def as_sets(samples: list[Sample]) -> dict[str, set[tuple[str, bytes]]]:
    assert not [sample.problem for sample in samples if sample.problem]
    return {s.key: {(m.field, m.data) for m in s.members} for s in samples}


def of(*names: str) -> Files:
    return [(name, name.encode() * 50) for name in names]


def put(path: Path, files: Files, form: str = "ustar") -> Path:
    path.write_bytes(tar(files, form))
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_pictures_first_and_texts_after(tmp_path, form):
    files = [(f"{'long' * 30}/{name}", data) for name, data in pairs(24)]
    whole = as_sets(in_order(put(tmp_path / "sorted.tar", files, form)))
    apart = [f for f in files if f[0].endswith("jpg")] + [f for f in files if f[0].endswith("txt")]
    path = put(tmp_path / "apart.tar", apart, form)
    assert as_sets(in_order(path)) == whole
    with path.open("rb") as stream:
        found = list(read_samples(stream, PICTURES))
    assert [s.problem for s in found] == [None] * 24 + [CAME_BEFORE] * 24
    assert [s.key for s in in_order(path)] == sorted(whole)


@pytest.mark.parametrize("seed", range(6))
def test_members_in_any_order(tmp_path, seed):
    files = pairs(90, seed) + of("p.1.jpg", "p.1.txt", "p.1.json", "p.2.jpg", "p.2.txt")
    files += of("q.left.jpg", "q.right.jpg", "q.prompt.txt", "README", "._0001.jpg")
    sound = [sample for sample in in_order(put(tmp_path / "a.tar", files)) if sample.members]
    random.Random(seed).shuffle(files)
    found = in_order(put(tmp_path / "b.tar", files))
    assert [(s.key, s.problem) for s in found if s.problem] == [
        ("README", "member README has no suffix; a sample's members are named <key>.<suffix>")
    ]
    assert as_sets([s for s in found if s.members]) == as_sets(sound)


@pytest.mark.parametrize(
    "files",
    [
        pairs(90),
        of(*(f"{at}.jpg" for at in range(90))),
        of(*(f"v1.{at}.{field}" for at in range(90) for field in ("jpg", "txt"))),
        of(*(f"{at}.{field}" for at in range(9) for field in ("image.jpg", "caption.txt"))),
        of("p.1.jpg", "p.2.jpg", "p.json", "a.jpg", "README", "a.txt", "LICENSE"),
        of("orphan.txt", "a.jpg", "a.txt", "b.jpg"),
        of("0.left.jpg", "0.right.jpg", "0.left.txt", "0.right.txt"),
        [],
    ],
)
def test_what_is_in_a_row_stays_as_it_is(tmp_path, files):
    assert find_order(put(tmp_path / "a.tar", files), PICTURES) is None


def test_dotted_keys_whose_texts_come_after(tmp_path):
    names = [f"v1.{at:03d}" for at in range(90)]
    files = of(*(f"{n}.jpg" for n in names), *(f"{n}.txt" for n in names))
    found = in_order(put(tmp_path / "a.tar", files))
    assert [(s.key, [m.field for m in s.members]) for s in found] == [
        (name, ["jpg", "txt"]) for name in names
    ]


def test_fields_that_come_one_after_the_other_are_one_sample(tmp_path):
    files = of(*(f"{at}.depth.png" for at in range(70)), *(f"{at}.image.jpg" for at in range(70)))
    found = in_order(put(tmp_path / "a.tar", files))
    assert [(s.key, [m.field for m in s.members]) for s in found] == [
        (f"{at}", ["depth.png", "image.jpg"]) for at in range(70)
    ]


def test_a_name_that_comes_twice_keeps_its_place(tmp_path):
    files = of("a.jpg", "b.jpg", "b.txt", "c.jpg", "a.jpg", "c.txt", "a.txt")
    found = in_order(put(tmp_path / "a.tar", files))
    assert [(s.key, [m.field for m in s.members]) for s in found] == [
        *[("a", ["jpg"]), ("b", ["jpg", "txt"]), ("c", ["jpg", "txt"]), ("a~2", [])],
    ]
    assert found[-1].problem == CAME_BEFORE


def test_tars_behind_each_other_are_not_mixed(tmp_path):
    one = tar(of("a.jpg", "b.jpg", "a.txt", "b.txt"))
    path = tmp_path / "a.tar"
    path.write_bytes(one + bytes(20 * BLOCK) + tar(of("a.jpg", "c.jpg", "a.json", "c.txt")))
    found = in_order(path)
    assert [(s.key, [m.field for m in s.members], s.problem) for s in found] == [
        *[("a", ["jpg", "txt"], None), ("b", ["jpg", "txt"], None)],
        *[("a~2", [], CAME_BEFORE), ("c", ["jpg", "txt"], None)],
    ]


SCATTERED = tar(of("a.jpg", "b.jpg", "a.txt", "b.txt"))


@pytest.mark.parametrize(
    "data",
    [
        SCATTERED[: -len(END)],
        SCATTERED[:-BLOCK],
        SCATTERED[:1500],
        SCATTERED[:5000],
        b"",
        b"no tar" * 1000,
        SCATTERED[:100] + b"x" + SCATTERED[101:],
        pax({"comment": "all"}, b"g") + SCATTERED,
        SCATTERED + b"more",
        tar(of("a.jpg", "b.jpg"), end=b"") + member("a.txt", b"", b"S", size=0) + b"x",
    ],
)
def test_what_is_no_sound_tar_has_no_order(tmp_path, data):
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    assert find_order(path, PICTURES) is None


def test_what_cannot_be_read_has_no_order(tmp_path):
    assert find_order(tmp_path / "gone.tar", PICTURES) is None
    assert find_order(tmp_path, PICTURES) is None


def test_a_header_in_the_data_of_the_last_member_does_no_harm(tmp_path):
    inner = tar(of("x.jpg", "x.txt"))[: 3 * BLOCK]
    files = [*pairs(3), ("9.jpg", inner)]
    assert find_order(put(tmp_path / "a.tar", files), PICTURES) is None


def test_headers_are_read_to_the_end_only_where_they_must(tmp_path, monkeypatch):
    asked: list[int] = []

    def counted(read, size, at=0):
        for place in places(read, size, at):
            asked.append(place.begin)
            yield place

    monkeypatch.setattr(reorder, "places", counted)
    monkeypatch.setattr(reorder, "_LAST_BYTES", 8 * BLOCK)
    files = pairs(1000)
    find_order(put(tmp_path / "a.tar", files), PICTURES)
    assert len(asked) < 70
    late = [*files, ("0000.json", b"{}"), ("0001.json", b"{}")]
    assert find_order(put(tmp_path / "a.tar", late), PICTURES) is not None
    assert len(asked) > 2000


def test_the_order_is_the_same_however_the_bytes_are_asked_for(tmp_path):
    files = pairs(40)
    random.Random(3).shuffle(files)
    path = put(tmp_path / "a.tar", files)
    spans = find_order(path, PICTURES)
    assert spans is not None
    wholes = []
    for size in (1, 700, 10**6):
        with path.open("rb") as file:
            stream = OrderedTar(file, spans)
            wholes.append(b"".join(iter(lambda s=stream, n=size: s.read(n), b"")))
    assert len(set(wholes)) == 1 and len(wholes[0]) == path.stat().st_size
    blocks = [spans[0], *itertools.chain(spans[1:])]
    assert sum(end - begin for begin, end in blocks) + len(END) == path.stat().st_size
