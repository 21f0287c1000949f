"""Opens rich consoles that go silent when their reader leaves."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console

UNWRAPPED = 100_000
"""Columns of what is no terminal: nothing is cut or wrapped in a file or a pipe."""


class PatientConsole(Console):
    """A console that goes silent when its reader leaves.

    `latentcli encode ... 2>&1 | head -3` must not end a job that has run for hours.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def console_on(stream: IO[str]) -> Console:
    """The console of a stream: as wide as the terminal, or as wide as it takes."""
    width = None if stream.isatty() else UNWRAPPED
    return PatientConsole(file=stream, width=width, markup=False, highlight=False, emoji=False)
