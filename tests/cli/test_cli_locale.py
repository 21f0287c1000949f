"""Keys are made of the bytes of names, whatever the locale says that the bytes mean."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness.stores import tree

NAMES = (b"plain", b"caf\xc3\xa9", b"caf\xe9", "日本".encode(), b"\xff\xfe", b"Z", b"a b")
KEYS = ["Z", "a b", "café", "caf%E9", "plain", "日本", "%FF%FE"]
LOCALES: dict[str, dict[str, str] | None] = {
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture
def folder(pictures: Path) -> bytes:
    """A picture under each of the names, in a folder whose own name is no UTF-8 either."""
    source = next(pictures.iterdir())
    folder = os.fsencode(pictures.parent) + b"/b\xe4r"
    os.mkdir(folder)  # noqa: PTH102
    for name in NAMES:
        shutil.copy(os.fsencode(source), folder + b"/" + name + b".png")
    return folder


def encode(
    folder: bytes, toy: list[str], output: str, variables: dict[str, str], workers: int = 0
) -> Path:
    """The store that a process under a locale makes."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    words = [sys.executable, "-m", "latentcli", "encode", folder, *toy, "--size", "32"]
    words += ["--workers", str(workers), "--samples-per-shard", "3", "-o", output]
    done = subprocess.run(words, capture_output=True, env=kept | variables)
    assert done.returncode == 0, done.stderr
    return Path(output)


def keys(store: Path) -> list[str]:
    return [json.loads(line)["key"] for line in (store / "inputs.jsonl").read_text().splitlines()]


def latin_1(folder: Path) -> dict[str, str] | None:
    """Variables of a Latin-1 locale that is made in a folder; None where none can be made."""
    name = "en_US.ISO-8859-1"
    words = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / name)]
    if shutil.which("localedef") is None or subprocess.run(words).returncode:
        return None
    return {"LC_ALL": name, "LOCPATH": str(folder)}


def test_equal_names_have_equal_keys(folder: bytes, toy: list[str], tmp_path: Path) -> None:
    """And so have their units, shards and lists, whatever the order of names under a locale."""
    reference = encode(folder, toy, "reference", {"LC_ALL": "POSIX"})
    assert sorted(keys(reference)) == sorted(KEYS)
    (tmp_path / "locales").mkdir()
    for name, variables in {**LOCALES, "Latin-1": latin_1(tmp_path / "locales")}.items():
        if variables is None:
            continue
        store = encode(folder, toy, name, variables, workers=int(name == "ASCII"))
        assert (store / "inputs.jsonl").read_bytes() == (reference / "inputs.jsonl").read_bytes()
        assert tree(store / "shards") == tree(reference / "shards")
