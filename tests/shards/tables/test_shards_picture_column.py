"""Which column of a table is that of the pictures, and when nobody can tell."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from latentcli.shards.tables.arrow import columns_of
from latentcli.shards.tables.cells import CAPTION_NAMES, KEY_NAMES
from latentcli.shards.tables.json_lines import LONGEST_LINE
from latentcli.shards.tables.picture_column import CLIPS, PICTURES, others_like, picture_column
from latentcli.shards.tables.table import (
    BYTES,
    OTHER,
    PICTURE,
    TEXT,
    UNKNOWN,
    Column,
    NoPictures,
)

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def columns(**holds: str) -> list[Column]:
    return [Column(name, what) for name, what in holds.items()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (columns(text=TEXT, image=PICTURE), "image"),
        (columns(url=TEXT, jpg=BYTES, key=TEXT), "jpg"),
        (columns(Image=BYTES), "Image"),
        (columns(photo_of_it=PICTURE, n=OTHER), "photo_of_it"),
        (columns(image=TEXT, text=TEXT), "image"),
        (columns(file_name=TEXT, text=TEXT), "file_name"),
        (columns(path=TEXT, image=UNKNOWN), "image"),
        (columns(image=TEXT, jpg=BYTES), "jpg"),
        (columns(mask=PICTURE, image=PICTURE), "image"),
        ([Column("pixels", PICTURE, "Image"), Column("png", BYTES)], "pixels"),
        ([Column("mask", PICTURE, "Image"), Column("image", PICTURE, "Image")], "image"),
    ],
)
def test_the_only_column_that_can_be_meant(given, expected):
    assert picture_column(given, PICTURES) == expected


@pytest.mark.parametrize(
    "given",
    [
        columns(jpg=BYTES, png=BYTES),
        columns(a=PICTURE, b=PICTURE),
        columns(path=TEXT, filename=TEXT),
    ],
)
def test_among_several_one_has_to_be_named(given):
    names = [column.name for column in given]
    with pytest.raises(
        NoPictures, match=f"{names[0]} and {names[1]}: say which with --image-field"
    ):
        picture_column(given, PICTURES)
    assert picture_column(given, PICTURES, names[1]) == names[1]


def test_a_table_without_pictures_is_refused_with_its_columns():
    given = columns(url=TEXT, text=TEXT, thumb=BYTES, images=OTHER)
    with pytest.raises(NoPictures, match="its columns are url, text, thumb, images"):
        picture_column(given, PICTURES)
    assert picture_column(given, PICTURES, "thumb") == "thumb"
    assert picture_column(given, PICTURES, "Thumb") == "thumb"
    with pytest.raises(NoPictures, match=r"no column 'jpg'; its columns are url, text"):
        picture_column(given, PICTURES, "jpg")
    with pytest.raises(NoPictures, match="'images' holds no pictures: these are bytes, paths or"):
        picture_column(given, PICTURES, "images")
    many = [Column(f"c{i}", OTHER) for i in range(50)]
    with pytest.raises(NoPictures, match="c19 and 30 more"):
        picture_column(many, PICTURES)


def test_clips_have_names_of_their_own():
    given = columns(image=BYTES, video=BYTES)
    assert (picture_column(given, PICTURES), picture_column(given, CLIPS)) == ("image", "video")


def test_other_columns_of_pictures_are_told():
    given = columns(image=PICTURE, mask=PICTURE, text=TEXT, thumb=BYTES)
    assert others_like(given, PICTURES, "image") == ["mask"]


def test_columns_of_a_schema():
    schema = pa.schema(
        [
            ("image", IMAGE),
            ("jpg", pa.large_binary()),
            ("raw", pa.binary(16)),
            ("text", pa.dictionary(pa.int32(), pa.large_string())),
            ("nothing", pa.null()),
            ("images", pa.list_(IMAGE)),
            ("box", pa.struct([("x", pa.int32())])),
            ("n", pa.int64()),
        ]
    )
    assert [column.holds for column in columns_of(schema)] == [
        *(PICTURE, BYTES, BYTES, TEXT, UNKNOWN, OTHER, OTHER, OTHER)
    ]


@pytest.mark.parametrize("text", [b"no json", b"[]", b'{"info": {"features": ["a"]}}'])
def test_metadata_that_are_not_understood_say_nothing(text):
    schema = pa.schema([("a", IMAGE)], metadata={b"huggingface": text})
    assert columns_of(schema) == [Column("a", PICTURE, "")]


def test_features_of_the_datasets_library_are_known():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"pixels": datasets.Image(), "n": datasets.Value("int64")})
    found = columns_of(features.arrow_schema)
    assert found == [Column("pixels", PICTURE, "Image"), Column("n", OTHER, "Value")]


def test_the_page_of_the_documentation_has_all_names():
    text = (Path(__file__).parents[3] / "docs" / "guides" / "tables.md").read_text()
    names = (*PICTURES.names, *PICTURES.path_names, *KEY_NAMES, *CAPTION_NAMES)
    assert [name for name in names if f"`{name}`" not in text] == []
    assert f"at most {LONGEST_LINE // 2**20} MiB" in text
