"""Samples of tars with several pictures, none, or members apart: nothing is stored in silence."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from jobkit import decode, encode, interrupt_after, latents_of, rows_of, tree
from PIL import Image
from tarjobkit import (
    encode_words,
    latents_in,
    make_tar,
    members,
    picture,
    read_tar,
    standard_streams,
    tar_bytes,
    tar_store,
)

from latentcli import open_store
from latentcli.cli.app import main
from latentcli.core.errors import Interrupted, UsageError
from latentcli.jobs.config import EncodeJob, RoundtripJob
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.store.verify import verify_shards
from latentcli.shards.tar.samples import CAME_BEFORE

KEYS = ("0001", "0002")
CAPTION = b"a caption\n"
NO_JXL = b"\xff\x0a" + bytes(64)


def jpeg(number: int) -> bytes:
    return picture(number, (64, 64), "JPEG")


def files(*fields: str, keys: Sequence[str] = KEYS) -> list[tuple[str, bytes]]:
    """The same members for each key; every picture is another one."""
    numbers = iter(range(100))
    made = {"png": lambda: picture(next(numbers), (64, 64)), "jpg": lambda: jpeg(next(numbers))}
    made |= {"json": lambda: b"{}", "txt": lambda: CAPTION, "jxl": lambda: NO_JXL}
    return [
        (f"{key}.{field}", made[field.rpartition(".")[2]]()) for key in keys for field in fields
    ]


def encode_tars(source: object, store: Path, model: str, **options: Any) -> dict[str, Any]:
    return encode(source, store, model, **{"samples_per_shard": None} | options)


def statuses(store: Path) -> dict[str, str]:
    """Key to the field that was encoded, or to the reason of a failure."""
    return {
        row["key"]: row["field"] if row["status"] == "ok" else row["error"]
        for row in rows_of(store)
    }


@pytest.fixture
def encoded(model, tmp_path):
    """Encodes a tar of these members; its document and statuses without the tar's key."""

    def run(
        members: list[tuple[str, bytes]], **options: Any
    ) -> tuple[dict[str, Any], dict[str, str]]:
        store = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        document = encode_tars(make_tar(tmp_path / "t.tar", members), store, model, **options)
        return document, {k.removeprefix("t/"): v for k, v in statuses(store).items()}

    return run


def test_a_depth_map_is_never_taken_for_the_picture(encoded):
    for fields in (("depth.png", "image.jpg", "json"), ("depth.png", "image.jpg")):
        document, found = encoded(files(*fields))
        assert (document["encoded"], document["failed"]) == (0, 2)
        assert list(found) == list(KEYS)
        (reason,) = set(found.values())
        assert "several pictures, depth.png and image.jpg: say with --image-field" in reason
        assert document["reasons"] == {f"read: {reason}": 2}
        document, found = encoded(files(*fields), image_field="image")
        assert found == {"0001": "image.jpg", "0002": "image.jpg"}
        assert document["image_fields"] == {"image.jpg": 2}


def test_numbered_views_are_samples_with_or_without_a_document(encoded, tmp_path, model):
    views = ("1.jpg", "2.jpg", "3.jpg")
    keys = [f"{key}.{number}" for key in KEYS for number in (1, 2, 3)]
    some = [file for file in files(*views, "json") if file[0] != "0002.json"]
    for tar in (files(*views), files(*views, "json"), some):
        assert encoded(tar)[1] == dict.fromkeys(keys, "jpg")
    store = tmp_path / "passed"
    encode_tars(
        make_tar(tmp_path / "v.tar", files(*views, "txt")), store, model, shard_format="webdataset"
    )
    passed = read_tar((store / "shards" / "000000.tar").read_bytes())
    assert [passed[f"{key.replace('.', '%2E')}.txt"] for key in keys] == [CAPTION] * 6
    cats = [(f"cat.{at}.jpg", jpeg(at)) for at in range(10)]
    assert encoded([*cats, ("cat.json", b"{}")])[1] == dict.fromkeys(
        (f"cat.{at}" for at in range(10)), "jpg"
    )


def test_a_picture_that_cannot_be_read_is_not_replaced_by_its_mask(encoded):
    document, found = encoded(files("jxl", "mask.png", "txt"))
    assert (document["encoded"], document["failed"], list(found)) == (0, 2, list(KEYS))
    assert all("not a picture" in reason or "JPEG XL" in reason for reason in found.values())
    assert document["image_fields"] == {"jxl": 2}
    assert encoded(files("jxl", "mask.png"), image_field="mask.png")[1] == {
        "0001": "mask.png",
        "0002": "mask.png",
    }


