"""Which files beside inputs belong to these."""

from __future__ import annotations

import pytest

from latentcli.core.fields import AUTO, caption_rule
from latentcli.shards.sources.beside import Beside
from latentcli.shards.sources.metadata_formats import METADATA

INPUTS = ["/d/cats/a.jpg", "/d/cats/b.c.png", "/d/cats/deep/e.webp"]


def beside(*paths: str, mode: str = "auto") -> dict[str, int]:
    """How many of some files belong to the inputs, by suffix."""
    found = Beside.of(caption_rule(mode), METADATA)
    for path in paths:
        found.note(path.rpartition(".")[2], path)
    return dict(found.belonging(INPUTS))


def test_texts_and_documents_of_the_name_of_an_input_belong_to_it() -> None:
    paths = "/d/cats/a.txt", "/d/cats/a.json", "/d/cats/b.c.caption", "/d/cats/deep/e.txt"
    assert beside(*paths) == {"txt": 2, "json": 1, "caption": 1}


@pytest.mark.parametrize(
    "path",
    [
        "/d/cats/README.txt",
        "/d/cats/e.txt",
        "/d/a.txt",
        "/d/cats/b.txt",
        "/d/cats/a.TXT",
        "/d/cats/a.tags",
        "/d/cats/zzz.txt",
    ],
)
def test_what_no_input_would_read_belongs_to_none(path: str) -> None:
    assert beside(path) == {}


def test_metadata_belongs_to_the_inputs_below_its_folder() -> None:
    paths = "/d/metadata.jsonl", "/d/cats/metadata.csv", "/d/cats/captions.json"
    assert beside(*paths) == {"jsonl": 1, "csv": 1, "json": 1}
    assert beside("/d/dogs/metadata.csv", "/other/captions.json") == {}


def test_what_belongs_is_as_the_job_reads_captions() -> None:
    paths = "/d/cats/a.txt", "/d/cats/a.tags", "/d/cats/a.json", "/d/metadata.csv"
    assert beside(*paths, mode="tags") == {"tags": 1, "json": 1, "csv": 1}
    assert beside(*paths, mode="none") == {}
    assert AUTO.suffixes == ("txt", "caption")


def test_no_inputs_and_no_files() -> None:
    found = Beside.of(AUTO, METADATA)
    assert found.belonging(INPUTS) == {}
    found.note(".txt", "/d/a.txt")
    found.note(".csv", "/d/metadata.csv")
    assert found.belonging([]) == {}
