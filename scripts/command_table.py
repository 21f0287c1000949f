"""Makes the page of the command line, and the keys of job files, from the options themselves.

python scripts/command_table.py            prints both
python scripts/command_table.py --write    puts them into docs/reference
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import typer.main

from latentcli.cli.app import app
from latentcli.core.options import SECTIONS, options_of

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
PAGE, JOB_FILES = REFERENCE / "command-line.md", REFERENCE / "job-files.md"
BEGIN = "<!-- keys: written by scripts/command_table.py --write -->\n"
HEAD = """\
# Command line

All options of all commands. `latentcli COMMAND --help` shows the daily ones, and `--help-all` shows
all of them. `latentcli --install-completion` makes the shell complete commands, options, models
and choices.

Every option can also be set by a variable (`LATENTCLI_BATCH_SIZE` for `--batch-size`) or in a
[job file](job-files.md). The order of priority is: option, variable, job file, default. This page
is made from the options by `scripts/command_table.py`.
"""


def page() -> str:
    """The whole page."""
    root = typer.main.get_command(app)
    return "\n".join([HEAD, *lines_of(root, "latentcli")])


def lines_of(command: Any, name: str) -> Iterator[str]:
    """A section for each command below this one."""
    for word, below in getattr(command, "commands", {}).items():
        yield from section(below, f"{name} {word}")
        yield from lines_of(below, f"{name} {word}")


def section(command: Any, name: str) -> Iterator[str]:
    """A command: its text, and a table of its arguments and options."""
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    usage = " ".join([name, "[OPTIONS]", *(param.metavar for param in arguments)])
    yield f"## {name.removeprefix('latentcli ')}\n"
    yield f"    {usage}\n"
    yield f"{(command.help or '').strip()}\n"
    yield "| option | |"
    yield "| --- | --- |"
    for param in command.params:
        if not getattr(param, "hidden", False) and param.name not in ("help", "help_all"):
            yield f"| {names(param)} | {cell(getattr(param, 'help', None) or '')} |"
    yield ""


def names(param: Any) -> str:
    """All that a parameter is called, and what it takes."""
    if param.param_type_name == "argument":
        return f"`{param.metavar}`"
    metavar = (param.metavar or "").strip()
    flags = [f"`{flag}{' ' + metavar if metavar else ''}`" for flag in param.opts]
    every = ", ".join([*flags, *(f"`{flag}`" for flag in param.secondary_opts)])
    return every.replace("|", "\\|")


def keys() -> str:
    """The table of the sections of a job file."""
    found: dict[str, dict[str, None]] = {}
    for kind in jobs():
        for option in options_of(kind).values():
            found.setdefault(option.section, {})[option.key] = None
    lines = ["| section | keys |", "| --- | --- |"]
    for section in SECTIONS:
        if section in found:
            lines.append(f"| `[{section}]` | {', '.join(f'`{key}`' for key in found[section])} |")
    return "\n".join(lines) + "\n"


def jobs() -> list[Any]:
    """The jobs of all commands that take a job file."""
    modules = [vars(module) for name, module in sys.modules.items() if "latentcli.cli." in name]
    kinds = {kind for names in modules for kind in names.values() if is_dataclass(kind)}
    found = [kind for kind in kinds if isinstance(kind, type) and kind.__name__.endswith("Job")]
    return sorted(found, key=lambda kind: kind.__name__)


def with_keys(text: str, new: str) -> str:
    """A document with what stands below the marker replaced; ValueError where there is none."""
    before, begin, _ = text.partition(BEGIN)
    if not begin:
        raise ValueError(f"the line {BEGIN.strip()} is missing")
    return before + begin + new


def shown(text: str) -> str:
    """Text of the help, without what it escapes."""
    return text.replace("\\[", "[")


def cell(text: str) -> str:
    """A text that fits into a cell of a table."""
    return " ".join(shown(text).split()).replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Prints the page, or writes it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the page of the documentation")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
        text = JOB_FILES.read_text(encoding="utf-8")
        JOB_FILES.write_text(with_keys(text, keys()), encoding="utf-8")
    else:
        print(page(), keys(), sep="\n", end="")


if __name__ == "__main__":
    main()
