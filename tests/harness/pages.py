"""Reads the pages of the documentation, and runs what they show."""

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
from pathlib import Path

import av
import numpy as np
from PIL import Image

from latentcli.cli.app import main

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"

BORROWED = ("full_capacitor",)
"""Presets whose weights are not at hand: those of the bundled model, which has the same tensors in
smaller shapes, stand in for them under $LATENTCLI_WEIGHTS."""

VARYING = re.compile(
    r"(encode|decode|roundtrip|bench|verify) #(/#| images)|The slowest stage|bottleneck|"
    r"[\w#]+: worst |processor |software "
)
"""Quoted lines that depend on the machine, or name photographs of another folder."""
JOB_FILE = "job.toml"
"""What a page calls the job file that it shows."""


@dataclass(frozen=True)
class Quote:
    """A command of a page and the lines that stand below it."""

    command: str
    output: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What a command gave."""

    exit_code: int
    output: str


def pages() -> list[Path]:
    """All pages, the README first."""
    return [README, *sorted(DOCS.rglob("*.md"))]


def named(page: Path) -> str:
    """A page's path in the checkout."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def quotes(page: Path) -> Iterator[Quote]:
    """The commands of all console blocks but the transcripts of the two scripts."""
    for block in blocks(page, "console"):
        if not block.startswith("$ bash "):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, *output = part.rstrip().splitlines()
                yield Quote(command, tuple(output))


def transcript(page: Path, script: str) -> list[str]:
    """The lines that a page quotes of a script's run."""
    (block,) = (b for b in blocks(page, "console") if b.startswith(f"$ bash {script}\n"))
    return block.splitlines()[1:]


def make_workspace(folder: Path, photographs: Path) -> None:
    """What the pages speak of: photos with captions, a clip, tars, features, and weights."""
    shutil.copytree(photographs, folder / "photos")
    for path in sorted((folder / "photos").iterdir()):
        path.with_suffix(".txt").write_text(f"a photograph, {path.stem}")
    panned(folder / "photos" / "astronaut.png", folder / "clip.mp4")
    sharded(folder / "photos", folder / "shards")
    for name, scale in {"a": 1.0, "b": 1.2}.items():
        rows = np.random.default_rng(0).normal(size=(2000, 16))
        np.save(folder / f"{name}.npy", rows * scale)
    for name in BORROWED:
        bundled = ROOT / "latentcli" / "models" / "bundled" / "fcdm_nano"
        shutil.copytree(bundled, folder / "weights" / name)


def sharded(photos: Path, shards: Path) -> None:
    """The photographs in two tars, each with a caption."""
    shards.mkdir()
    paths = sorted(photos.glob("*.png"))
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
    """A command of a page, in this process where it can be."""
    if "|" in command or "--devices" in command or not command.startswith("latentcli "):
        return run_in_shell(command)
    _, *words = shlex.split(command)
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = main(words)
    return Result(code, text.getvalue())


def plain(line: str) -> str:
    """A line without its figures, units of size and widths of columns."""
    line = re.sub(r"-?\d[\d.,x%]*", "#", line)
    line = re.sub(r"\b[0-9a-f#]{20,}\b", "DIGEST", line)
    line = re.sub(r"# min # s\b", "# s", line)
    line = re.sub(r"\b([KMGT]i)?B\b", "bytes", line)
    return " ".join(line.replace("─", " ").split())