def test_a_field_without_a_dot_is_taken_and_told(encoded, model, tmp_path):
    tar = [*files("jpg", "mask.png", "txt"), *files("png", keys=("0003",))]
    document, found = encoded(tar)
    assert found == {"0001": "jpg", "0002": "jpg", "0003": "png"}
    assert document["image_fields"] == {"jpg": 2, "png": 1}
    assert document["field_choices"] == [
        {
            "choice": "field jpg taken, not mask.png",
            "first": str(tmp_path / "t.tar"),
            "samples": 2,
            "tars": 1,
        }
    ]
    again = encode_tars(tmp_path / "t.tar", Path(document["store"]), model)
    assert again["encoded"] == 0
    assert [again[k] for k in ("image_fields", "field_choices")] == [
        document[k] for k in ("image_fields", "field_choices")
    ]
    noted = [row["notes"] for row in rows_of(Path(document["store"])) if "notes" in row]
    assert noted == [["field jpg taken, not mask.png"]] * 2


def test_two_fields_without_a_dot_are_not_chosen_between(encoded):
    tar = files("jpg", "png")
    assert all("several pictures, jpg and png" in v for v in encoded(tar)[1].values())
    assert encoded(tar, image_field="PNG")[1] == {"0001": "png", "0002": "png"}


def test_a_caption_of_two_named_pictures_is_no_failure_of_its_own(encoded):
    document, found = encoded(files("original.jpg", "edited.jpg", "prompt.txt"))
    assert document["failed"] == 2 and list(found) == list(KEYS)
    assert encoded(files("original.jpg", "edited.jpg", "prompt.txt"), image_field="edited")[1] == {
        "0001": "edited.jpg",
        "0002": "edited.jpg",
    }


PAIRS = files("left.png", "right.png", "json")
CLASH = [("a.png", picture(0)), ("a/png.jpg", jpeg(1)), ("a/png.jpg", jpeg(1))]
"""A sample that fails, and whose own key is that of another one and its field."""


def test_all_pictures_get_latents_of_their_own(model, tmp_path):
    tar = make_tar(tmp_path / "t.tar", PAIRS)
    keys = [f"t/{key}/{field}" for key in KEYS for field in ("left.png", "right.png")]
    single = {}
    for field in ("left", "right"):
        encode_tars(tar, tmp_path / field, model, image_field=field)
        single |= {
            f"{name.removesuffix('/latent')}/{field}.png/latent": tensor
            for name, tensor in latents_of(tmp_path / field).items()
        }
    for form in ("safetensors", "webdataset"):
        store = tmp_path / form
        run = partial(encode_tars, tar, store, model, image_field="all", shard_format=form)
        document = run()
        assert (document["encoded"], document["failed"]) == (4, 0)
        assert document["image_fields"] == {"left.png": 2, "right.png": 2}
        opened = open_store(str(store))
        assert list(opened.keys()) == keys
        for key in keys:
            assert torch.allclose(opened[key].float(), single[f"{key}/latent"].float(), atol=0.05)
        assert list(verify_shards(store)) == []
        assert run_verify(VerifyJob(store=str(store), device="cpu"))["problems"] == []
        before = tree(store)
        assert (run()["skipped"], tree(store)) == (4, before)
        decode(store, tmp_path / f"{form}.out")
        assert (tmp_path / f"{form}.out" / "t" / "0001" / "left.png.png").is_file()
    passed = read_tar((tmp_path / "webdataset" / "shards" / "000000.tar").read_bytes())
    assert passed["0001/left%2Epng.json"] == passed["0001/right%2Epng.json"] == b"{}"
    assert sorted(tar_store(tmp_path / "webdataset"))[0] == "000000:0001/left%2Epng/latent"


