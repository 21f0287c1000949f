"""Values reach a job as they are typed, and nothing is loaded to leave them so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clikit import Run
from typer.main import get_command

from latentcli.cli.app import app

HEAVY = ("pydantic", "torch", "numpy", "PIL", "latentcli.cli.bench", "latentcli.cli.decode")
CODE = (
    "import sys; from latentcli.cli.app import main;"
    f" print(main(sys.argv[1:]), *(name for name in {HEAVY} if name in sys.modules))"
)


def parsed(*words: str) -> dict[str, Any]:
    """The parameters of encode that are not empty."""
    encode = get_command(app).commands["encode"]  # type: ignore[attr-defined]
    with encode.make_context("encode", list(words)) as context:
        return {name: value for name, value in context.params.items() if value}


def test_values_stay_text() -> None:
    given = parsed("a", "1", "--size", "3", "--include", "*.png", "--include", "2", "--json")
    assert given == {"sources": ["a", "1"], "size": "3", "include": ["*.png", "2"], "json": True}


@pytest.mark.parametrize(("word", "quiet"), [("yes", True), ("1", True), ("off", None)])
def test_the_variable_of_a_switch_is_a_word(
    monkeypatch: pytest.MonkeyPatch, word: str, quiet: bool | None
) -> None:
    monkeypatch.setenv("LATENTCLI_QUIET", word)
    assert parsed("a").get("quiet") == quiet


def test_a_wrong_word_for_a_switch_is_told(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTCLI_SELF_CHECK", "perhaps")
    told = cli("encode", "nowhere")
    assert told.code == 2
    assert "--self-check" in told.err
    assert "boolean" in told.err


def told_by_a_process(*words: str, **variables: str) -> tuple[str, list[str]]:
    """What a command line of a process of its own says, its exit code, and what it has loaded."""
    env = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], capture_output=True, text=True, env=env
    )
    return done.stderr, done.stdout.split()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["encod"], "'encode'"),
        (["encode", "--modle", "x"], "'--model'"),
        (["encode", "{here}", "--model", "full_capasitor", "-o", "x"], "full_capacitor?"),
        (["models", "sho"], "'show'"),
    ],
)
def test_a_typo_is_told_before_anything_is_loaded(
    words: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    said, loaded = told_by_a_process(*(word.format(here=tmp_path) for word in words))
    assert told in said
    assert loaded == ["2"]


def test_a_mistyped_variable_is_told_by_the_commands_alone() -> None:
    said, loaded = told_by_a_process("encode", "x", LATENTCLI_SIZ="3")
    assert "'LATENTCLI_SIZE'" in said
    assert loaded == ["2", "latentcli.cli.bench", "latentcli.cli.decode"]
