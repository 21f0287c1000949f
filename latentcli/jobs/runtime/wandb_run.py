"""Sends the figures of a job to Weights & Biases, by its own library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.jobs.runtime.events import END, PROGRESS, START, Event

PROJECT = "latentcli"
"""Where runs go, unless WANDB_PROJECT says another place."""
PRIVATE = {"x_disable_meta": True, "disable_git": True, "save_code": False}
"""Settings by which the library does not tell how the process was started."""
FIGURES = ("done", "total", "failed", "rate", "rate_whole", "eta", "elapsed", "units", "bytes")
CONFIG = ("verb", "store", "model", "world", "host", "version")


class WandbRun:
    """A run of Weights & Biases; the library's own variables (WANDB_*) hold.

    What the library raises while the run starts leaves the job without one.
    """

    name = "The run of Weights & Biases"
    patience = 120.0

    def __init__(self) -> None:
        self._run: Any = None

    def check(self) -> None:
        """UsageError where the library is not installed; does not load it, as that takes long."""
        # A folder of runs is called wandb too, and Python takes it for a package without content.
        found = find_spec("wandb")
        if found is None or found.origin is None:
            raise UsageError("--track wandb needs wandb: pip install 'latentcli[wandb]'.")

    def write(self, event: Event) -> None:
        """Begins the run, logs figures, or ends it; whatever the library raises."""
        if event["event"] == START:
            self._run = begun(event)
        elif self._run is not None and event["event"] == PROGRESS:
            self._run.log(figures(event))
        elif self._run is not None and event["event"] == END:
            self._run.config.update(config(event), allow_val_change=True)
            if event["done"] is not None:
                self._run.log(figures(event))
            self._run.summary["exit_code"] = event["exit_code"]
            self._run.finish(exit_code=event["exit_code"])


def begun(event: Event) -> Any:
    """A run of the library, for a job of which this is the first event."""
    wandb = import_module("wandb")
    # Standard output may be a tar stream, standard error is ours, and a command line may hold
    # secrets.
    settings = wandb.Settings(console="off", silent=True, **PRIVATE)
    with no_prompt():
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            job_type=event["verb"],
            config=config(event),
            settings=settings,
        )


@contextmanager
def no_prompt() -> Iterator[None]:
    """Hides a terminal on standard input from the library, which else asks there for a key.

    A job reads nothing from a terminal.
    """
    terminal = sys.stdin
    if terminal is None or not terminal.isatty():
        yield
        return
    with Path(os.devnull).open() as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = terminal


def config(event: Event) -> dict[str, Any]:
    """What a run is known by."""
    return {name: event[name] for name in CONFIG if event.get(name) is not None}


def figures(event: Event) -> dict[str, float]:
    """The numbers of an event, those of a stage as stage/<stage>/<figure>."""
    found = {name: event[name] for name in FIGURES if event.get(name) is not None}
    for stage, told in event.get("stages", {}).items():
        found |= {f"stage/{stage}/{name}": value for name, value in told.items()}
    return found
