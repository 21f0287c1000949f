"""Tars of samples: their names, their bytes, and what other programs make of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load
from webdataset.tariterators import base_plus_ext, tar_file_iterator

from latentcli.core.member_names import key_of_member, member_name
from latentcli.core.types import Member
from latentcli.shards.tar.header import checked_name
from latentcli.shards.tar.write import BLOCK, END, TarSample, header, sample_chunks, tar_chunks

KEYS = ("a", "photo.2021.01", "train/v1.0/x", "ein/ä ö/bild", "b" * 99, "f/" * 60 + "deep.name")

# Bytes that are no UTF-8 come as surrogates, and only such a way.
TEXTS = st.text("ab.%_/\\:~ \n\x00é\u2028\udcff0Fx€", max_size=12).map(
    lambda text: os.fsdecode(os.fsencode(text))
)
FIELDS = TEXTS.map(lambda text: text.replace("/", ""))


def sample(key: str, *others: Member) -> TarSample:
    return TarSample(
        name=key,
        tensors={"latent": torch.arange(24.0).view(4, 2, 3).bfloat16(), "mean": torch.ones(3)},
        metadata={"format": "latentcli", "unit": "0", "key": f"tar/{key}"},
        document={"source": f"/data/a.tar::{key}.jpg", "crop": [0, 0, 8, 8], "notes": None},
        others=others,
    )


def tar_of(*samples: TarSample) -> bytes:
    return b"".join(tar_chunks(samples))


@given(TEXTS.filter(bool), FIELDS)
@example("../../etc/passwd", "latent.json")
@example("/abs", "txt")
@example("a//b/", "txt")
@example("C:/x", "txt")
@example("__MACOSX__/x", "txt")
@example("x/__y", "txt")
@example(".hidden", "txt")
@example("50%41", "%41")
def test_names_come_back_and_are_what_readers_take(key, field):
    name = member_name(key, field)
    assert key_of_member(name) == (key, field)
    assert base_plus_ext(name) == (name[: -len(base_plus_ext(name)[1]) - 1], field_of(name))
    assert checked_name(name) == (name, None)
    assert not Path(name).name.startswith((".", "__"))
    assert ".." not in name.split("/") and not name.startswith("/")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\ud800-\udfff]", name)


def field_of(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2]


@given(TEXTS.filter(bool), TEXTS.filter(bool), FIELDS)
def test_one_key_has_one_prefix_and_two_have_two(one, other, field):
    prefixes = [base_plus_ext(member_name(key, f))[0] for key in (one, other) for f in (field, "t")]
    assert prefixes[0] == prefixes[1] and prefixes[2] == prefixes[3]
    assert (prefixes[0] == prefixes[2]) == (one == other)


def test_names_that_need_no_escape_stay_as_they_are():
    assert member_name("n01/img_0001", "latent.json") == "n01/img_0001.latent.json"
    assert member_name("v1.0/ä 100%", "txt") == "v1.0/ä 100%.txt"
    assert member_name("photo.2021.01", "txt") == "photo%2E2021%2E01.txt"
    assert member_name("a%20b", "txt") == "a%2520b.txt"


def test_names_that_cannot_be():
    for key, field in (("", "txt"), ("a", "b/c")):
        with pytest.raises(ValueError, match="do not make a valid name"):
            member_name(key, field)
    for name in ("a", "b/.txt", "a.b/c"):
        with pytest.raises(ValueError, match="is not named <key>"):
            key_of_member(name)


def test_members_of_a_sample_and_their_order():
    others = (Member("json", b'{"a": 1}'), Member("txt", b"caption"), Member("seg.png", bytes(513)))
    data = tar_of(sample("x.y", *others), sample("z"))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}
        names = [info.name for info in tar]
    fields = ["latent.safetensors", "latent.json"]
    assert names == [
        *(f"x%2Ey.{f}" for f in [*fields, "json", "txt", "seg.png"]),
        *(f"z.{f}" for f in fields),
    ]
    assert [members[f"x%2Ey.{m.field}"] for m in others] == [m.data for m in others]
    tensors = load(members["z.latent.safetensors"])
    assert {name: value.shape for name, value in tensors.items()} == {
        "latent": (4, 2, 3),
        "mean": (3,),
    }
    assert torch.equal(tensors["latent"], sample("z").tensors["latent"])
    assert (
        members["z.latent.json"].endswith(b"null}\n") and members["z.latent.json"].count(b"\n") == 1
    )
    assert json.loads(members["z.latent.json"]) == sample("z").document


def test_an_old_latent_gives_way_to_the_new_one():
    old = (Member("latent.safetensors", b"old"), Member("LATENT.JSON", b"old"), Member("t", b"new"))
    assert tar_of(sample("a", *old)) == tar_of(sample("a", old[2]))


def test_every_header_is_the_same_but_for_name_and_size():
    with tarfile.open(fileobj=io.BytesIO(tar_of(*map(sample, KEYS)))) as tar:
        infos = tar.getmembers()
    assert [info.name for info in infos[::2]] == [
        member_name(key, "latent.safetensors") for key in KEYS
    ]
    for info in infos:
        told = (info.mtime, info.uid, info.gid, info.mode, info.uname, info.gname, info.type)
        assert told == (0, 0, 0, 0o644, "", "", tarfile.REGTYPE)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("n" * 100, 1),
        ("n" * 101, 3),
        ("p" * 155 + "/" + "n" * 100, 1),
        ("p" * 156 + "/" + "n" * 100, 3),
        ("p/" * 77 + "/n", 1),
        ("é.txt", 3),
        ("é/" * 400 + "x.txt", 5),
    ],
)
def test_a_pax_header_only_where_it_must_be(name, blocks):
    data = header(name, 5)
    assert len(data) == blocks * BLOCK
    with tarfile.open(fileobj=io.BytesIO(data + b"hello" + bytes(507) + END)) as tar:
        (info,) = tar.getmembers()
        assert (info.name, info.size) == (name, 5)


def test_the_header_is_tarfiles_own():
    """No byte of an ordinary header is an invention of ours."""
    info = tarfile.TarInfo("some/name.txt")
    info.size = 1234
    theirs = info.tobuf(tarfile.USTAR_FORMAT)
    ours = header("some/name.txt", 1234)
    different = [i for i in range(BLOCK) if theirs[i] != ours[i]]
    assert all(148 <= i < 156 or 329 <= i < 345 for i in different)


def test_a_member_beyond_8_gib(tmp_path):
    path, size = tmp_path / "big.tar", 8**11 + 7
    with path.open("wb") as file:
        data = header("big.bin", size)
        file.write(data)
        file.truncate(len(data) + size + -size % BLOCK + len(END))
    with tarfile.open(path) as tar:
        assert [(info.name, info.size) for info in tar] == [("big.bin", size)]
    listed = subprocess.run(["tar", "tvf", path], capture_output=True, text=True, check=True)
    assert str(size) in listed.stdout


def test_the_systems_tar_lists_and_unpacks_it(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(*(sample(key, Member("txt", key.encode())) for key in KEYS)))
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    ran = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", path],
        capture_output=True,
        text=True,
        env=environment,
    )
    fields = ("latent.safetensors", "latent.json", "txt")
    names = [member_name(key, field) for key in KEYS for field in fields]
    assert (ran.returncode, ran.stderr, ran.stdout.splitlines()) == (0, "", names)
    subprocess.run(["tar", "-xf", path, "-C", tmp_path], check=True, env=environment)
    for key in KEYS:
        assert (tmp_path / member_name(key, "txt")).read_bytes() == key.encode()


def test_webdatasets_own_iterator_takes_every_member():
    data = tar_of(*map(sample, (*KEYS, "__a__/b", "__c")))
    names = [item["fname"] for item in tar_file_iterator(io.BytesIO(data))]
    assert len(names) == 2 * len(KEYS) + 4


DRIVER = """
import hashlib, os, sys, time
sys.path[:0] = [sys.argv[1], os.path.dirname(sys.argv[1])]
os.umask(int(sys.argv[2], 8))
time.time = lambda: 1e9
import test_shards_tar_write as test
from latentcli.core.types import Member
data = test.tar_of(*(test.sample(key, Member("txt", b"x")) for key in test.KEYS))
print(hashlib.sha256(data).hexdigest())
"""


def test_the_same_bytes_everywhere():
    data = tar_of(*(sample(key, Member("txt", b"x")) for key in KEYS))
    assert hashlib.sha256(data).hexdigest() == GOLDEN
    told = {"TZ": "Asia/Tokyo", "USER": "somebody", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, Path(__file__).parent, "0077"],
        env=os.environ | told,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == GOLDEN


GOLDEN = "00a7406a3b3404c0eff01f7f4b5e2188dc45e4bd4b517133fc842e98a89562b1"
"""Changes only where the format does, and then nobody's stores can go on."""


def test_tensors_are_copied_one_at_a_time():
    """Chunks of a sample come lazily: a tensor in pieces is asked for when it is its turn."""
    asked: list[str] = []

    class Lazy:
        dtype, shape = torch.float32, (2,)

        def __init__(self, name: str) -> None:
            self.name = name

        def element_size(self) -> int:
            return 4

        def pieces(self):
            asked.append(self.name)
            yield bytes(8)

    chunks = sample_chunks(TarSample("k", {"a": Lazy("a"), "b": Lazy("b")}, {"key": "k"}, {}))
    seen = [(next(chunks), tuple(asked))[1] for _ in range(5)]
    assert seen == [(), (), (), ("a",), ("a", "b")]
