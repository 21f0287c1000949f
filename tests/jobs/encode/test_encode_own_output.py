"""That decoded pictures, stores and reports are never encoded in their turn, unasked."""

from __future__ import annotations

import shutil

import clipkit
import pytest
from encodekit import LINEAR, pictures
from jobkit import decode, encode, tree
from PIL import Image

from latentcli.core.errors import UsageError
from latentcli.jobs.config import DecodeJob, RoundtripJob
from latentcli.jobs.decode.job import run_decode
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.store.inspect import inspect_store
from latentcli.shards.sources.own_output import INNER, MARK, OUTPUT, SHARED, is_own

SIZES = ((64, 48), (48, 64), (96, 32))
DEFAULT = f"here.{LINEAR}.latents"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory: pictures, some of them in a folder."""
    folder = pictures(tmp_path / "here", SIZES)
    pictures(folder / "sub", SIZES[:2])
    monkeypatch.chdir(folder)
    return folder


def back():
    """Decodes the default store to the default folder."""
    return run_decode(DecodeJob(store=DEFAULT, device="cpu"))


def again(told, inputs=5, **counts):
    """Whether an encode job found nothing that was not there before."""
    assert (told["encoded"], told["skipped"], told["inputs"]) == (0, inputs, inputs)
    assert told["left_out_by"] == counts


@pytest.mark.parametrize("format", ["safetensors", "webdataset"])
def test_the_same_commands_again_encode_nothing(here, format):
    options = {"output": None, "shard_format": format}
    assert encode(".", here, LINEAR, **options)["encoded"] == 5
    again(encode(".", here, LINEAR, **options), stores=1)
    assert back()["decoded"] == 5
    again(encode(".", here, LINEAR, **options), stores=1, output_files=5)
    before = tree(here)
    assert back()["decoded"] == 5
    assert tree(here) == before


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_pictures_that_are_decoded_among_the_originals(here, tmp_path, format):
    encode(".", tmp_path / "store", LINEAR)
    (here / "sub").rename(here / "elsewhere")
    told = decode(tmp_path / "store", here, format=format)
    assert told["decoded"] == (2 if format == "png" else 5)
    made = [path for path in here.rglob("[!.]*.*") if is_own(str(path))]
    assert len(made) == told["decoded"]
    (here / "elsewhere").rename(here / "sub" / "moved")
    pictures(here / "sub" / "new", SIZES[:1])
    found = encode(".", tmp_path / "store", LINEAR, dry_run=True)
    assert found["left_out_by"] == {"output_files": told["decoded"]}
    assert (here / "sub" / MARK).read_bytes() == INNER
    if format != "png":
        assert (here / MARK).read_bytes() == SHARED


def test_a_picture_that_is_made_from_a_decoded_one_is_somebody_s_own(here, tmp_path):
    encode(".", tmp_path / "store", LINEAR)
    decode(tmp_path / "store", here / "out")
    with Image.open(here / "out" / "0000.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(here / "out" / "0000.png")
    pictures(here / "out" / "mine", SIZES[:1])
    told = encode(".", tmp_path / "store", LINEAR)
    assert (told["encoded"], told["left_out_by"]) == (2, {"output_files": 4})


def test_the_output_that_is_named_is_encoded(here, tmp_path):
    encode(".", tmp_path / "store", LINEAR)
    decode(tmp_path / "store", here / "out")
    assert (here / "out" / MARK).read_bytes() == OUTPUT
    assert encode("out", tmp_path / "second", LINEAR)["encoded"] == 5
    assert encode("out/sub", tmp_path / "third", LINEAR)["encoded"] == 2
    told = encode(".", tmp_path / "fourth", LINEAR, include_output=True)
    assert (told["encoded"], told["left_out_by"]) == (10, {})


def test_a_store_that_is_named_is_refused(here, tmp_path):
    encode(".", here, LINEAR, output=None)
    for source in (DEFAULT, f"{DEFAULT}/shards", f"{DEFAULT}/shards/*"):
        with pytest.raises(UsageError, match="is a latent store, which is decoded and not encoded"):
            encode(source, tmp_path / "store", LINEAR)


def test_clips(tmp_path, monkeypatch):
    folder = clipkit.clips_in(tmp_path / "here", [3, 2])
    monkeypatch.chdir(folder)
    encode(".", folder, LINEAR, output=None)
    back()
    decode(DEFAULT, folder / "frames", format="png")
    assert sum(is_own(str(path)) for path in folder.rglob("[!.]*.*")) == 2 + 5
    told = encode(".", folder, LINEAR, output=None)
    again(told, inputs=2, output_files=7, stores=1)
    assert told["media"] == "clips"


def test_roundtrips_and_reports(here, tmp_path):
    job = RoundtripJob(
        sources=("sub",), models=(LINEAR,), device="cpu", workers=0, save="kept", report="page"
    )
    assert run_roundtrip(job)["left_out_by"] == {}
    encode("sub", here, LINEAR, output="store")
    inspect_store("store", "inspected")
    told = encode(".", tmp_path / "store", LINEAR)
    assert told["encoded"] == 5
    assert told["left_out_by"] == {".html": 2, "output_files": 2, "reports": 2, "stores": 1}


def test_marks_are_the_same_on_every_machine(here, tmp_path):
    encode(".", tmp_path / "store", LINEAR)
    for name, workers in (("a", 1), ("b", 8)):
        decode(tmp_path / "store", tmp_path / name, workers=workers)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "sub")
    (tmp_path / "b" / "0001.png").unlink()
    decode(tmp_path / "store", tmp_path / "b", skip_existing=True)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
