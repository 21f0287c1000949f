"""Runs a script of this checkout as a person does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def run_script(name: str, *words: object) -> int:
    """Its exit code; what it prints goes where this process prints."""
    command = [sys.executable, str(SCRIPTS / name), *map(str, words)]
    return subprocess.run(command, check=False).returncode
