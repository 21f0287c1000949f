"""Runs a command once per device where --devices asks for it."""

from __future__ import annotations

import os

import typer

from latentcli.cli.output import Output
from latentcli.jobs.cluster.environment import is_launched
from latentcli.jobs.runtime.process import loading


def run_on_devices(out: Output, devices: str | None, device: str) -> None:
    """Ends this process with the exit code of the job's processes; returns where it is to run here.

    That is without --devices, and in a process that --devices, torchrun or srun started.
    """
    if devices is None or is_launched(os.environ):
        return
    with out.reporter():
        with loading():
            from latentcli.jobs.cluster.launch import launch
            from latentcli.jobs.inference.accelerator import devices_to_share

        gpus, variable = devices_to_share(device)
    raise typer.Exit(launch(out.words, devices, gpus, variable, os.environ))
