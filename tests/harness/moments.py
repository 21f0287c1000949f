"""Does something to a process at a moment of its own: when it imports, lists or opens something.

Python tells an audit hook of all that, and the hook acts: no clock has a part in it.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

HOOK = """
import os, sys
event, word, action, value = os.environ["MOMENT"].split("|")
def act(name, args):
    if name == event and word in str(args[0]) and "DONE" not in globals():
        globals()["DONE"] = True
        if action == "strike":
            os.kill(os.getpid(), int(value))
        else:
            with open(value) as gate:
                gate.read()
if "MOMENT_OF" not in os.environ or os.environ["MOMENT_OF"] in os.environ:
    sys.addaudithook(act)
"""


@dataclass(frozen=True)
class Moment:
    """The first time that a process does this to a thing with `word` in its name."""

    event: str
    """As Python's table of audit events has it: import, open, os.scandir, ..."""
    word: str
    of: str = ""
    """A variable that only the processes have that are meant."""

    def strike(self, folder: Path, number: signal.Signals = signal.SIGINT) -> dict[str, str]:
        """Variables of a process that gets a signal then; `folder` takes the hook."""
        return self._variables(folder, f"strike|{int(number)}")

    def wait(self, folder: Path) -> tuple[dict[str, str], Path]:
        """Variables of a process that stands still then, until the pipe that is given is written.

        Opening the pipe waits for the process to come so far.
        """
        gate = folder / "gate"
        os.mkfifo(gate)
        return self._variables(folder, f"wait|{gate}"), gate

    def _variables(self, folder: Path, action: str) -> dict[str, str]:
        (folder / "sitecustomize.py").write_text(HOOK)
        path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        only = {"MOMENT_OF": self.of} if self.of else {}
        moment = f"{self.event}|{self.word}|{action}"
        return {"MOMENT": moment, **only, "PYTHONPATH": os.pathsep.join(path)}
