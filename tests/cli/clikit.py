"""What the command-line tests say: a command's outcome, and how one is run on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """What came of a command line."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out, parse_constant=_refuse)


Run = Callable[..., Result]


def _refuse(word: str) -> None:
    raise AssertionError(f"JSON has no {word}")


def on_terminal(
    words: Sequence[str],
    *,
    columns: int,
    lines: int = 24,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    look: Callable[[bytes], object] = lambda shown: None,
) -> tuple[int, str, str]:
    """(exit code, stdout, what a terminal on stderr got) of a process.

    `look` is shown all that the terminal has got so far, each time that something comes.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    env |= {"TERM": "xterm-256color", **(variables or {})}
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, cwd=cwd, env=env
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux tells the end of a terminal by EIO
            break
        if not part:
            break
        shown += part
        look(shown)
    os.close(master)
    assert process.stdout is not None
    out = process.stdout.read().decode()
    return process.wait(), out, shown.decode()
