"""How sources are chosen from and told of on the command line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from clikit import Run

from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.to_stdout import inputs_of
from latentcli.jobs.runtime.reporter import SILENT


@pytest.fixture
def more(pictures: Path) -> Path:
    """The working directory's pictures, with a few other things beside them."""
    (pictures / "notes.txt").touch()
    (pictures / "drawing.svg").touch()
    (pictures / "old.zip").touch()
    return pictures


BY = {".svg": 1, ".txt": 1, ".zip": 1}
TOLD = "Not taken as inputs: 1 .svg; 1 .zip; 1 other file (.txt)."


def test_what_is_left_out_is_told_everywhere(cli: Run, more: Path, toy: list[str]) -> None:
    command = ("encode", "images", *toy, "--size", 32, "-o", "out")
    planned = cli("plan", *command[1:])
    assert planned.code == 0 and TOLD in planned.out.replace("\n", " ")
    assert "1 .zip (archives: unpack them first)" in planned.err.replace("\n", " ")
    assert cli("plan", *command[1:], "--json").document["left_out_by"] == BY
    made = cli(*command)
    assert made.code == 0 and TOLD in made.err.replace("\n", " ")
    again = cli(*command, "--json").document
    assert (again["left_out"], again["left_out_by"], again["skipped"]) == (0, BY, 4)
    shown = cli("roundtrip", "images", *toy[:4], "--device", "cpu", "--size", 32, "--json")
    assert shown.document["left_out_by"] == BY


def test_a_larger_limit_appends(cli: Run, more: Path, toy: list[str]) -> None:
    command = ("encode", "images", *toy, "--size", 32, "-o", "out", "--json")
    first = cli(*command, "--limit", 1).document
    assert (first["encoded"], first["left_out_by"]) == (1, BY | {"over_limit": 3})
    shard = next(Path("out/shards").glob("*.safetensors"))
    before = shard.read_bytes()
    second = cli(*command, "--limit", 3).document
    assert (second["encoded"], second["skipped"]) == (2, 1)
    third = cli(*command).document
    assert (third["encoded"], third["skipped"], third["left_out_by"]) == (1, 3, BY)
    assert shard.read_bytes() == before
    listed = Path("out/inputs.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in listed] == [f"picture {i}" for i in range(4)]


def test_patterns(cli: Run, more: Path, toy: list[str]) -> None:
    command = ("plan", "images", *toy, "--size", 32, "-o", "out", "--json")
    told = cli(*command, "--include", "picture [0-2].*", "--exclude", "* 1.*", "--exclude", "old*")
    assert (told.document["to_encode"], told.document["left_out_by"]) == (2, {"excluded": 5})
    Path("job.toml").write_text('[read]\nsources = ["images"]\nexclude = ["*.svg", "* 1.*"]\n')
    told = cli("plan", "--config", "job.toml", *toy, "--size", 32, "-o", "out", "--json")
    assert told.document["left_out_by"] == {".txt": 1, ".zip": 1, "excluded": 2}


def test_a_list_of_find(
    cli: Run, more: Path, toy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = b"images/picture 0.png\0images/picture 3.png\0"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names)))
    made = cli("encode", "@-", "-0", *toy, "--size", 32, "--json")
    assert made.document["encoded"] == 2
    assert made.document["store"] == "stdin.tiny.latents"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-", "--limit", 3), "choose among files; - is one stream"),
        (("images", "--limit", 0), "--limit is 0; it must be at least 1"),
        (("images", "--null"), "--null (-0) says how lists end their names"),
        (("images", "--exclude", "!x"), "begins with an exclamation mark"),
        (("images", "--exclude", "*"), "holds no inputs"),
    ],
)
def test_what_cannot_be_is_refused(
    cli: Run,
    more: Path,
    toy: list[str],
    words: tuple[object, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    shown = cli("encode", *words, *toy, "-o", "out")
    assert shown.code == 2 and told in shown.err.replace("\n", " ")
    assert not Path("out").exists()


def test_a_stream_tells_what_it_left_out(more: Path, tmp_path: Path) -> None:
    job = EncodeJob(sources=("images",), output="-")
    *_, inputs, told = inputs_of(job, tmp_path, SILENT)
    assert (len(inputs), told) == (4, {"left_out": 0, "left_out_by": BY})
