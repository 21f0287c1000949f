"""Which members of a tar are one sample, where keys and fields have dots."""

from __future__ import annotations

import io

import pytest
from harness.tars import BLOCK, PICTURES, tar
from tarkit import fields, grouped, of, samples

from latentcli.core.types import Member
from latentcli.shards.tar.group import LOOK_AHEAD, Group
from latentcli.shards.tar.read import TarEntry, TarLimits
from latentcli.shards.tar.samples import read_samples


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        # Several stems are several samples, the members of each in a row.
        (
            ["p.2021.01.jpg", "p.2021.01.txt", "p.2021.02.jpg"],
            [("p.2021.01", "jpg txt"), ("p.2021.02", "jpg")],
        ),
        (
            ["p.1.cls", "p.1.jpg", "p.1.txt", "p.2.cls", "p.2.jpg"],
            [("p.1", "cls jpg txt"), ("p.2", "cls jpg")],
        ),
        (
            ["p.1.depth.png", "p.1.jpg", "p.2.jpg", "p.2.seg.png"],
            [("p.1", "depth.png jpg"), ("p.2", "jpg seg.png")],
        ),
        (["p.1.PNG", "p.10.png", "p.10.x.txt"], [("p.1", "PNG"), ("p.10", "png x.txt")]),
        # A member of no picture's stem is a sample without a picture.
        (
            ["p.1.jpg", "p.1.txt", "p.2.txt", "p.3.txt", "p.3.cls", "p.4.cls", "p.4.jpg"],
            [("p.1", "jpg txt"), ("p.2", "txt"), ("p.3", "txt cls"), ("p.4", "cls jpg")],
        ),
        (["p.1.jpg", "p.2.jpg", "p.1.txt"], [("p.1", "jpg"), ("p.2", "jpg"), ("p.1~2", "REFUSED")]),
        # One stem that everything goes on with is a key with dots.
        (["p.2021.01.jpg", "p.2021.01.txt"], [("p.2021.01", "jpg txt")]),
        (["p.v1.jpg"], [("p.v1", "jpg")]),
        # Without that, and with any field that has no dot, it is webdataset's rule.
        (["0001.image.jpg", "0001.caption.txt"], [("0001", "image.jpg caption.txt")]),
        (["0001.caption.txt", "0001.image.jpg"], [("0001", "caption.txt image.jpg")]),
        (["0.a.json", "0.b.txt", "0.a.jpg"], [("0", "a.json b.txt a.jpg")]),
        (["0001.jpg", "0001.seg.png"], [("0001", "jpg seg.png")]),
        (["0001.seg.png", "0001.left.png", "0001.jpg"], [("0001", "seg.png left.png jpg")]),
        (["0.source.png", "0.target.png", "0.txt"], [("0", "source.png target.png txt")]),
        # Several stems that begin with a letter are fields, whatever else there is.
        (["0.depth.png", "0.image.jpg"], [("0", "depth.png image.jpg")]),
        (["0.left.jpg", "0.1.jpg"], [("0", "left.jpg 1.jpg")]),
        (["0._a.jpg", "0._b.jpg", "0.p.txt"], [("0", "_a.jpg _b.jpg p.txt")]),
        (["0.1.jpg", "0.2.jpg", "0.p.txt"], [("0.1", "jpg"), ("0.2", "jpg"), ("0.p", "txt")]),
        (["0001.tar.gz", "0001.x.json"], [("0001", "tar.gz x.json")]),
        # No picture at all is still a sample.
        (["0001.txt", "0002.json"], [("0001", "txt"), ("0002", "json")]),
    ],
)
def test_keys_with_dots_survive(names, wanted):
    assert grouped(*names) == wanted
    around = grouped("before.jpg", *names, "later.jpg")
    assert around == [("before", "jpg"), *wanted, ("later", "jpg")]


def views(count: int, *texts: str) -> list[tuple[str, bytes]]:
    return of(*(f"0001.{at}.jpg" for at in range(count)), *texts)


