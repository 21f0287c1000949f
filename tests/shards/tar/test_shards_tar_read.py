from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import textwrap

import pytest
from harness.tars import (
    END,
    FORMATS,
    Drip,
    Failing,
    base_256,
    member,
    pairs,
    pax,
    pax_record,
    tar,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.shards.tar.header import MOST_NAME_CHARACTERS
from latentcli.shards.tar.read import TarEntry, TarLimits, read_members

GOOD = member("last.jpg", b"sound")
PASSED = TarEntry("last.jpg", b"sound")
MARK = TarEntry("", b"", kind="end")


def entries(data: bytes, limits: TarLimits = TarLimits()) -> list[TarEntry]:  # noqa: B008
    return list(read_members(io.BytesIO(data), limits))


def refused(data: bytes, limits: TarLimits = TarLimits()) -> TarEntry:  # noqa: B008
    """The one refused member of a tar, which must be read on behind it."""
    bad, *rest = entries(data + GOOD + END, limits)
    assert rest == [PASSED, MARK]
    assert bad.problem is not None and bad.data == b"" and bad.kind == "member"
    return bad


def broken(data: bytes, limits: TarLimits = TarLimits()) -> TarEntry:  # noqa: B008
    """The last entry of a tar that must be given up."""
    *good, bad = entries(data, limits)
    assert bad.kind == "broken" and bad.problem is not None and bad.data == b""
    assert all(entry.problem is None for entry in good)
    return bad


NAMES = [
    "a.jpg",
    "folder/b.txt",
    "umlaut äöü 写真.jpg",
    "d" * 90 + "/" + "n" * 90 + ".jpg",
    "long/" * 60 + "name.jpg",
    "new\nline.txt",
    "raw \udcff\udcfe.jpg",
]


@pytest.mark.parametrize("form", FORMATS)
def test_files_of_every_format_come_back(form):
    fits = {"ustar": 200, "gnu": 9999, "pax": 9999}[form]
    files = [(name, os.urandom(100 * at)) for at, name in enumerate(NAMES) if len(name) < fits]
    found = entries(tar(files, form))
    assert [(entry.name, entry.data) for entry in found] == [*files, ("", b"")]
    assert all(entry.problem is None for entry in found)


@pytest.mark.parametrize("form", FORMATS)
def test_a_real_file_with_folders_agrees_with_tarfile(tmp_path, form):
    path = tmp_path / "a.tar"
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name, data in (("x.jpg", b"1" * 513), ("sub/y.txt", b""), ("sub/ü.json", b"{}")):
        (tmp_path / "in" / name).write_bytes(data)
    with tarfile.open(path, "w", format=FORMATS[form]) as file:
        file.add(tmp_path / "in", arcname=".")
    with tarfile.open(path) as file:
        wanted = {
            info.name.removeprefix("./"): file.extractfile(info).read()
            for info in file
            if info.isfile()
        }
    with path.open("rb") as stream:
        found = {entry.name: entry.data for entry in read_members(stream) if entry.kind != "end"}
    assert len(found) == 3 and found == wanted


def test_gnu_tar_itself_is_understood(tmp_path):
    names = ["short.jpg", "l" * 150 + ".jpg", "wörter.txt"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    for form in ("v7", "oldgnu", "gnu", "ustar", "pax"):
        chosen = [name for name in names if len(name) < 90 or form not in ("v7", "ustar")]
        command = ["tar", "-C", tmp_path, "--format", form, "-cf", "-", *chosen]
        try:
            made = subprocess.run(command, capture_output=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no GNU tar")
        found = [entry for entry in entries(made) if entry.kind != "end"]
        assert [(entry.name, entry.data) for entry in found] == [(n, n.encode()) for n in chosen]


def test_no_read_asks_for_what_a_header_claims():
    asked = []

    class Asked(io.BytesIO):
        def read(self, size):
            asked.append(size)
            return super().read(size)

    for limit in (1 << 10, 1 << 40):
        head = member("a.jpg", size=base_256(1 << 39))
        (cut,) = read_members(Asked(head + bytes(9999)), TarLimits(member_bytes=limit))
        assert cut.kind == "broken"
    assert 0 < max(asked) <= 8 << 20


def test_old_and_rare_headers():
    v7 = member("old.jpg", b"1", kind=b"\0", magic=b"")
    signed = bytearray(member(b"\xe4.jpg", b"2"))
    total = sum(signed[:148]) + sum(signed[156:512]) + 256
    signed[148:156] = b"%06o\0 " % (total - 256)
    split = member("name.jpg", b"3", prefix=b"a/prefix")
    gnu = member("gnu.jpg", b"4", magic=b"ustar  \0", prefix=b"12345670123")
    data = v7 + signed + split + gnu + member("n.jpg", b"5", kind=b"7")
    data += member("big.jpg", b"6", size=base_256(1)) + member(
        "sp.jpg", b"7", size=b"        1 \0\0"
    )
    found = [(entry.name, entry.data) for entry in entries(data + END)][:-1]
    names = ["old.jpg", "\udce4.jpg", "a/prefix/name.jpg", "gnu.jpg", "n.jpg", "big.jpg", "sp.jpg"]
    assert found == [(name, b"%d" % at) for at, name in enumerate(names, 1)]


def test_extended_headers_count_for_the_next_member_or_for_all():
    data = pax({"comment": "x", "path": "lang/ü.jpg", "size": "4"}) + member("no.jpg", b"", size=0)
    data = data[:-512] + member("no.jpg", b"data", size=0)
    data += member("././@LongLink", b"long/name.txt\0", kind=b"L") + member("x", b"1")
    data += member("plain.jpg", b"2") + pax({"path": "all.jpg"}, kind=b"g")
    data += member("one", b"3") + member("two", b"4") + pax({"path": ""}) + member("none", b"5")
    found = [(entry.name, entry.data) for entry in entries(data + END + member("new", b"6") + END)]
    assert found == [
        ("lang/ü.jpg", b"data"),
        ("long/name.txt", b"1"),
        ("plain.jpg", b"2"),
        ("all.jpg", b"3"),
        ("all.jpg", b"4"),
        ("none", b"5"),
        ("", b""),
        ("new", b"6"),
        ("", b""),
    ]


def test_folders_and_labels_are_left_out():
    data = member("folder/", kind=b"5") + member("old/", kind=b"\0") + member("label", kind=b"V")
    data += member("../", kind=b"5") + member("dump", b"list", kind=b"D") + member("f/", size=0)
    assert entries(data + GOOD + END) == [PASSED, MARK]


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (member("../a.jpg", b"x"), "../a.jpg", "leave its folder"),
        (member("a/../../b.jpg", b"x" * 600), "a/../../b.jpg", "leave its folder"),
        (member("a\\..\\b.jpg", b"x"), "a\\..\\b.jpg", "leave its folder"),
        (member("/etc/a.jpg", b"x"), "/etc/a.jpg", "absolute"),
        (member("C:\\a.jpg", b"x"), "C:\\a.jpg", "absolute"),
        (member("", b"x"), "", "no name"),
        (member("./.", b"x"), "", "no name"),
        (member("a.jpg", kind=b"1", link=b"b.jpg", size=700), "a.jpg", "hard link to b.jpg"),
        (member("a.jpg", kind=b"2", link=b"/etc/passwd"), "a.jpg", "symbolic link to /etc/passwd"),
        (member("a.jpg", kind=b"3"), "a.jpg", "character device"),
        (member("a.jpg", kind=b"4", size=900), "a.jpg", "block device"),
        (member("a.jpg", kind=b"6"), "a.jpg", "named pipe"),
        (member("a.jpg", b"xyz", kind=b"M"), "a.jpg", "another volume"),
        (member("a.jpg", b"xyz", kind=b"\xfe"), "a.jpg", r"unknown kind b'\xfe'"),
        (member("a.jpg/", b"xyz"), "a.jpg", "folder"),
        (pax({"path": "../x.jpg"}) + member("ok.jpg", b"1"), "../x.jpg", "leave"),
        (pax({"linkpath": "/far"}) + member("l.jpg", kind=b"2"), "l.jpg", "to /far"),
        (pax({"size": "600"}) + member("h.jpg", kind=b"1"), "h.jpg", "hard link"),
        (member("n", b"/r.jpg", kind=b"L") + member("ok.jpg", b"1"), "/r.jpg", "absolute"),
        (member("n", b"/r", kind=b"K") + member("k.jpg", kind=b"1"), "k.jpg", "link to /r"),
    ],
)
def test_dangerous_members_are_refused_and_passed_over(data, name, words):
    bad = refused(data)
    assert bad.name == name
    assert words in bad.problem and bad.problem.startswith("member ")


def test_control_characters_are_kept_in_names_and_escaped_in_messages():
    odd = "a\x00\x1b[2J\n.jpg"
    kept, bad, *_ = entries(
        pax({"path": odd}) + member("x", b"1") + pax({"path": odd}) + member("x", kind=b"2") + END
    )
    assert kept == TarEntry(odd, b"1")
    assert bad.problem.startswith(r"member a\x00\x1b[2J\n.jpg is a symbolic link")


def test_a_name_longer_than_any_path_is_refused():
    bad = refused(pax({"path": "n" * 500_000 + ".jpg"}) + member("x", b"1"))
    assert len(bad.name) == MOST_NAME_CHARACTERS
    assert "500,004 characters" in bad.problem and len(bad.problem) < 400


def test_sparse_files_are_refused_with_all_their_blocks():
    old = bytearray(member("s.jpg", b"", kind=b"S", magic=b"ustar  \0", size=5))
    old[482] = 1
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    more_map = bytes(504) + b"\1" + bytes(7)
    data = bytes(old) + more_map + bytes(512) + b"12345".ljust(512, b"\0")
    assert "sparse" in refused(data).problem
    new = pax({"GNU.sparse.major": "1", "GNU.sparse.name": "real.jpg"}) + member("G/x", b"x" * 600)
    assert refused(new).name == "real.jpg"
    assert "sparse" in refused(new).problem
    marked = member("G/x", b"x" * 600, magic=b"ustar\x0000", prefix=b"p" * 155)
    marked = bytearray(pax({"GNU.sparse.map": "0,1"}) + marked)
    marked[1024 + 482] = 1
    marked[1024 + 148 : 1024 + 156] = b" " * 8
    marked[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(marked[1024:1536])
    assert "sparse" in refused(bytes(marked)).problem


def test_a_member_that_is_too_large_is_skipped():
    bad = refused(member("big.jpg", bytes(1001)), TarLimits(member_bytes=1000))
    assert "1,001 bytes, allowed are 1,000" in bad.problem
    assert entries(member("a.jpg", bytes(1000)) + END, TarLimits(member_bytes=1000))[0].data


def test_large_members_are_skipped_and_cut_without_being_held():
    """In a process of its own, because only a peak that nothing came before can be measured."""
    code = """
        import resource
        from harness.tars import END, Endless, base_256, member
        from latentcli.shards.tar.read import read_members

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

        start = peak()
        head, size = member("big.jpg", size=base_256(3 << 30)), 3 << 30
        big, end = read_members(Endless(head, size, END))
        assert "3,221,225,472 bytes" in big.problem and end.kind == "end"
        # Claims what may be held, and is short.
        (cut,) = read_members(Endless(member("a.jpg", size=1 << 30), 1 << 20))
        assert cut.kind == "broken", cut
        for claim in (10 << 30, 2**63, 2**93):
            (cut,) = read_members(Endless(member("evil.jpg", size=base_256(claim)), 1000))
            assert cut.kind == "broken" and cut.name == "evil.jpg", cut
        assert peak() - start < 60, peak() - start
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, check=True, timeout=60
    )


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"X", b"g"])
def test_extended_headers_have_a_limit(kind):
    head = member("a.jpg", b"1") + member("x", kind=kind, size=base_256(10 << 30))
    bad = broken(head + GOOD + END)
    assert "10,737,418,240 bytes at byte 1,024, allowed are 1,048,576" in bad.problem


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b"99 path=a\n",
        b"3 path=a\n",
        b"0 path=a\n",
        b"9 path=ab\n",
        pax_record("path", "x") + b"\0\0more",
        pax_record("size", "-1"),
        pax_record("size", "0x10"),
        pax_record("size", "9" * 5000),
    ],
)
def test_records_that_cannot_be_read_break_the_tar(body):
    bad = broken(member("x", body, kind=b"x") + GOOD + END)
    assert bad.problem.startswith("the tar is damaged at byte 0: the extended header")


def test_many_records_take_no_long_time():
    limits = TarLimits()
    body = b"6 a=b\n" * (limits.header_bytes // 6)
    found = entries(member("x", body, kind=b"x") + GOOD + END)
    assert found == [PASSED, MARK]
    chain = member("x", pax_record("path", "y"), kind=b"x") * 20_000
    assert [entry.name for entry in entries(chain + GOOD + END)] == ["y", ""]


def test_the_end_may_be_padded_and_followed_by_another_tar():
    one, two = tar([("a.jpg", b"1")]), tar([("b.jpg", b"2")])
    for data in (one + two, one + bytes(512 * 7) + two + bytes(9999)):
        assert [(entry.kind, entry.name) for entry in entries(data)] == [
            ("member", "a.jpg"),
            ("end", ""),
            ("member", "b.jpg"),
            ("end", ""),
        ]
    assert entries(END) == [MARK]


@pytest.mark.parametrize(
    "rest", [b"x", b"garbage" * 100, member("a.jpg")[:500], b"\0" * 600 + b"x"]
)
def test_other_things_behind_the_end_mark_are_told(rest):
    bad = broken(tar([("a.jpg", b"1")]) + rest)
    assert "after its end mark, at byte 2," in bad.problem and bad.name == ""


@pytest.mark.parametrize(
    ("data", "words", "name"),
    [
        (b"", "the tar is empty: it has 0 bytes", ""),
        (GOOD, "the tar ends at byte 1,024 without its end mark", ""),
        (GOOD + bytes(512), "cut short at byte 1,536, inside its end mark", ""),
        (GOOD + bytes(700), "cut short at byte 1,724, inside its end mark", ""),
        (GOOD + bytes(512) + GOOD + END, "damaged at byte 1,024: zeros", ""),
        (GOOD + pax({"path": "x"}) + END, "damaged at byte 2,048: zeros", ""),
        (GOOD + GOOD[:100], "cut short at byte 1,124, inside a header", ""),
        (GOOD + GOOD[:514], "cut short at byte 1,538, inside member last.jpg", "last.jpg"),
        (GOOD + GOOD[:-1], "cut short at byte 2,047, inside member last.jpg", "last.jpg"),
        (GOOD + pax({"path": "x"})[:520], "cut short at byte 1,544, inside an extended", ""),
        (GOOD + b"x" * 512 + END, "damaged at byte 1,024: the header there has a wrong", ""),
        (
            GOOD + member("a", size=base_256(-1)) + END,
            "byte 1,024: the header there has a size",
            "",
        ),
        (GOOD + member("a", size=b"+0000000012") + END, "size that is not a number", ""),
        (GOOD + member("a", size=b"1_0") + END, "size that is not a number", ""),
        (member("folder/", kind=b"D", size=9), "inside member folder/", ""),
        (gzip.compress(GOOD + END, mtime=0), "it looks like a gzip file; unpack it first", ""),
        (gzip.compress(GOOD[:9], mtime=0), "it looks like a gzip file; unpack it first", ""),
        (b"<html>" * 200, "this is not a tar: it looks like an HTML page", ""),
        (b"<!doctype html>404", "this is not a tar: it looks like an HTML page", ""),
        (b'{"error": "denied"}', "this is not a tar: it looks like a JSON document", ""),
        (b"no such key\n" * 30, "this is not a tar: it looks like text ('no such key", ""),
        (b"\x93NUMPY" * 200, "this is not a tar: it begins with the bytes 93 4e", ""),
        (b"x" + GOOD[1:] + END, "damaged at byte 0: the header there has a wrong checksum", ""),
        (GOOD[:300], "cut short at byte 300, inside a header", ""),
        (b"short", "cut short at byte 5, inside a header", ""),
    ],
)
def test_damage_says_what_and_where(data, words, name):
    bad = broken(data)
    assert words in bad.problem
    assert bad.name == name


def test_a_read_that_fails_breaks_the_tar_where_it_was():
    data = tar([("a.jpg", b"1" * 600), ("b.jpg", b"2" * 600)])
    for at, where in (
        (0, "at byte 0, where a header should be"),
        (100, "at byte 100, where a header should be"),
        (2600, "at byte 2,600, inside member b.jpg"),
        (1536, "at byte 1,536, where a header should be"),
        (3072 + 600, "at byte 3,672, inside its end mark"),
        (len(data), f"at byte {len(data):,}, after an end mark"),
    ):
        *_, bad = read_members(Failing(data[:at]))
        assert bad.kind == "broken"
        assert bad.problem == f"reading the tar failed {where}: the disk is gone"
    *_, bad = read_members(Failing(data[:2600], EOFError()))
    assert bad.problem.endswith("inside member b.jpg: EOFError")


def test_bytes_may_come_as_they_like():
    data = tar(pairs(4), "pax") + tar([("l" * 200, b"long")], "gnu")
    whole = entries(data)
    assert len(whole) == 11
    for most in (1, 7, 511, 512, 513, 65_537):
        assert list(read_members(Drip(data, most))) == whole


GIVEN = tar([("é" * 60 + ".jpg", b"\xff" * 700), ("b.txt", b"x"), ("c.png", b"")], "pax")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GIVEN) - 1), st.integers(0, 255))
def test_any_byte_may_change(at, value):
    found = entries(GIVEN[:at] + bytes([value]) + GIVEN[at + 1 :])
    assert len(found) <= 6
    assert all(entry.kind != "broken" for entry in found[:-1])
    assert all(not entry.data for entry in found if entry.problem is not None)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_end(data):
    assert len(entries(data)) <= len(data) // 512 + 1
