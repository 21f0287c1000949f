"""The name that a mistyped one is likely to mean, among names and in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentcli.core import near_names
from latentcli.core.near_names import (
    missing_source,
    missing_store,
    near_path,
    nearest,
    suggestion,
)


def test_the_most_similar_name_is_suggested():
    assert nearest("encod", ["decode", "encode", "bench"]) == "encode"
    assert nearest("xyz", ["decode", "encode"]) is None
    assert suggestion("encod", ["decode", "encode"]) == " (did you mean 'encode'?)"
    assert suggestion("xyz", ["decode", "encode"]) == ""


def test_what_all_names_begin_with_makes_none_of_them_alike():
    names = ["LATENTCLI_SIZE", "LATENTCLI_QUIET"]
    assert suggestion("LATENTCLI_SIZ", names, "LATENTCLI_") == " (did you mean 'LATENTCLI_SIZE'?)"
    assert suggestion("LATENTCLI_XY", names, "LATENTCLI_") == ""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/cats/a.jpg and photos.latents in the working directory."""
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / "cats" / "a.jpg").touch()
    (tmp_path / "photos.latents").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("phtos", "photos"),
        ("photo.latents", "photos.latents"),
        ("photos/cast", "photos/cats"),
        ("phtos/cats/a.jpg", "photos/cats/a.jpg"),
        ("phtos/", "photos"),
    ],
)
def test_the_most_similar_path_is_suggested(tree: Path, path: str, there: str) -> None:
    assert near_path(path) == f" (did you mean {there!r}?)"
    assert near_path(tree / path) == f" (did you mean {str(tree / there)!r}?)"


@pytest.mark.parametrize(
    "path", ["xyz", "phtos/dogs", "s3://bucket/phtos", "photos/cats/a.jpg/b", ""]
)
def test_no_path_is_suggested_that_is_not_there_or_not_like_it(tree: Path, path: str) -> None:
    assert near_path(path) == ""


def test_a_huge_folder_is_not_read_to_the_end(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_names, "MOST_NAMES", 0)
    assert near_path("phtos") == ""


def test_an_error_says_what_is_near(tree: Path) -> None:
    told = str(missing_source("phtos"))
    assert told.startswith("phtos does not exist (did you mean 'photos'?). A source is a folder")


def test_a_file_in_the_place_of_a_store_is_told_as_one(tmp_path):
    path = tmp_path / "pictures.tar"
    path.touch()
    assert near_path(path) == ""
    assert str(missing_store(path)) == (
        f"{path} is not a latent store: it is a file. Name the folder that latentcli encode wrote."
    )
