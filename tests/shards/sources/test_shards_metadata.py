"""Files of metadata: their rows, what is refused of them, and rows found again by offset."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from latentcli.core.caption_counts import CaptionCounts
from latentcli.core.errors import StoreError
from latentcli.core.field_values import Refused
from latentcli.shards.sources.metadata_formats import METADATA
from latentcli.shards.sources.metadata_index import MetadataIndex

LONG = "x" * (2**20 + 1)


def index_of(folder: Path, name: str, data: bytes | str) -> MetadataIndex:
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return MetadataIndex(str(folder), name)


def fields_of(index: MetadataIndex, folder: Path, *names: str) -> list[object]:
    """The fields that the pictures of these names have in a file; None for no row."""
    rows = index.find([f"{folder}/{name}" for name in names]).tolist()
    return [None if row < 0 else dict(index.fields(row)) for row in rows]


def counted(index: MetadataIndex) -> dict[str, int]:
    """The counts that are not zero, once all that was asked for was found."""
    counts = CaptionCounts()
    index.count_unused(counts)
    return {kind: number for kind, number in counts.counts.items() if number}


def test_json_lines(tmp_path):
    lines = [
        {"file_name": "1.jpg", "text": "one"},
        {"file_name": "./a/2.jpg", "text": "zwei ä"},
        {"file_name": f"{tmp_path}/a/3.jpg", "n": [3]},
        {"file_name": "a\\4.jpg", "n": 4},
    ]
    data = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    index = index_of(tmp_path, "metadata.jsonl", data)
    names = ("a/3.jpg", "1.jpg", "a/2.jpg", "2.jpg", "1", "a/4.jpg")
    assert fields_of(index, tmp_path, *names) == [
        *({"n": [3]}, {"text": "one"}, {"text": "zwei ä"}),
        *(None, None, {"n": 4}),
    ]
    assert counted(index) == {}


def test_a_row_of_several_pictures(tmp_path):
    lines = [
        {"before_file_name": "1.jpg", "after_file_name": "2.jpg", "edit": "more"},
        {"file_names": ["3.jpg", "4.jpg"]},
        {"file_name": "5.jpg", "mask_file_name": "6.jpg"},
    ]
    index = index_of(tmp_path, "metadata.jsonl", "\n".join(map(json.dumps, lines)))
    found = fields_of(index, tmp_path, *(f"{i}.jpg" for i in range(1, 7)))
    assert found == [lines[0], lines[0], lines[1], lines[1], {"mask_file_name": "6.jpg"}, None]


def test_what_is_wrong_with_lines(tmp_path):
    lines = [
        b'{"file_name": "1.jpg", "text": "a"}',
        b'{"file_name": "2.jpg", "text": ',
        b'{"file_name": "3.jpg", "text": "\xe4"}',
        b'{"text": "of none"}',
        b"[1]",
        b'{"file_name": "4.jpg", "text": "%b"}' % LONG.encode(),
        b'{"file_name": "1.jpg", "text": "again"}',
        b'{"file_name": "5.jpg", "text": "unused"}',
    ]
    index = index_of(tmp_path, "metadata.jsonl", b"\n".join(lines))
    assert fields_of(index, tmp_path, "1.jpg", "2.jpg") == [{"text": "a"}, None]
    assert counted(index) == {"broken": 3, "not_utf8": 1, "too_long": 1, "unused_rows": 2}
    counts = CaptionCounts()
    index.count_unused(counts)
    file = tmp_path / "metadata.jsonl"
    assert counts.examples["broken"][1:] == [
        f"{file}, row 4: it has no file_name",
        f"{file}, row 5: it is [1], expected a JSON object",
    ]
    assert counts.examples["unused_rows"] == [f"{file}: 1.jpg", f"{file}: 5.jpg"]


def csv_of(rows: list[list[str]], end: str = "\r\n") -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(tmp_path, end):
    rows = [
        ["file_name", "text", "score"],
        ["1.jpg", 'a "cat",\nasleep', "0.5"],
        ["a/2.jpg", "ä", ""],
    ]
    index = index_of(tmp_path, "metadata.csv", csv_of(rows, end))
    assert fields_of(index, tmp_path, "a/2.jpg", "1.jpg") == [
        {"text": "ä"},
        {"text": 'a "cat",\nasleep', "score": "0.5"},
    ]
    assert counted(index) == {}


def test_what_is_wrong_with_csv(tmp_path):
    lines = [
        b"file_name,text",
        b"1.jpg,a",
        b"2.jpg",
        b"3.jpg,a,b",
        b"4.jpg,\xe4",
        b'5.jpg,"%b"' % LONG.encode(),
        b"",
        b",without a name",
        b"6.jpg,b",
    ]
    index = index_of(tmp_path, "metadata.csv", b"\n".join(lines))
    found = fields_of(index, tmp_path, "1.jpg", "2.jpg", "6.jpg")
    assert found == [{"text": "a"}, None, {"text": "b"}]
    assert counted(index) == {"broken": 4, "not_utf8": 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"image,text\n1.jpg,a\n", "names no column file_name"),
        (b"file_name,text,text\n1.jpg,a,b\n", "names a column twice"),
    ],
)
def test_a_header_that_is_refused(tmp_path, data, reason):
    index = index_of(tmp_path, "metadata.csv", data)
    assert len(index) == 0 and counted(index) == {"broken": 1}
    assert reason in index.flaws.examples["broken"][0]


@pytest.mark.parametrize("name", ["captions.json", "meta_cap.json", "meta_lat.json"])
def test_captions_by_picture(tmp_path, name):
    document = {
        "1.jpg": "one",
        "2": {"caption": "two", "tags": "a, b"},
        f"{tmp_path}/sub/3.png": {"tags": "c"},
        "ü/4": 'vier "}{'[::-1],
        "5": 5,
    }
    text = json.dumps(document, indent=1, ensure_ascii=name == "meta_cap.json")
    index = index_of(tmp_path, name, text)
    found = fields_of(index, tmp_path, "1.jpg", "2.jpeg", "sub/3.png", "ü/4.webp", "1.png")
    assert found == [
        *({"caption": "one"}, {"caption": "two", "tags": "a, b"}, {"tags": "c"}),
        *({"caption": '{}" reiv'}, None),
    ]
    assert counted(index) == {"broken": 1}


def test_a_large_file_of_captions(tmp_path):
    """More than the reader takes at once, with white space where it is cut."""
    pad = " " * 700
    rows = [f'"{i:06d}" :{pad}"caption {i}"' for i in range(4000)]
    index = index_of(tmp_path, "captions.json", "{" + ",\n".join(rows) + "\n}\n")
    assert len(index) == 4000
    numbers = (3999, 0, 1498)
    found = fields_of(index, tmp_path, *(f"{i:06d}.jpg" for i in numbers))
    assert found == [{"caption": f"caption {i}"} for i in numbers]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"1": "a"',
        '{"1": "a"} x',
        '{"1" "a"}',
        '{"1": a}',
        '{"1": "a" "2": "b"}',
        "{1: 2}",
    ],
)
def test_captions_that_are_no_json_are_refused_as_a_whole(tmp_path, text):
    index = index_of(tmp_path, "captions.json", text)
    assert len(index) == 0 and counted(index) == {"broken": 1}


def test_an_object_without_captions(tmp_path):
    assert counted(index_of(tmp_path, "captions.json", " { } \n")) == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be-mark"])
@pytest.mark.parametrize("name", METADATA)
def test_marks_of_encodings(tmp_path, name, encoding):
    texts = {
        "metadata.jsonl": '{"file_name": "1.jpg", "caption": "猫"}\n',
        "metadata.csv": "file_name,caption\n1.jpg,猫\n",
    }
    text = texts.get(name, '{"1.jpg": {"caption": "猫"}}')
    data = (
        text.encode(encoding) if "mark" not in encoding else b"\xfe\xff" + text.encode("utf-16-be")
    )
    index = index_of(tmp_path, name, data)
    assert fields_of(index, tmp_path, "1.jpg") == [{"caption": "猫"}] and not counted(index)


def test_utf_16_that_is_none(tmp_path):
    index = index_of(tmp_path, "metadata.jsonl", b"\xff\xfe\x00\xdc\x00")
    assert counted(index) == {"not_utf8": 1}


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "metadata.csv").mkdir()
    assert counted(MetadataIndex(str(tmp_path), "metadata.csv")) == {"unreadable": 1}
    os.mkfifo(tmp_path / "captions.json")
    assert counted(MetadataIndex(str(tmp_path), "captions.json")) == {"unreadable": 1}
    with pytest.raises(StoreError, match=r"metadata\.jsonl cannot be read: .*--captions none"):
        MetadataIndex(str(tmp_path), "metadata.jsonl")


def test_a_file_that_changes_is_not_read_amiss(tmp_path):
    index = index_of(tmp_path, "metadata.jsonl", '{"file_name": "1.jpg", "text": "one"}\n')
    (row,) = index.find([f"{tmp_path}/1.jpg"]).tolist()
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "2.jpg", "text": "two"}\n')
    with pytest.raises(Refused, match="changed while it was read"):
        index.fields(row)
