"""A roundtrip's page of one file holds every picture, or says which are thumbnails only."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from clipkit import clips_in
from encodekit import LINEAR, pictures
from PIL import Image

from latentcli.core.errors import UsageError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip import single_page
from latentcli.jobs.roundtrip.job import run_roundtrip


def roundtrip(source: Path, page: Path, **options: object) -> dict:
    settings = {"sources": (str(source),), "models": (LINEAR,), "device": "cpu", "workers": 0}
    settings |= {"report": str(page), "single_file": True}
    return run_roundtrip(RoundtripJob(**settings | options))


def held(page: Path) -> dict[str, bytes]:
    """The files in a page by name."""
    found = re.findall(r'id="file-([^"]+)">"data:image/(\w+);base64,([^"]*)"<', page.read_text())
    kinds = {"webp": "webp", "png": "png", "jpg": "jpeg"}
    assert all(kinds[name.rpartition(".")[2]] == kind for name, kind, _ in found)
    return {name: base64.b64decode(data) for name, _, data in found}


@pytest.fixture
def photos(tmp_path):
    return pictures(tmp_path / "in", [(64, 48)] * 3, bad=(1,))


def test_the_page_holds_the_files_that_a_folder_has(tmp_path, photos):
    told = roundtrip(photos, tmp_path / "one.html")
    roundtrip(photos, tmp_path / "page", single_file=False)
    folder = {p.name: p.read_bytes() for p in (tmp_path / "page/files/").glob("0*/*")}
    assert len(folder) == 2 * 5
    assert held(tmp_path / "one.html") == folder
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "one.html", "page"]
    assert told["page"] == str(tmp_path / "one.html") and told["page_thumbnails"] == 0
    assert told["page_bytes"] == (tmp_path / "one.html").stat().st_size
    original = np.asarray(Image.open(io.BytesIO(folder["000000.original.webp"])))
    np.testing.assert_array_equal(original, np.asarray(Image.open(photos / "0000.png")))


def test_the_bytes_of_a_folder_are_those_of_its_files(tmp_path, photos):
    told = roundtrip(photos, tmp_path / "page", single_file=False)
    files = [p for p in (tmp_path / "page").rglob("*") if p.is_file()]
    assert told["page_bytes"] == sum(p.stat().st_size for p in files)
    assert told["page_thumbnails"] is None


def test_beyond_its_bytes_a_page_has_thumbnails_only(tmp_path, photos, monkeypatch):
    roundtrip(photos, tmp_path / "all.html")
    every = held(tmp_path / "all.html")
    first = sum(len(data) for name, data in every.items() if name.startswith("000000"))
    monkeypatch.setattr(single_page, "MOST_BYTES", first)
    told = roundtrip(photos, tmp_path / "some.html")
    kept = {n: d for n, d in every.items() if n.startswith("000000") or ".thumb." in n}
    assert held(tmp_path / "some.html") == kept and len(kept) == 6
    assert told["page_thumbnails"] == 1


def test_too_many_pictures_are_refused_before_anything_is_done(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(single_page, "MOST_PICTURES", 2)
    with pytest.raises(UsageError, match=r"holds at most 2 pictures, and there are 3\. Leave out"):
        roundtrip(photos, tmp_path / "one.html")
    assert not (tmp_path / "one.html").exists()


def test_too_many_frames_cost_the_page_and_no_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(single_page, "MOST_PICTURES", 3)
    told = roundtrip(clips_in(tmp_path / "clips", [5]), tmp_path / "one.html")
    assert told["images"] == 5 and "page" not in told
    (problem,) = told["problems"]
    assert problem.startswith("There is no page: --single-file holds at most 3 pictures")
    assert not (tmp_path / "one.html").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"report": None}, "--single-file is for --report: name the page, such as report.html"),
        ({"report": "page"}, r"--report is 'page'; with --single-file it names the page itself"),
        ({"report": "none/p.html"}, "there is no folder none"),
        ({"report": "s3://bucket/p.html"}, "is remote storage; name a place on this machine"),
        ({"report": "mine.html"}, "exists, and is not a page of latentcli. Name another file"),
        ({"report": "p.html", "csv": "./p.html"}, r"--csv and --report both name \./p\.html"),
    ],
)
def test_a_place_that_will_not_do_is_named(tmp_path, photos, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    Path("mine.html").write_text("<p>mine</p>")
    with pytest.raises(UsageError, match=said):
        roundtrip(photos, tmp_path / "one.html", **options)
    assert Path("mine.html").read_text() == "<p>mine</p>"


def test_an_earlier_page_is_replaced(tmp_path, photos):
    roundtrip(photos, tmp_path / "one.html")
    before = (tmp_path / "one.html").read_bytes()
    shutil.rmtree(photos)
    roundtrip(pictures(photos, [(32, 32)]), tmp_path / "one.html")
    assert len(held(tmp_path / "one.html")) == 5
    assert (tmp_path / "one.html").read_bytes() != before
