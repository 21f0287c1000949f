"""Of a sample with several pictures, the one that is meant is taken, or none."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.core.types import Member
from latentcli.jobs.loader.choose_field import (
    PICTURES,
    choose,
    is_media,
    known_suffixes,
)
from latentcli.jobs.loader.find_media import SUFFIXES

JXL = b"\xff\x0a" + bytes(64)
EXR = b"\x76\x2f\x31\x01" + bytes(64)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def members(*fields: str, data: bytes = b"x") -> tuple[Member, ...]:
    return tuple(Member(field, data) for field in fields)


def taken(
    *fields: str, wanted: str | None = None, media: str = "images", data: bytes = b"x"
) -> list[str]:
    found = members(*fields, data=data)
    chosen = choose(found, SUFFIXES[media], wanted)
    assert sorted(m.field for m in (*chosen.taken, *chosen.others)) == sorted(fields)
    return [member.field for member in chosen.taken]


def refused(*fields: str, **options: str) -> str:
    with pytest.raises(SampleError) as caught:
        taken(*fields, **options)
    assert caught.value.stage == "read"
    return caught.value.reason


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (["jpg"], "jpg"),
        (["txt", "JPG", "json"], "JPG"),
        (["caption.txt", "image.jpg"], "image.jpg"),
        (["mask.png", "txt", "jpg", "depth.png"], "jpg"),
        (["mask.png", "jxl"], "jxl"),
        (["heic", "mask.png"], "heic"),
        (["image.png", "embedding.raw.npy"], "image.png"),
    ],
)
def test_a_field_without_a_dot_or_the_only_picture_is_taken(fields, wanted):
    assert taken(*fields) == [wanted]


def test_what_was_chosen_is_noted_and_the_others_go_along():
    chosen = choose(members("mask.png", "jpg", "txt"), SUFFIXES["images"], None)
    assert chosen.note == "field jpg taken, not mask.png"
    assert [member.field for member in chosen.others] == ["mask.png", "txt"]
    assert choose(members("jpg", "txt"), SUFFIXES["images"], None).note == ""
    assert choose(members("jpg", "mask.png"), SUFFIXES["images"], "jpg").note == ""


def test_several_that_may_be_meant_fail_with_their_fields():
    reason = refused("depth.png", "image.jpg", "json")
    assert reason == (
        "its sample has several pictures, depth.png and image.jpg: say with --image-field which one"
        " is meant, or all for a latent of each"
    )
    # The picture and its mask, or one picture twice: nobody can tell.
    assert "several pictures, jpg and png" in refused("jpg", "png")
    assert "0.jpg, 1.jpg, 2.jpg, 3.jpg and 6 more:" in refused(*(f"{i}.jpg" for i in range(10)))
    assert "several pictures, photo.jxl and mask.png" in refused("photo.jxl", "mask.png")
    assert "several clips, a.mp4 and b.mp4" in refused("a.mp4", "b.mp4", media="clips")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("image.jpg", ["Image.JPG"]),
        ("image", ["Image.JPG"]),
        ("depth", ["depth.png"]),
        ("depth.png", ["depth.png"]),
        ("all", ["depth.png", "Image.JPG"]),
        ("txt", ["txt"]),
    ],
)
def test_the_job_says_which(wanted, found):
    assert taken("depth.png", "Image.JPG", "txt", wanted=wanted) == found


def test_a_field_that_is_not_there_or_not_one_fails():
    reason = refused("depth.png", "left.jpg", wanted="image")
    assert reason == (
        "its sample has no field image, which --image-field names, only depth.png and left.jpg"
    )
    assert "several pictures, image.jpg and image.png" in refused(
        "image.jpg", "image.png", "x.png", wanted="image"
    )


@pytest.mark.parametrize("wanted", [None, "all", "jpg"])
def test_a_sample_without_a_picture_holds_nothing_to_encode(wanted):
    assert taken("txt", "json", "cls", wanted=wanted) == []
    assert taken("npy", wanted=wanted, data=b"\x93NUMPY\x01\0v\0") == []
    assert taken("txt", media="clips", wanted=wanted) == []


def test_what_somebody_may_have_meant_is_told():
    assert refused("mp4", "txt") == (
        "its sample holds a clip, mp4, and no picture: say --media clips"
    )
    assert refused("jpg", "txt", media="clips") == (
        "its sample holds a picture, jpg, and no clip: say --media images"
    )
    with pytest.raises(SampleError, match="its member image holds a PNG picture"):
        choose([Member("txt", b"a"), Member("image", png())], SUFFIXES["images"], None)
    found = choose([Member("txt", b"a"), Member("image", png())], SUFFIXES["images"], "image")
    assert [member.field for member in found.taken] == ["image"]


def test_odd_formats_are_pictures_by_their_bytes():
    images = SUFFIXES["images"]
    assert is_media(Member("jxl", b""), images) and is_media(Member("depth.exr", EXR), images)
    assert not is_media(Member("clip", b"an embedding"), images)
    assert not is_media(Member("jpg", b""), SUFFIXES["clips"])
    assert known_suffixes(images) >= PICTURES
    assert known_suffixes(SUFFIXES["clips"]) == SUFFIXES["clips"]
