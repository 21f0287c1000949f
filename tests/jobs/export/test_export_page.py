"""docs/exports.md, held to its word: its table is that of the formats, its commands are run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import jobkit
import pytest
from harness.made_up_stores import Made, noise, write_store
from picturekit import picture

from latentcli.exports.formats import NAMES, export_format
from latentcli.images.buckets import make_buckets

PAGE = (Path(__file__).parents[3] / "docs" / "exports.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([\w-]+)` \| (`[\w`, ]+`) \| ([\w., ]+) \| (\w+) \|$", re.MULTILINE)
SIDE = 1024


def console() -> Iterator[tuple[str, list[str]]]:
    """Commands, and the lines that stand below each."""
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *said = part.rstrip().splitlines()
            yield command, said


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """The stores that the page's encode commands make, of latents that no model made."""
    folder = tmp_path_factory.mktemp("page")
    kohya = make_buckets("kohya", SIDE, None, 8, max_side=2048)
    musubi = make_buckets("musubi", SIDE, None, 16)
    sizing = {"resize": "bucket", "size": None, "divisor": 8}
    store(folder, "sdxl", "sdxl", sizing | {"buckets": kohya.described()})
    store(folder, "flux2", "flux2", sizing | {"buckets": musubi.described()})
    store(folder, "square", "sdxl", {"resize": "crop", "size": [SIDE, SIDE], "divisor": 8})
    return folder


def store(folder: Path, name: str, space: str, sizing: dict) -> None:
    shape = (128, SIDE // 16, SIDE // 16) if space == "flux2" else (4, SIDE // 8, SIDE // 8)
    samples = [
        Made(
            key=key,
            parts={"latent": noise(*shape)},
            original_size=(64, 64),
            resized_size=(SIDE, SIDE),
            crop=(0, 0, SIDE, SIDE),
            fields={"caption": f"a {key}"},
            source=str(picture(folder / "photos" / f"{key}.png")),
        )
        for key in ("cat", "dog", "tree")
    ]
    write_store(folder / f"{name}.latents", samples, space, preprocess=sizing)


def test_the_commands_say_what_the_page_says(workspace):
    commands = list(console())
    assert len(commands) >= 4
    for command, said in commands:
        program, *words = shlex.split(command)
        assert program == "latentcli"
        done = jobkit.cli(*words, cwd=workspace)
        assert done.returncode == 0, done.stderr
        output = (done.stdout + done.stderr).replace(str(workspace), "/data")
        found = [line for line in output.splitlines() if not re.match(r"export \d", line)]
        assert found == said, command


def test_the_table_is_that_of_the_formats():
    written = {
        (name, arch.strip("` "), tuple(spaces.split(", ")), state)
        for name, arches, spaces, state in ROW.findall(PAGE)
        for arch in arches.split(",")
    }
    known = {
        (name, one.name, one.spaces or ("any",), one.state)
        for name in NAMES
        for one in export_format(name).variants
    }
    assert written == known


def test_every_format_has_a_row_on_its_files():
    for name in NAMES:
        (row,) = re.findall(rf"^\| `{name}` \| (?!`)(.+) \|$", PAGE, re.MULTILINE)
        format = export_format(name)
        assert ", ".join(format.dtypes) in row
        assert not format.rule or f"--bucket-rule {format.rule}" in row


def test_what_cannot_be_run_is_marked():
    for command in re.findall(r"^    ((?:latentcli|accelerate|python|simpletuner) .*)", PAGE, re.M):
        before, after = PAGE.split(command, 1)
        near = before[-400:] + after[:500]
        assert "not run" in near, command
