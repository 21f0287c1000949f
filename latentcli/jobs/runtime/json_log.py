"""Appends the events of a job to a file, one JSON object a line."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from latentcli.core.json_values import finite
from latentcli.jobs.runtime.events import Event
from latentcli.jobs.runtime.follow_options import LOG_OPTION, check_log
from latentcli.jobs.runtime.places import try_file


class JsonLog:
    """A file that grows by a line for each event.

    It is opened anew for each, so that a file which was moved away, or a folder which is there
    again, is found. Lines of earlier jobs stay. UsageError for what can be no file.
    """

    patience = 10.0

    def __init__(self, text: str) -> None:
        check_log(text)
        self.name = f"The log {text}"
        self._path = Path(text)
        self._torn: bool | None = None
        """Whether the file ends within a line; None until the first line looks."""

    def check(self) -> None:
        """UsageError where no file can be made there."""
        if not self._path.exists() or self._path.is_file() or self._path.is_dir():
            try_file(LOG_OPTION, str(self._path))

    def write(self, event: Event) -> None:
        """Appends a line at once, for whoever reads along; OSError where that is refused."""
        if self._torn is None:
            self._torn = is_torn(self._path)
        line = json.dumps(finite(event), separators=(",", ":"), allow_nan=False).encode()
        # What a full disk, or a job that was killed, left of a line must not spoil this one.
        data = b"\n" * self._torn + line + b"\n"
        # Without a reader, a pipe is refused and not waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        handle = os.open(self._path, flags, 0o666)
        try:
            written = os.write(handle, data)
        finally:
            os.close(handle)
        self._torn = written < len(data) and (written > 0 or self._torn)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def is_torn(path: Path) -> bool:
    """Whether a file ends within a line."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"
    except OSError:
        return False
