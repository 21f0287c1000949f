"""Opens rich consoles that drop their output once nobody reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO

from rich.console import Console

UNWRAPPED = 100_000
"""Columns of a file or a pipe, in which nothing is cut or wrapped unless COLUMNS says so."""


class PatientConsole(Console):
    """A console that goes silent when its reader leaves.

    `latentcli encode ... 2>&1 | head -3` must not end a job that has run for hours.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def columns_in(environment: Mapping[str, str]) -> int | None:
    """The columns that COLUMNS asks for; None where it says nothing that is one or more."""
    text = environment.get("COLUMNS", "")
    return int(text) or None if text.isascii() and text.isdecimal() else None


def console_on(stream: IO[str]) -> Console:
    """The console of a stream: as wide as COLUMNS says, else as the terminal, or as it takes."""
    width = None if stream.isatty() else columns_in(os.environ) or UNWRAPPED
    return PatientConsole(file=stream, width=width, markup=False, highlight=False, emoji=False)