def test_all_keys_are_unique_and_interruptions_change_nothing(model, tmp_path):
    more = [f"9{at}" for at in range(6)]
    tar = make_tar(tmp_path / "t.tar", [*CLASH, *files("1.jpg", "2.jpg", keys=more)])
    run = partial(encode_tars, tar, model=model, image_field="all")
    run(store=tmp_path / "whole")
    found = statuses(tmp_path / "whole")
    pairs = [f"t/{key}/{number}.jpg" for key in more for number in (1, 2)]
    assert list(found) == ["t/a/png", "t/a/png~2", *pairs]
    assert found["t/a/png"] == "png" and "there twice" in found["t/a/png~2"]
    with pytest.raises(Interrupted):
        run(store=tmp_path / "parts", reporter=interrupt_after(2))
    run(store=tmp_path / "parts")
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_the_field_is_part_of_the_spec_and_is_for_tars(model, tmp_path):
    tar = make_tar(tmp_path / "t.tar", files("jpg", "mask.png"))
    encode_tars(tar, tmp_path / "store", model, image_field="Mask")
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["spec"]["image_field"] == "Mask"
    with pytest.raises(Exception, match="image_field"):
        encode_tars(tar, tmp_path / "store", model)
    (tmp_path / "a.png").write_bytes(picture(0))
    with pytest.raises(UsageError, match="--image-field is for tars and tables"):
        encode(tmp_path / "a.png", tmp_path / "s", model, image_field="png")


def test_a_stream_takes_the_field_too(model, tmp_path):
    data = tar_bytes([*files("left.png", "right.png"), ("z.txt", b"orphan")])
    with standard_streams(tmp_path / "ends", data) as ends:
        job = EncodeJob(
            sources=("-",),
            output="-",
            model=model,
            device="cpu",
            resize="none",
            batch_size=3,
            workers=0,
            self_check=False,
            image_field="all",
        )
        document = run_encode(job)
    assert (document["encoded"], document["failed"]) == (4, 0)
    assert document["nothing_to_encode"] == 1
    assert document["image_fields"] == {"left.png": 2, "right.png": 2}
    assert list(latents_in(ends.output)) == [
        f"{key}/{field}%2Epng/latent" for key in KEYS for field in ("left", "right")
    ]


ORPHANS = [
    *members(2),
    ("0002.txt", b"orphan"),
    ("p.1.png", picture(0)),
    ("p.2.txt", b"orphan"),
    ("p.3.png", picture(1)),
    ("z.json", b"{}"),
]


def test_texts_that_belong_to_no_picture_are_counted_and_no_failures(model, tmp_path, capsys):
    tar = make_tar(tmp_path / "t.tar", ORPHANS)
    assert main(["encode", str(tar), "-o", f"{tmp_path}/s", *map(str, encode_words(model))]) == 0
    said = capsys.readouterr()
    assert "Without a picture, and so not encoded: 3 samples." in said.out + said.err
    assert list(statuses(tmp_path / "s")) == ["t/0000", "t/0001", "t/p.1", "t/p.3"]
    again = encode_tars(tar, tmp_path / "s2", model)
    assert (again["encoded"], again["failed"], again["nothing_to_encode"]) == (4, 0, 3)
    assert encode_tars(tar, tmp_path / "s2", model)["nothing_to_encode"] == 3
    compared = run_roundtrip(
        RoundtripJob(sources=(str(tar),), models=(model,), device="cpu", resize="none", workers=0)
    )
    assert (compared["images"], compared["failed"]) == (4, 0)


def test_a_stream_that_goes_on_counts_all_that_held_nothing(model, tmp_path):
    data = tar_bytes(ORPHANS)
    for skipped in (0, 4):
        with standard_streams(tmp_path / f"ends{skipped}", data):
            job = EncodeJob(
                sources=("-",),
                output=str(tmp_path / "s"),
                model=model,
                device="cpu",
                resize="none",
                batch_size=3,
                workers=0,
                self_check=False,
                samples_per_shard=2,
            )
            document = run_encode(job)
        assert (document["skipped"], document["failed"]) == (skipped, 0)
        assert document["nothing_to_encode"] == 3


def test_a_renamed_tar_keeps_its_count(model, tmp_path):
    tar = make_tar(tmp_path / "in" / "t.tar", ORPHANS)
    make_tar(tmp_path / "in" / "u.tar", members(1))
    encode_tars(tmp_path / "in", tmp_path / "s", model)
    tar.rename(tmp_path / "in" / "v.tar")
    document = encode_tars(tmp_path / "in", tmp_path / "s", model)
    assert [row["key"][:2] for row in rows_of(tmp_path / "s")] == ["v/"] * 4 + ["u/"]
    counts = ("encoded", "skipped", "failed", "nothing_to_encode")
    assert [document[name] for name in counts] == [0, 5, 0, 3]


