"""What options and commands of other tools are called here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from latentcli.cli.app import app
from latentcli.cli.other_names import (
    COMMAND_NOTES,
    COMMANDS,
    OPTION_NOTES,
    OPTIONS,
    command_hint,
    option_hint,
)

ROOT: Any = get_command(app)


def words(*tables: dict[Any, str]) -> Iterator[str]:
    """What is looked up in the tables."""
    for table in tables:
        for key, value in table.items():
            yield from (value if isinstance(key, tuple) else key).split()


def flags(command: str) -> set[str]:
    """The options of a command."""
    return {flag for one in ROOT.commands[command].params for flag in one.opts}


def test_what_is_suggested_is_there() -> None:
    every = {flag for name in ROOT.commands for flag in flags(name)}
    ours = {option.partition(" ")[0] for options in OPTIONS for option in options}
    assert ours <= every
    assert {name for names in COMMANDS for name in names} <= set(ROOT.commands)


def test_no_name_of_another_tool_is_one_of_ours() -> None:
    names = list(words(COMMANDS, COMMAND_NOTES))
    assert not set(names) & set(ROOT.commands)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("table", [OPTIONS, OPTION_NOTES, COMMANDS, COMMAND_NOTES])
def test_names_are_written_as_they_are_looked_up(table: dict[Any, str]) -> None:
    for word in words(table):
        assert word == word.lower().strip("-") and "_" not in word


@pytest.mark.parametrize(
    ("command", "name", "hint"),
    [
        ("encode", "--resolution", " (did you mean '--size' or '--area'?)"),
        ("video-embed", "--resolution", " (did you mean '--size'?)"),
        ("decode", "--resolution", ""),
        ("encode", "--vae_path", " (did you mean '--model'?)"),
        ("encode", "--pretrained_vae_model_name_or_path", " (did you mean '--model'?)"),
        ("roundtrip", "--out", " (did you mean '--save' or '--report'?)"),
        ("decode", "--Output_Dir", " (did you mean '--output'?)"),
        ("encode", "--max_data_loader_n_workers", " (did you mean '--workers'?)"),
        ("encode", "--bf16", " (did you mean '--dtype bf16'?)"),
        ("encode", "--report_to", " (did you mean '--track wandb'?)"),
        ("encode", "--number_sample_per_shard", " (did you mean '--samples-per-shard'?)"),
        ("decode", "--resume", " (did you mean '--skip-existing'?)"),
        ("encode", "--modle", None),
    ],
)
def test_an_option_of_another_tool(command: str, name: str, hint: str | None) -> None:
    assert option_hint(name, flags(command)) == hint


def test_an_option_that_is_not_needed_here_is_explained() -> None:
    hint = option_hint("--train_data_dir", flags("encode"))
    assert hint == ". Sources are named without an option, as in latentcli encode photos."
    assert "the same command resumes" in str(option_hint("--resume", flags("encode")))


def test_commands_of_other_tools() -> None:
    assert command_hint("cache_latents") == "Did you mean 'encode'?"
    assert command_hint("convert") == "Did you mean 'encode' or 'export'?"
    assert "trains nothing" in str(command_hint("train"))
    assert command_hint("encod") is None
