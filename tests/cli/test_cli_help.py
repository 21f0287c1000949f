"""The help: what is needed daily on one screen, everything with --help-all, and no blanks."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clikit import Run, on_terminal
from typer.main import get_command

from latentcli.cli.app import app
from latentcli.cli.commands import GROUPS, NAMES
from latentcli.cli.help import FEW, PANELS, own_options
from latentcli.cli.jobfile import resolve
from latentcli.core.options import SECTIONS, brief, flag_of, option

PAGES = [(name,) for name in NAMES] + [("models", "show"), ()]
MOST_LINES = 55
"""Lines of a page that fits on one screen."""


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def command_of(*words: str) -> Any:
    """The parsed command of its words."""
    command = get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    return command


def flags_of(command: Any) -> set[str]:
    """Every spelling of every option of a command."""
    return {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)} - {
        one.name for one in command.params
    }


def named(page: str) -> set[str]:
    """The options that a page's first column names."""
    columns = [re.split(r" {2,}(?=\S)", line[2:].strip())[0] for line in page.splitlines()]
    return set(re.findall(r"(?<![\w-])--?[a-z0-9][\w-]*", " ".join(columns)))


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_the_short_help_fits_on_a_screen(cli: Run, words: tuple[str, ...]) -> None:
    shown = cli(*words, "--help")
    lines = shown.out.splitlines()
    assert (shown.code, shown.err) == (0, "")
    assert len(lines) <= MOST_LINES
    assert all(len(line) <= 100 for line in lines)


def test_the_short_help_of_encode_is_that_of_every_day(cli: Run) -> None:
    page = cli("encode", "--help").out
    daily = ["--model", "--output", "--size", "--workers", "--batch-size", "--max-bad", "--config"]
    panels = page[page.index("╭") :]
    assert sorted(daily, key=panels.index) == daily
    assert not {"--bucket-rule", "--engine", "--retry", "--alpha"} & named(page)
    count = len(own_options(command_of("encode")))
    assert page.splitlines()[-1] == (
        f"latentcli encode --help-all shows all {count} options, in full."
    )


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_the_whole_help_names_every_option(cli: Run, words: tuple[str, ...]) -> None:
    shown = cli(*words, "--help-all")
    assert (shown.code, shown.err) == (0, "")
    command = command_of(*words)
    assert flags_of(command) | {"-h", "--help"} <= named(shown.out)
    text = " ".join(shown.out.replace("│", " ").split())
    assert "Exit codes: 0 done" in text
    for told in own_options(command).values():
        assert first_words(told.help) in text


def first_words(text: str) -> str:
    """As much of a text as one line shows."""
    return " ".join(text.split()[:3])


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_what_is_shown_is_free_of_what_typer_makes_up(
    cli: Run, words: tuple[str, ...], flag: str
) -> None:
    page = cli(*words, flag).out
    for odd in ("--no-no-", "<bool>", "<str>", "list[", "[default", "None", "[env", "\\["):
        assert odd not in page


@pytest.mark.parametrize("name", NAMES)
def test_small_commands_show_all_and_large_ones_what_is_needed_daily(cli: Run, name: str) -> None:
    options = [told for told in own_options(command_of(name)).values() if not told.argument]
    few = len(own_options(command_of(name))) <= FEW
    shown = named(cli(name, "--help").out)
    for told in options:
        assert (flag_of(told) in shown) is (few or told.daily), told.key


def test_a_switch_shows_both_forms_in_one_column(cli: Run) -> None:
    lines = [line.strip("│ ") for line in cli("encode", "--help-all").out.splitlines()]
    assert any(line.startswith("--self-check/--no-self-check   Encode") for line in lines)
    assert any(line.startswith("--no-upscale/--upscale ") for line in lines)
    (first,) = (at for at, line in enumerate(lines) if line.startswith("--include-output/ "))
    assert lines[first + 1].startswith("--no-include-output ")


def test_a_brief_text_is_the_first_sentence_and_the_default() -> None:
    told = option("", "A thing of 0.5 m. With a tail. Default: none.").metadata["option"]
    assert brief(told) == "A thing of 0.5 m. Default: none."


def test_commands_are_in_panels(cli: Run) -> None:
    page = cli("--help").out
    for title, names in GROUPS.items():
        (panel,) = re.findall(rf"─ {title} ─.*?╰", page, re.DOTALL)
        found = re.findall(r"^│ ([a-z-]+) ", panel, re.MULTILINE)
        assert found == list(names)


def test_every_section_of_a_job_file_has_words_for_people() -> None:
    assert {*SECTIONS, ""} <= PANELS.keys()
    assert len({*PANELS.values()}) == len(PANELS)


def test_the_variable_of_an_option_is_told_where_its_name_is_another(cli: Run) -> None:
    told = " ".join(cli("encode", "--help-all").out.replace("│", " ").split())
    assert "Variable: LATENTCLI_SHARD_FORMAT." in told
    assert told.count("Variable:") == 1


@pytest.mark.parametrize("name", ["encode", "decode"])
def test_the_examples_are_command_lines_that_work(cli: Run, name: str) -> None:
    command = command_of(name)
    examples = command.callback.examples
    assert len(examples) == 3
    for line in examples:
        verb, *words = shlex.split(line)
        assert verb == name
        with command.make_context(name, words) as context:
            resolve(command.callback.job, name, context.params)
        assert f"\n  latentcli {line}\n" in cli(name, "--help").out


@pytest.mark.parametrize("words", ["--help", "encode --help", "encode --help-all", "models", "-h"])
@pytest.mark.parametrize("columns", ["60", "100", ""])
def test_a_pipe_gets_no_trailing_blanks(words: str, columns: str) -> None:
    env = {**os.environ, "COLUMNS": columns, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "latentcli", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    if columns and words != "models":
        assert max(map(len, lines)) == int(columns)


def test_a_wide_terminal_gets_lines_that_can_be_read(tmp_path: Path) -> None:
    words = ["bash", "-c", f"{sys.executable} -m latentcli encode --help >&2"]
    code, _, shown = on_terminal(words, columns=200)
    assert code == 0
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) == 120
    assert "\x1b[" in shown, "a terminal has colours"