def test_a_tar_of_nothing_but_texts(model, tmp_path):
    tar = make_tar(tmp_path / "t.tar", [("a.txt", b"a"), ("b.json", b"{}")])
    document = encode_tars(tar, tmp_path / "s", model)
    counts = ("encoded", "failed", "inputs", "nothing_to_encode")
    assert [document[name] for name in counts] == [0, 0, 0, 2]
    with pytest.raises(Exception, match="None of the inputs holds a picture"):
        run_roundtrip(RoundtripJob(sources=(str(tar),), models=(model,), device="cpu"))


def scattered(how: str) -> list[tuple[str, bytes]]:
    """24 samples whose members are not in a row."""
    found = members(24)
    if how == "shuffled":
        random.Random(5).shuffle(found)
        return found
    return sorted(found, key=lambda file: (file[0][-3:] != how, file[0]))


@pytest.fixture(scope="module")
def sorted_store(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sorted")
    encode_tars(
        make_tar(folder / "t.tar", members(24)), folder / "s", model, shard_format="webdataset"
    )
    return folder / "s"


@pytest.mark.parametrize("how", ["png", "txt", "shuffled"])
def test_a_file_whose_members_are_apart_encodes_fully(sorted_store, model, tmp_path, how):
    tar = make_tar(tmp_path / "t.tar", scattered(how))
    store = tmp_path / "s"
    run = partial(encode_tars, tar, model=model, shard_format="webdataset")
    document = run(store=store)
    assert (document["encoded"], document["failed"]) == (24, 0)
    shard = read_tar((store / "shards" / "000000.tar").read_bytes())
    expected = read_tar((sorted_store / "shards" / "000000.tar").read_bytes())
    texts = {name for name in expected if name.endswith(("txt", ".json"))} - {
        f"{at:04d}.latent.json" for at in range(24)
    }
    assert {n: shard[n] for n in texts} == {n: expected[n] for n in texts}
    assert set(shard) == set(expected)
    assert list(verify_shards(store)) == []
    assert run_verify(VerifyJob(store=str(store), device="cpu"))["problems"] == []
    before = tree(store)
    assert (run(store=store, compare="digest")["changed"], tree(store)) == (0, before)
    with pytest.raises(Interrupted):
        run(store=tmp_path / "parts", reporter=interrupt_after(4))
    run(store=tmp_path / "parts")
    assert tree(tmp_path / "parts") == before


def test_a_pipe_whose_members_are_apart_gets_one_reason(model, tmp_path):
    tar = make_tar(tmp_path / "t.tar", scattered("png"))
    document = encode_tars(
        None, tmp_path / "s", model, sources=(f"pipe:cat {tar}",), allow_pipe=True
    )
    assert (document["encoded"], document["failed"]) == (24, 24)
    assert document["reasons"] == {f"read: {CAME_BEFORE}": 24}


def test_a_page_in_the_place_of_a_tar_is_told(model, tmp_path):
    folder = tmp_path / "tars"
    make_tar(folder / "good.tar", members(1))
    pages = {
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "xml": b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "json": b'{"error": "denied"}',
    }
    for name, page in pages.items():
        (folder / f"{name}.tar").write_bytes(page)
    (folder / "zip.tar.gz").write_bytes(pages["html"])
    document = encode_tars(folder, tmp_path / "s", model)
    told = {
        key.partition("/")[0]: text for key, text in statuses(tmp_path / "s").items() if " " in text
    }
    assert document["encoded"] == 1 and len(told) == 5
    assert "this is not a tar: it looks like an HTML page" in told["html"]
    assert "it looks like an XML document" in told["xml"]
    assert "it looks like a Git LFS pointer" in told["lfs"]
    assert "it looks like a JSON document" in told["json"]
    assert "it is not a gzip file: it looks like an HTML page" in told["zip"]


def test_a_picture_that_is_named_as_none_is_told(encoded):
    document, found = encoded([("a.image", picture(0)), ("a.txt", b"x"), ("b.png", picture(1))])
    assert document["failed"] == 1 and "say --image-field image" in found["a"]
    assert encoded([("a.image", picture(0)), ("a.txt", b"x")], image_field="image")[1] == {
        "a": "image"
    }


def test_pictures_decode_to_what_was_taken(encoded, tmp_path):
    """The latent is that of the field that the row names."""
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    data = []
    for image in (red, blue):
        file = io.BytesIO()
        image.save(file, "PNG")
        data.append(file.getvalue())
    document, _ = encoded([("0.a.png", data[0]), ("0.b.png", data[1])], image_field="b")
    store = open_store(document["store"])
    other, _ = encoded([("0.png", data[1])])
    assert torch.equal(store["t/0"], open_store(other["store"])["t/0"])
