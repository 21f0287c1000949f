"""The README, held to its word: its commands and Python run, its tables and names are true."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
import typer.main
from PIL import Image

from latentcli.cli.app import app, main
from latentcli.core import errors
from latentcli.models.presets import load_preset, preset_names

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

NOT_RUN: dict[str, str] = {}
"""Commands of the README that no test can run, and why."""

BORROWED = ("full_capacitor",)
"""Presets whose weights are not at hand: those of the bundled model, which has the same tensors in
smaller shapes, stand in for them under $LATENTCLI_WEIGHTS."""

VARYING = re.compile(
    r"(encode|decode|roundtrip|bench|verify) #(/#| images)|The slowest stage|bottleneck|"
    r"[\w#]+: worst |processor |software "
)
"""Quoted lines that depend on the machine, or name photographs of another folder."""


@dataclass(frozen=True)
class Quote:
    """A command of the README and the lines that stand below it."""

    command: str
    output: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What a command gave."""

    exit_code: int
    output: str


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def quotes() -> Iterator[Quote]:
    """The commands of all console blocks but the transcripts of the two scripts."""
    for block in blocks("console"):
        if not block.startswith("$ bash "):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, *output = part.rstrip().splitlines()
                yield Quote(command, tuple(output))


def transcript(script: str) -> list[str]:
    """The lines that the README quotes of a script's run."""
    (block,) = (b for b in blocks("console") if b.startswith(f"$ bash {script}\n"))
    return block.splitlines()[1:]


QUOTES = list(quotes())


@pytest.fixture(scope="module")
def workspace(photographs, tmp_path_factory) -> Iterator[Path]:
    """A working directory with photos/, and weights for the presets that are named."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(photographs, folder / "photos")
    panned(folder / "photos" / "astronaut.png", folder / "clip.mp4")
    sharded(folder / "photos", folder / "shards")
    for name, scale in {"a": 1.0, "b": 1.2}.items():
        rows = np.random.default_rng(0).normal(size=(2000, 16))
        np.save(folder / f"{name}.npy", rows * scale)
    for name in BORROWED:
        bundled = ROOT / "latentcli" / "models" / "bundled" / "fcdm_nano"
        shutil.copytree(bundled, folder / "weights" / name)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("LATENTCLI_")]:
            patch.delenv(name)
        patch.setenv("LATENTCLI_WEIGHTS", str(folder / "weights"))
        patch.chdir(folder)
        yield folder


def sharded(photos: Path, shards: Path) -> None:
    """The photographs in two tars, each with a caption."""
    shards.mkdir()
    paths = sorted(photos.iterdir())
    for number, part in enumerate((paths[:5], paths[5:])):
        with tarfile.open(shards / f"{number:03d}.tar", "w") as tar:
            for path in part:
                tar.add(path, path.name)
                info = tarfile.TarInfo(f"{path.stem}.txt")
                info.size = len(path.stem)
                tar.addfile(info, io.BytesIO(path.stem.encode()))


def panned(photograph: Path, clip: Path) -> None:
    """A clip of 36 frames of 128x128 that moves over a photograph."""
    pixels = np.asarray(Image.open(photograph).convert("RGB"))
    with av.open(str(clip), "w") as file:
        stream = file.add_stream("libx264", rate=12)
        stream.width = stream.height = 128
        for step in range(36):
            part = np.ascontiguousarray(pixels[step : step + 128, step : step + 128])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        file.mux(stream.encode(None))


@pytest.fixture(scope="module")
def results(workspace) -> list[Result]:
    """What the commands give, run one after the other as the README has them."""
    return [run(quote.command) for quote in QUOTES if quote.command not in NOT_RUN]


def run_in_shell(command: str) -> Result:
    """A pipeline, as a shell that notices failures runs it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return Result(done.returncode, done.stdout)


def run(command: str) -> Result:
    if "|" in command or "--devices" in command or not command.startswith("latentcli "):
        return run_in_shell(command)
    program, *words = shlex.split(command)
    assert program == "latentcli", f"the README's console blocks may not run {program}"
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = main(words)
    return Result(code, text.getvalue())


