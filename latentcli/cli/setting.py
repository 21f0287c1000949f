"""A field's name and help text in, its Typer option out: flags, variable, panel and choices."""

from __future__ import annotations

from typing import Any

import typer

from latentcli.cli.jobfile import section_of
from latentcli.jobs.config import CHOICES

WIDEST = 16
"""Columns of choices that the help's second column shows; the text names them all anyway."""
Number = str | None
"""Numbers stay text here: jobfile.py reads them, and tells a wrong one as it does in a job file."""
NOTHING = " "
"""What a switch takes, for the help's second column."""


def variable(name: str) -> str:
    """The environment variable of an option."""
    return f"LATENTCLI_{name.upper()}"


def setting(name: str, text: str, *flags: str, metavar: str | None = None, env: bool = True) -> Any:
    """The option of a job's field: --name unless flags say otherwise, in its stage's panel."""
    choices = CHOICES.get(name, ())
    shown = "|".join(choices)
    return typer.Option(
        *(flags or (f"--{name.replace('_', '-')}",)),
        help=text,
        metavar=metavar or (shown if len(shown) <= WIDEST else name.upper()) or None,
        envvar=variable(name) if env else None,
        show_envvar=False,
        show_default=False,
        rich_help_panel=section_of(name),
        autocompletion=(lambda: list(choices)) if choices else None,
    )


def switch(name: str, text: str) -> Any:
    """A setting that is on or off: --name or --no-name."""
    dashed = name.replace("_", "-")
    return setting(name, text, f"--{dashed}/--no-{dashed}", metavar=NOTHING)


def plain(name: str, text: str, *, metavar: str = NOTHING) -> Any:
    """An option that belongs to the command and not to the job; it stands in the first panel."""
    return typer.Option(
        f"--{name.replace('_', '-')}",
        help=text,
        metavar=metavar,
        envvar=variable(name),
        show_envvar=False,
        show_default=False,
    )
