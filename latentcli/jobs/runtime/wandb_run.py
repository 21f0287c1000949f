"""Sends the figures of a job to Weights & Biases, by its own library."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
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

    UsageError where the library is not installed. What it raises while the run starts leaves the
    job without one.
    """

    name = "The run of Weights & Biases"
    patience = 120.0

    def __init__(self) -> None:
        with suppress(ImportError):
            self._wandb: Any = import_module("wandb")
        # A folder of runs is called wandb too, and Python takes it for a package without content.
        if not hasattr(getattr(self, "_wandb", None), "init"):
            raise UsageError("--track wandb needs wandb: pip install 'latentcli[wandb]'.")
        self._run: Any = None

    def write(self, event: Event) -> None:
        """Begins the run, logs figures, or ends it; whatever the library raises."""
        if event["event"] == START:
            self._run = self._begin(event)
        elif self._run is not None and event["event"] == PROGRESS:
            self._run.log(figures(event))
        elif self._run is not None and event["event"] == END:
            self._run.config.update(config(event), allow_val_change=True)
            if event["done"] is not None:
                self._run.log(figures(event))
            self._run.summary["exit_code"] = event["exit_code"]
            self._run.finish(exit_code=event["exit_code"])

    def _begin(self, event: Event) -> Any:
        # Standard output may be a tar stream, standard error is ours, and a command line may hold
        # secrets.
        settings = self._wandb.Settings(console="off", silent=True, **PRIVATE)
        return self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            job_type=event["verb"],
            config=config(event),
            settings=settings,
        )


def config(event: Event) -> dict[str, Any]:
    """What a run is known by."""
    return {name: event[name] for name in CONFIG if event.get(name) is not None}


def figures(event: Event) -> dict[str, float]:
    """The numbers of an event, those of a stage as stage/<stage>/<figure>."""
    found = {name: event[name] for name in FIGURES if event.get(name) is not None}
    for stage, told in event.get("stages", {}).items():
        found |= {f"stage/{stage}/{name}": value for name, value in told.items()}
    return found