@pytest.fixture(scope="module")
def model_table() -> ModuleType:
    """scripts/model_table.py, which is in no package."""
    spec = spec_from_file_location("model_table", ROOT / "scripts" / "model_table.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(line: str) -> str:
    """A line without its figures, units of size and widths of columns."""
    line = re.sub(r"-?\d[\d.,x%]*", "#", line)
    line = re.sub(r"\b[0-9a-f#]{20,}\b", "DIGEST", line)
    line = re.sub(r"# min # s\b", "# s", line)
    line = re.sub(r"\b([KMGT]i)?B\b", "bytes", line)
    return " ".join(line.replace("─", " ").split())


def test_there_are_commands_of_every_verb():
    verbs = {shlex.split(quote.command)[1] for quote in QUOTES}
    assert verbs >= {"encode", "decode", "roundtrip", "bench", "models", "inspect", "verify"}


def test_commands_succeed(results):
    pairs = zip(QUOTES, results, strict=True)
    failed = [(quote.command, result) for quote, result in pairs if result.exit_code != 0]
    assert not failed


def test_quoted_output_is_what_comes(results):
    for quote, result in zip(QUOTES, results, strict=True):
        said = {plain(line) for line in result.output.splitlines()}
        for line in map(plain, quote.output):
            known = line in said or VARYING.match(line)
            assert known, f"$ {quote.command}\ndoes not say\n{line}\nbut\n{result.output}"


@pytest.mark.parametrize("source", blocks("python"), ids=lambda source: source.split()[-1])
def test_python_runs(source, results, capsys):
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})


def test_there_is_python():
    assert len(blocks("python")) == 2


def test_demo_transcript_is_of_this_script():
    lines = transcript("scripts/demo.sh")
    script = (ROOT / "scripts" / "demo.sh").read_text(encoding="utf-8").replace("$out", "demo-out")
    ran = [line.removeprefix("run ") for line in script.splitlines() if line.startswith("run ")]
    expected = [f"$ {command.replace(chr(34), '')}" for command in ran]
    assert [line for line in lines if line.startswith("$ ")] == expected
    (ending,) = re.findall(r"<<END\n(.*)\nEND$", script, re.DOTALL | re.MULTILINE)
    assert [line for line in ending.splitlines() if line not in lines] == []


def test_test_transcript_is_of_this_script():
    lines = transcript("scripts/test.sh")
    script = (ROOT / "scripts" / "test.sh").read_text(encoding="utf-8")
    steps = re.findall(r"^step (\w+(?: \w+)?)", script, re.MULTILINE)
    shown = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    assert len(shown) == len(steps)
    assert all(line.startswith(step) for line, step in zip(shown, steps, strict=True))
    assert re.search(r"\d+ passed.* in [\d.]+s", lines[-1])
    assert "failed" not in lines[-1] and "error" not in lines[-1]


def known_options() -> set[str]:
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    options = [option for command in commands for option in command.params]
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)}


def test_named_options_exist():
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    of_others = {"--help", "--slow", "--check", "--durations", "--dist", "--write"}
    assert named - of_others <= known_options()
    assert "--slow" in (ROOT / "scripts" / "test.sh").read_text(encoding="utf-8")


def test_named_variables_exist():
    named = set(re.findall(r"LATENTCLI_([A-Z_]+)", README)) - {"WEIGHTS"}
    known = {flag.removeprefix("--").replace("-", "_").upper() for flag in known_options()}
    assert named <= known


def test_models_table_is_that_of_the_presets(model_table):
    presets = [load_preset(name) for name in preset_names()]
    wanted = model_table.table(presets)
    assert model_table.with_table(README, wanted) == README, (
        "the README and configs/models disagree: run python scripts/model_table.py --write"
    )
    rows = [line for line in wanted.splitlines() if line.startswith("| `")]
    assert len(rows) == len(presets)
    (row,) = (row for row in rows if "`full_capacitor`" in row)
    cells = "114.7M | f16c128 | 32 | data-archetype/full_capacitor | encode, decode | see the"
    assert cells in row


def test_the_table_needs_its_markers(model_table):
    with pytest.raises(ValueError, match="end of models"):
        model_table.with_table("no table", "")


def test_exit_codes_are_true():
    written = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert written == {0, *(kind.exit_code for kind in kinds)}


def test_named_files_exist():
    (tree,) = re.findall(r"## Where things are\n\n(.*?)\n\n", README, re.DOTALL)
    named = [line.split()[0] for line in tree.splitlines()]
    named += re.findall(r"`((?:docs|configs|scripts)/[\w./]*)`", README)
    assert [name for name in named if not (ROOT / name).exists()] == []
    packages = {f"latentcli/{path.parent.name}/" for path in ROOT.glob("latentcli/*/__init__.py")}
    assert packages <= set(named)