@pytest.mark.parametrize("first", [False, True])
def test_what_belongs_to_the_key_belongs_to_each_of_its_numbered_pictures(first):
    files = views(3)
    texts = of("0001.json", "0001.x.txt")
    found = samples(
        tar([*texts, *files, *of("2.jpg")] if first else [*files, *texts, *of("2.jpg")])
    )
    good = [(s.key, " ".join(m.field for m in s.members)) for s in found]
    three = [(f"0001.{at}", "jpg json") for at in range(3)]
    rest = [("0001.x", "txt")]
    assert good == [*(rest if first else []), *three, *([] if first else rest), ("2", "jpg")]
    assert {s.members[1].data for s in found if s.key[:5] == "0001." and len(s.members) > 1} == {
        b"0001.json"
    }
    own = samples(tar([*of("0001.0.jpg", "0001.0.json"), *views(3)[1:], *of("0001.json")]))
    assert own[0].members[1] == Member("json", b"0001.0.json")
    assert own[1].members[1] == Member("json", b"0001.json")


def test_many_numbered_pictures_are_not_held_for_what_belongs_to_all():
    count = LOOK_AHEAD + 10
    found = fields(samples(tar(views(count, "0001.json"))))
    assert found == [*((f"0001.{at}", "jpg") for at in range(count)), ("0001", "json")]


def test_many_named_pictures_are_one_sample_where_a_field_without_a_dot_says_so():
    names = [f"0001.view{at}.jpg" for at in range(LOOK_AHEAD + 10)]
    (whole,) = samples(tar(of("0001.json", *names)))
    assert whole.key == "0001" and len(whole.members) == len(names) + 1
    assert len(samples(tar(of(*names)))) == len(names)


def test_how_dots_are_read_can_be_said():
    data = tar(of("0.a.jpg", "0.b.jpg", "1.1.jpg", "1.2.jpg", "1.json", "2.x.jpg"))

    def read(dots):
        return fields(list(read_samples(io.BytesIO(data), PICTURES, dots=dots)))

    assert read("keys") == [
        *[("0.a", "jpg"), ("0.b", "jpg"), ("1", "1.jpg 2.jpg json"), ("2.x", "jpg")]
    ]
    assert read("auto") == [
        *[("0", "a.jpg b.jpg"), ("1.1", "jpg json"), ("1.2", "jpg json"), ("2.x", "jpg")]
    ]
    assert read("fields") == [("0", "a.jpg b.jpg"), ("1", "1.jpg 2.jpg json"), ("2", "x.jpg")]


def test_one_key_for_a_whole_tar_is_not_collected():
    names = [f"v1.{at:05d}.{field}" for at in range(500) for field in ("cls", "jpg", "txt")]
    data = tar(of(*names))
    assert fields(samples(data)) == [(f"v1.{at:05d}", "cls jpg txt") for at in range(500)]
    stream = io.BytesIO(data)
    first = next(read_samples(stream, PICTURES))
    assert first.key == "v1.00000" and stream.tell() < (LOOK_AHEAD + 2) * 2 * BLOCK + (64 << 10)
    late = [*names, "v1.json", "v1.jpg", "v1.x.jpg"]
    assert fields(samples(tar(of(*late))))[500:] == [("v1", "json jpg"), ("v1.x", "jpg")]
    # The limit is that of each sample, not of all.
    one = len(b"v1.00000.cls") + BLOCK
    few = samples(data, TarLimits(sample_bytes=(LOOK_AHEAD - 1) * one))
    assert fields(few) == fields(samples(data))


def test_a_sample_that_is_too_large_is_not_held():
    group = Group("a", PICTURES, TarLimits(sample_bytes=10_000))
    for name in ("a.jpg", *(f"a.{at}" for at in range(100))):
        assert group.add(TarEntry(name, bytes(4000))) == []
    (run,) = group.end()
    assert len(run.entries) == 1 and not run.entries[0].data
