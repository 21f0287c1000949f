from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Sequence

import pytest
from harness.processor import processor_seconds
from harness.tars import (
    BLOCK,
    END,
    FORMATS,
    PICTURES,
    Drip,
    Failing,
    member,
    mutated,
    pairs,
    pax,
    tar,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tarkit import fields, grouped, of, samples

from latentcli.core.types import Member, Sample
from latentcli.shards.keys import escape
from latentcli.shards.tar.read import TarLimits
from latentcli.shards.tar.samples import CAME_BEFORE, payload, read_samples


def check(found: Sequence[Sample]) -> None:
    """What holds for the samples of every tar, however bad."""
    keys = [sample.key for sample in found]
    assert len(set(keys)) == len(keys)
    for sample in found:
        assert bool(sample.members) != bool(sample.problem)
        assert sample.key and sample.key.isprintable() and not sample.key.startswith("/")
        assert ".." not in sample.key.split("/")


def test_members_in_a_row_with_one_key_are_a_sample():
    assert grouped("a.jpg", "a.txt", "b.JPG", "c/d.e/a.jpg", "c/d.e/a.seg.png", "c/a.jpg") == [
        ("a", "jpg txt"),
        ("b", "JPG"),
        ("c/d.e/a", "jpg seg.png"),
        ("c/a", "jpg"),
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_groups_are_those_of_webdataset(tmp_path, form):
    import webdataset

    names = [
        "0/x.jpg",
        "0/x.cls",
        "0/x.seg.png",
        "0/y.json",
        "README",
        "0/y.jpg",
        "0/y.caption.txt",
    ]
    names += ["__meta__", "z.jpg", "é.jpg", "é.txt", "c d.png", "1.5/a.jpg", "__n__/a.jpg"]
    files = [(name, os.urandom(at * 300)) for at, name in enumerate(names)]
    path = tmp_path / "a.tar"
    path.write_bytes(tar(files, form))
    wanted = [
        {name: data for name, data in sample.items() if name not in ("__url__", "__local_path__")}
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    ]
    with path.open("rb") as stream:
        found = list(read_samples(stream, PICTURES))
    good = [
        {"__key__": sample.key, **{member.field: member.data for member in sample.members}}
        for sample in found
        if sample.problem is None
    ]
    assert len(good) == 6 and good == wanted
    assert [sample.key for sample in found if sample.problem] == ["README"]


def test_hidden_files_are_left_out_and_part_no_samples():
    names = ["._a.jpg", "a.jpg", ".DS_Store", "._a.txt", "a.txt", "d/.hidden.jpg"]
    names += ["PaxHeaders.12/b.jpg", "PaxHeaders/b.txt", "d/PaxHeaders.1/x.txt", "__m__/c.jpg"]
    assert grouped(*names) == [("a", "jpg txt")]
    data = member("d/", kind=b"5") + tar(of("./a.jpg", ".//a.txt", "././b.jpg"))
    assert fields(samples(data)) == [("a", "jpg txt"), ("b", "jpg")]


def test_names_without_a_suffix_are_told():
    found = samples(tar(of("README", "a.jpg", "b.", "a.txt", "x/LICENSE")))
    refused = [(key, "REFUSED") for key in ("README", "b.", "x/LICENSE")]
    assert fields(found) == [*refused, ("a", "jpg txt")]
    assert found[0].problem.startswith("member README has no suffix")


def test_a_key_that_comes_again_is_refused_each_time():
    found = samples(tar(of("a.jpg", "b.jpg", "a.txt", "b.jpg", "a.jpg")))
    assert fields(found) == [
        ("a", "jpg"),
        ("b", "jpg"),
        ("a~2", "REFUSED"),
        ("b~2", "REFUSED"),
        ("a~3", "REFUSED"),
    ]
    assert {sample.problem for sample in found[2:]} == {CAME_BEFORE}
    assert "tar --sort=name" in CAME_BEFORE
    again = samples(tar(of("a.jpg", "a.txt")) + tar(of("a.json", "b.jpg")))
    assert fields(again) == [("a", "jpg txt"), ("a~2", "REFUSED"), ("b", "jpg")]


@pytest.mark.parametrize("second", ["a.jpg", "a.JPG", "./a.jpg"])
def test_a_member_that_comes_twice_refuses_its_sample(second):
    found = samples(tar(of("a.jpg", "a.txt", second, "b.jpg")))
    assert fields(found) == [("a", "REFUSED"), ("b", "jpg")]
    assert "is there twice" in found[0].problem


LINK = member("a.txt", kind=b"2", link=b"/etc/passwd")


@pytest.mark.parametrize(
    ("data", "wanted", "words"),
    [
        (tar(of("a.jpg"), end=b"") + LINK, [("a", "REFUSED")], "symbolic link to /etc/passwd"),
        (LINK + tar(of("a.jpg"), end=b""), [("a", "REFUSED")], "symbolic link"),
        (member("../../x.jpg", b"1"), [("%2E%2E/%2E%2E/x", "REFUSED")], "leave its folder"),
        (member("/etc/x.jpg", b"1"), [(escape("/etc/x"), "REFUSED")], "absolute"),
        (member("dev", kind=b"3"), [("dev", "REFUSED")], "character device"),
        (member("", b"1"), [("(no name)", "REFUSED")], "no name"),
        (member(".x.jpg", kind=b"2"), [(".x.jpg", "REFUSED")], "symbolic link"),
        (
            tar(of("p.1.jpg", "p.2.jpg"), end=b"") + member("p.2.txt", kind=b"1"),
            [("p.1", "jpg"), ("p.2", "REFUSED")],
            "hard link",
        ),
    ],
)
def test_one_refused_member_refuses_its_sample_alone(data, wanted, words):
    found = samples(tar(of("0.jpg"), end=b"") + data + tar(of("z.jpg")))
    check(found)
    good = [("0", "jpg"), ("z", "jpg")]
    assert [found for found in fields(found) if found not in good] == wanted
    assert [found for found in fields(found) if found in good] == good
    assert words in next(sample.problem for sample in found if sample.problem)


def test_keys_are_printable_and_data_is_as_it_was():
    odd = ["new\nline.jpg", "tab\t.jpg", "raw\udcff.jpg", "é%20.jpg", "nul\0.jpg", "f\x1b.a\nb"]
    data = b"".join(pax({"path": name}) + member("x", b"1") for name in odd) + END
    found = samples(data)
    check(found)
    assert [sample.key for sample in found] == [
        *("new%0Aline", "tab%09", "raw%FF", "é%2520", "nul%00", "f%1B")
    ]
    assert found[-1].members == (Member("a\nb", b"1"),)


def test_samples_that_are_too_large_are_refused_alone():
    small = TarLimits(sample_bytes=10_000, member_bytes=5000)
    a = [("a.jpg", bytes(4000)), ("a.txt", b"1"), ("a.json", bytes(4000)), ("a.x", bytes(4000))]
    dotted = [(f"p.{at}.{name}", bytes(4000)) for at in range(2) for name in ("jpg", "x", "y")]
    found = samples(tar([*of("0.jpg"), *a, ("b.jpg", bytes(5001)), *of("b.txt", "c.jpg")]), small)
    assert fields(found) == [("0", "jpg"), ("a", "REFUSED"), ("b", "REFUSED"), ("c", "jpg")]
    assert (
        found[1].problem == "its members have more than 10,000 bytes together, which is the limit"
    )
    assert "b.jpg has 5,001 bytes" in found[2].problem
    found = samples(tar([*dotted, *of("z.jpg")]), small)
    assert fields(found) == [("p", "REFUSED"), ("z", "jpg")]


def test_the_last_sample_of_a_broken_tar_is_never_good():
    data = tar(of("a.jpg", "a.txt", "b.jpg"))
    lost = "This sample and all after it are lost: make or fetch the tar again"
    for size, wanted, words in (
        (0, [("(rest)", "REFUSED")], "the tar is empty"),
        (700, [("a", "REFUSED")], "inside member a.jpg"),
        (1024, [("a", "REFUSED")], "ends at byte 1,024 without its end mark"),
        (1700, [("a", "REFUSED")], "inside member a.txt"),
        (2048, [("a", "REFUSED")], "without its end mark"),
        (2100, [("a", "REFUSED")], "inside a header"),
        # The header of the next key tells that a was complete.
        (2560, [("a", "jpg txt"), ("b", "REFUSED")], "inside member b.jpg"),
        (3072, [("a", "jpg txt"), ("b", "REFUSED")], "without its end mark"),
        (3584, [("a", "jpg txt"), ("b", "REFUSED")], "inside its end mark"),
    ):
        found = samples(data[:size])
        assert fields(found) == wanted
        assert words in found[-1].problem and found[-1].problem.endswith(lost)
    assert fields(samples(data)) == [("a", "jpg txt"), ("b", "jpg")]
    rest = samples(data + b"garbage")
    assert fields(rest) == [("a", "jpg txt"), ("b", "jpg"), ("b (rest)", "REFUSED")]
    for name in ("._a.txt", "PaxHeaders/b.txt"):
        hidden = samples(tar(of("a.jpg"), end=b"") + member(name, b"x" * 900)[:700])
        assert fields(hidden) == [("a", "REFUSED")]


def test_a_failing_read_is_told_and_ends_the_tar():
    data = tar(of("a.jpg", "b.jpg"))
    found = list(read_samples(Failing(data[:1200]), PICTURES))
    assert fields(found) == [("a", "REFUSED")] and "the disk is gone" in found[0].problem
    found = list(read_samples(Failing(data), PICTURES))
    assert fields(found) == [("a", "jpg"), ("b", "jpg"), ("b (rest)", "REFUSED")]


def prefix_and_at_most_one_problem(data: bytes, size: int) -> None:
    whole, part = samples(data), samples(data[:size])
    check(part)
    if part != whole[: len(part)]:
        *part, last = part
        assert last.problem is not None and not last.members
        assert part == whole[: len(part)]


SOME = ["a.jpg", "a.txt", "b.jpg", "b.seg.png", "c.1.jpg", "c.1.txt", "c.2.jpg", "c.d.txt", "d"]
names = st.lists(st.sampled_from(SOME), max_size=8)
tars = st.lists(
    st.builds(
        lambda names, form, size: tar([(name, b"x" * size) for name in names], form),
        *(names, st.sampled_from(sorted(FORMATS)), st.sampled_from([0, 1, 511, 512, 600])),
    ),
    min_size=1,
    max_size=2,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(tars, st.data())
def test_a_cut_tar_gives_its_first_samples_and_one_problem(data, draw):
    prefix_and_at_most_one_problem(data, draw.draw(st.integers(0, len(data))))


def test_every_cut_of_one_tar():
    files = [*pairs(2), *of("é" * 70 + ".jpg", "p.1.jpg", "p.1.txt", "p.2.jpg", "x", "z.jpg")]
    data = tar(files, "pax")
    for size in range(0, len(data), 7):
        prefix_and_at_most_one_problem(data, size)


def test_every_cut_between_blocks_of_a_tar_with_one_key():
    data = tar(of(*(f"p.{at:03d}.{field}" for at in range(60) for field in ("jpg", "txt"))))
    for size in range(0, len(data), BLOCK):
        prefix_and_at_most_one_problem(data, size)


@settings(max_examples=150, deadline=None)
@given(tars, st.sampled_from([1, 3, 511, 513]), st.randoms())
def test_bytes_may_come_as_they_like(data, most, chance):
    for given_bytes in (data, data[: chance.randrange(len(data))]):
        assert list(read_samples(Drip(given_bytes, most), PICTURES)) == samples(given_bytes)


@settings(max_examples=400, deadline=None)
@given(tars, st.data(), st.integers(0, 255))
def test_any_byte_may_change(data, draw, value):
    at = draw.draw(st.integers(0, len(data) - 1))
    check(samples(data[:at] + bytes([value]) + data[at + 1 :]))


def test_300_damaged_tars_are_accounted_for():
    dotted = [(f"p.{at}.{name}", b"x" * at) for at in range(40) for name in ("jpg", "txt")]
    good = tar(pairs(20), "pax") + tar([("l" * 150 + ".jpg", b"1"), *dotted], "gnu")
    known = {sample.key for sample in samples(good)}
    assert len(known) == 61
    refused = lost = 0
    for bad in mutated(good, 300, seed=4):
        found = samples(bad)
        check(found)
        refused += any(sample.problem for sample in found)
        missing = known - {sample.key for sample in found if sample.problem is None}
        lost += bool(missing) and not any(sample.problem for sample in found)
    assert refused > 200
    # What is neither there nor told of had its name changed, or was taken out between two members.
    assert lost <= 3


def test_keys_that_come_again_and_again_take_no_long_time():
    """Four times as many take four times as long, not sixteen times."""
    some, many = (tar(of("a.jpg", "b.jpg"), end=b"") * count + END for count in (1250, 5000))
    found = samples(many)
    check(found)
    assert len(found) == 10_000 and found[-1].key == "b~5000"
    assert processor_seconds(lambda: samples(many)) < 8 * processor_seconds(lambda: samples(some))


@pytest.mark.slow
def test_small_samples_are_read_fast():
    files = [(f"{at:06d}.{field}", b"x" * 600) for at in range(20_000) for field in ("jpg", "txt")]
    data = tar(files)
    assert len(samples(data)) == 20_000

    def by_tarfile() -> None:
        with tarfile.open(fileobj=io.BytesIO(data)) as opened:
            for at in opened:
                opened.extractfile(at).read()

    # It takes 0.7 times as long.
    assert processor_seconds(lambda: samples(data)) < 2 * processor_seconds(by_tarfile)


def test_memory_is_that_of_one_sample():
    code = """
        import io, resource
        from harness.tars import END, PICTURES, member
        from latentcli.shards.tar.samples import read_samples

        class Many:
            def __init__(self, dotted, count):
                self.parts = self.make(dotted, count)
                self.held = b""
            def make(self, dotted, count):
                for at in range(count):
                    key = f"v1.{at}" if dotted else f"{at}"
                    yield member(f"{key}.jpg", data) + member(f"{key}.txt", b"x")
                yield END
            def read(self, size):
                self.held = self.held or next(self.parts, b"")
                part, self.held = self.held[:size], self.held[size:]
                return part

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

        data = bytes(1 << 20)
        for dotted, most in ((False, 60), (True, 250)):
            start = peak()
            found = read_samples(Many(dotted, 600), PICTURES)
            count = sum(sample.problem is None for sample in found)
            assert count == 600, count
            assert peak() - start < most, (dotted, peak() - start)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, check=True, timeout=60
    )


@pytest.mark.parametrize(
    ("names", "picture", "others"),
    [
        (["jpg", "txt"], "jpg", ["txt"]),
        (["seg.png", "txt", "PNG", "jpg"], "PNG", ["seg.png", "txt", "jpg"]),
        (["caption.txt", "image.JPG", "mask.png"], "image.JPG", ["caption.txt", "mask.png"]),
        (["txt", "jpg.txt"], None, ["txt", "jpg.txt"]),
        ([], None, []),
    ],
)
def test_the_picture_is_a_plain_suffix_or_the_first_that_ends_in_one(names, picture, others):
    found, rest = payload(Sample("k", tuple(Member(name, b"") for name in names)), PICTURES)
    assert (found.field if found else None) == picture
    assert [member.field for member in rest] == others
