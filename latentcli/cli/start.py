"""Starts the command as a process: what must hold before its code is loaded, and when it ends."""

from __future__ import annotations

import sys

from latentcli.core.errors import LatentCliError
from latentcli.jobs.runtime import process


def start() -> int:
    """Runs the words of the process to its exit code."""
    process.leave_at_once()
    process.speak_utf8()
    process.hold_standard_streams()

    with process.loading():
        from latentcli.cli.app import main

    code = main()
    try:
        sys.stdout.flush()
    except LatentCliError as error:
        print(f"error: {error}", file=sys.stderr)
        code = code or error.exit_code
    process.ends_with(code)
    return code
