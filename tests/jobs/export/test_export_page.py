"""The page on exports, held to its word: its table is that of the formats, its commands are run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jobkit
import pytest
from harness.made_up_stores import Made, noise, write_store
from picturekit import picture
from PIL import Image

from latentcli.exports.formats import NAMES, export_format
from latentcli.images.buckets import make_buckets
from latentcli.jobs.runtime.model_cards import list_models

PAGE = (Path(__file__).parents[3] / "docs" / "guides" / "exports.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([\w-]+)` \| (`[\w`, ]+`) \| ([\w., ]+) \| (\w+) \|$", re.MULTILINE)
SIDE = 1024
LOOP_COMMANDS = (
    "latentcli encode photos --area 256 -o photos.latents",
    "accelerate launch train.py photos.latents",
)
"""Of the recipe that needs no trainer: they are run as they stand."""
PROGRAMS = "latentcli|accelerate|python|simpletuner"


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


def test_the_formats_to_try_without_a_download_are_those_of_any_space():
    (item,) = (one for one in PAGE.split("\n- ") if "can be tried without a download" in one)
    of_any = {n for n in NAMES if not all(one.spaces for one in export_format(n).variants)}
    assert set(re.findall(r"`([\w-]+)`", item)) & set(NAMES) == of_any


def test_the_models_of_each_space_are_those_that_encode_it():
    rows = re.findall(r"^\| (\w+) \| ((?:`\w+`(?:, )?)+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    models = [one for one in list_models() if one["can_encode"]]
    for space, names in rows:
        found = [one["name"] for one in models if one["latent_space"].partition("#")[0] == space]
        assert re.findall(r"\w+", names) == found
    unwritten = {space for one in ROW.findall(PAGE) for space in one[2].split(", ")}
    assert unwritten - {space for space, _ in rows} == {"any", "wan2.1"}


def test_every_format_has_a_row_on_its_files():
    for name in NAMES:
        (row,) = re.findall(rf"^\| `{name}` \| (?!`)(.+) \|$", PAGE, re.MULTILINE)
        format = export_format(name)
        assert ", ".join(format.dtypes) in row
        assert not format.rule or f"--bucket-rule {format.rule}" in row


def test_the_settings_of_the_recipes_are_those_that_an_export_says():
    """Files of settings are written out in the page, for copying: each value is a printed one."""
    said = dict(
        re.findall(r"^In its dataset config: (image_dir\w* = .*?)\.( List .*)?$", PAGE, re.M)
    )
    files = re.findall(r"^`dataset\.toml`:\n\n((?:    .*\n|\n)+)", PAGE, re.MULTILINE)
    assert len(said) == len(files) == 2
    for line, text in zip(said, files, strict=True):
        wanted = tomllib.loads(re.sub(r", (?=[a-z_]+ = )", "\n", line))
        written = tomllib.loads(textwrap.dedent(text))
        (dataset,) = written["datasets"]
        found = written["general"] | dataset
        for subset in dataset.get("subsets", ()):
            found |= subset
        assert wanted.items() <= found.items()
    (entry,) = re.findall(r"^In the dataset config: (.*)$", PAGE, re.MULTILINE)
    backends, config = map(json.loads, re.findall(r"^```json\n(.*?)^```", PAGE, re.M | re.S))
    assert backends[0] == json.loads(entry)
    assert f"--aspect_bucket_alignment={config['aspect_bucket_alignment']}." in PAGE
    assert {name: config[name] for name in ("resolution", "resolution_type")}.items() <= (
        backends[0].items()
    )


def test_the_loop_of_accelerate_takes_its_first_steps(tmp_path):
    pytest.importorskip("accelerate")
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "train.py").write_text(program)
    (tmp_path / "photos").mkdir()
    for number, size in enumerate([(64, 48), (64, 48), (48, 64)]):
        Image.new("RGB", size, "teal").save(tmp_path / "photos" / f"{number}.png")
        (tmp_path / "photos" / f"{number}.txt").write_text(f"caption {number}")
    encode, launch = map(shlex.split, LOOP_COMMANDS)
    done = jobkit.cli(*encode[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *launch[1:]]
    done = subprocess.run(
        words, cwd=tmp_path, env=jobkit.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    steps = re.findall(r"^(\d) latents, loss \d+\.\d{3}: caption \d$", done.stdout, re.MULTILINE)
    assert sorted(steps) == ["1", "2"]


def test_what_cannot_be_run_is_marked():
    """In the paragraph before the commands, or in the one behind them."""
    parts = ["", *re.split(r"\n\n+", PAGE), ""]
    blocks = [n for n, part in enumerate(parts) if re.match(rf"    (?:{PROGRAMS}) ", part)]
    assert len(blocks) >= 7
    for number in blocks:
        lines = parts[number].replace("\\\n", " ").splitlines()
        marked = any("*(not run here" in parts[near] for near in (number - 1, number + 1))
        assert marked or all(line.strip() in LOOP_COMMANDS for line in lines), lines
