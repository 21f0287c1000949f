"""LATENTCLI_ variables: a mistyped one is an error with a suggestion, as a key of a job file is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clikit import Run
from typer.main import get_command

from latentcli.cli.app import app
from latentcli.cli.variables import OTHERS, variables_of

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"\bLATENTCLI_[A-Z][A-Z_]*\b")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("LATENTCLI_BATCHSIZE", "LATENTCLI_BATCHSIZE (did you mean 'LATENTCLI_BATCH_SIZE'?)"),
        ("LATENTCLI_WEIGHT", "LATENTCLI_WEIGHT (did you mean 'LATENTCLI_WEIGHTS'?)"),
        ("LATENTCLI_VAE_PATH", "LATENTCLI_VAE_PATH (did you mean 'LATENTCLI_MODEL'?)"),
        ("LATENTCLI_BF16", "LATENTCLI_BF16 (did you mean 'LATENTCLI_DTYPE'?)"),
        ("LATENTCLI_XYZZY_PLUGH", "LATENTCLI_XYZZY_PLUGH, which is not a variable of latentcli."),
    ],
)
@pytest.mark.parametrize("words", [["models"], ["inspect", "nowhere"], ["models", "show", "x"]])
def test_a_mistyped_variable_is_wrong_usage(
    cli: Run, monkeypatch: pytest.MonkeyPatch, name: str, told: str, words: list[str]
) -> None:
    monkeypatch.setenv(name, "4")
    result = cli(*words)
    assert (result.code, result.out) == (2, "")
    assert f"error: The environment sets {told}" in result.err


def test_several_are_told_at_once(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTCLI_SISE", "4")
    monkeypatch.setenv("LATENTCLI_MODLE", "x")
    told = cli("models").err
    assert "_MODLE (did you mean 'LATENTCLI_MODEL'?), LATENTCLI_SISE (did" in told
    assert "which are not variables" in told


def test_help_and_version_are_given_all_the_same(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTCLI_SISE", "4")
    for words in (["--version"], ["--help"], ["encode", "--help"], ["models", "show", "-h"]):
        assert cli(*words).code == 0


def test_variables_of_other_commands_and_empty_ones_are_fine(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*OTHERS, "LATENTCLI_COMPAT", "LATENTCLI_SHARD_FORMAT", "LATENTCLI_GPUS_PER_NODE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LATENTCLI_SISE", "")
    assert cli("models").code == 0


def test_every_variable_that_the_code_names_is_known() -> None:
    known = {*OTHERS, *variables_of(get_command(app))}
    files = [*(ROOT / "latentcli").rglob("*.py"), *(ROOT / "tests").rglob("*kit.py")]
    files += [ROOT / "tests" / "conftest.py"]
    named = {name for path in files for name in NAMED.findall(path.read_text())}
    assert named - known == {"LATENTCLI_NAME"}  # stands for any in a docstring
    assert {*OTHERS} <= named
