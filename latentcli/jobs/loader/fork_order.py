"""Says what a fork server is asked for, and what a process that it forks is to be like."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Target = Callable[[socket.socket], None]
"""What a process does with its end of a socket pair."""


@dataclass(frozen=True, slots=True)
class Start:
    """Asks for a process; its end of the socket pair comes after this."""

    target: Target
    variables: Mapping[str, str]
    folder: str | None
    cores: frozenset[int]
    priority: int
    umask: int | None

    @classmethod
    def here(cls, target: Target) -> Start:
        """One that is as this process is now: the server is as it was when that began."""
        # Another thread may take a variable away meanwhile.
        values = ((name, os.environ.get(name)) for name in list(os.environ))
        variables = {name: value for name, value in values if value is not None}
        cores = frozenset(os.sched_getaffinity(0))
        return cls(target, variables, folder(), cores, os.getpriority(os.PRIO_PROCESS, 0), umask())

    def settle(self) -> None:
        """Makes this process so, as far as the system allows."""
        os.environ.clear()
        os.environ.update(self.variables)
        if self.umask is not None:
            os.umask(self.umask)
        with suppress(OSError):
            os.chdir(self.folder or "/")
        with suppress(OSError):
            os.sched_setaffinity(0, self.cores)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, self.priority)


@dataclass(frozen=True, slots=True)
class End:
    """Asks to kill a process and to wait for its end."""

    pid: int


def folder() -> str | None:
    """The working directory, or None where it is gone."""
    with suppress(OSError):
        return str(Path.cwd())
    return None


def umask() -> int | None:
    """What is taken from the permissions of new files; None where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return None
