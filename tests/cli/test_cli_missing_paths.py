"""A path that is not there is wrong usage, whichever command is given it."""

from __future__ import annotations

from pathlib import Path

import pytest
from clikit import Run

pytestmark = pytest.mark.usefixtures("pictures")

LINES = [
    "encode {}",
    "encode @{}",
    "encode images --weights {}",
    "encode images -m {}.toml",
    "encode images -m ./{}",
    "encode images --buckets {}",
    "encode --config {}",
    "plan {}",
    "decode {}",
    "decode {}.safetensors",
    "sync {}",
    "inspect {}",
    "inspect {}.safetensors",
    "verify {}",
    "watch {}",
    "watch {} --once",
    "roundtrip {}",
    "roundtrip images --cached {}",
    "models show {}.toml",
    "export {} --to kohya",
    "card {}",
    "push {} org/name",
    "bench {} --stages",
    "bench --weights {}",
    "budget {}",
    "video-embed {} -o features.safetensors",
    "video-distance {} {}",
]
"""Command lines with a path."""
REMOTE = [
    "encode {}",
    "decode {}",
    "sync {}",
    "inspect {}",
    "verify {}",
    "watch {} --once",
    "card {}",
]


@pytest.mark.parametrize("line", LINES)
def test_a_missing_path(cli: Run, line: str) -> None:
    shown = cli(*line.format("nowhere", "nowhere").split())
    assert shown.code == 2
    assert "nowhere" in shown.err and shown.out == ""


@pytest.mark.parametrize("line", REMOTE)
def test_a_missing_url(cli: Run, line: str) -> None:
    shown = cli(*line.format("memory://nowhere").split())
    assert shown.code == 2
    assert "memory://nowhere" in shown.err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-o a.csv", "a.csv is a file: a latent store is a folder. Choose another output folder"),
        ("-o a.csv/x/y", "a.csv/x/y cannot be made: a.csv is a file and not a folder. Choose"),
        ("-o a.csv/x --dry-run", "a.csv/x cannot be made: a.csv is a file and not a folder."),
        ("-o /proc/x", "/proc/x cannot be made in the folder /proc: its file system takes no new"),
        ("-o out --weights a.csv", "a.csv is not a weights file: its name must end in"),
    ],
)
def test_a_path_of_another_kind(cli: Run, line: str, told: str) -> None:
    Path("a.csv").touch()
    shown = cli("encode", "images", *line.split(), "--device", "cpu", "--workers", 0)
    assert shown.code == 2 and f"error: {told}" in shown.err
    assert "committed" not in shown.err and not Path("out").exists()


def test_the_document_has_the_same_code(cli: Run) -> None:
    assert cli("inspect", "nowhere", "--json").document["exit_code"] == 2
