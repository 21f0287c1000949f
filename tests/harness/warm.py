"""Runs command lines in processes that have torch imported already: a start takes no time.

For tests whose subject is what a command does, and what a kill of it leaves. What a new interpreter
does at its start and at its end is not in it, so tests of those begin processes as a shell does.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess

SERVER = get_context("forkserver")
"""Makes processes from one that does nothing but hold imported modules."""
MODULES = ["latentcli.jobs.decode.job", "latentcli.jobs.encode.job"]
STREAMS = ("stdin", "stdout", "stderr")


def warm_server() -> None:
    """Starts the server, unless it runs.

    Its processes begin with no signal blocked. A job blocks them while it starts its workers, and a
    server that was started there would leave all later processes deaf.
    """
    SERVER.set_forkserver_preload(MODULES)
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def run_warm(
    words: Sequence[str], variables: Mapping[str, str], folder: Path | str | None = None
) -> CompletedProcess[str]:
    """A `latentcli` command in a process of its own, with its outcome and nothing on its stdin."""
    with tempfile.TemporaryDirectory() as home:
        process = start_warm(words, variables, home, folder)
        process.join()
        _, out, err = (Path(home, name).read_text() for name in STREAMS)
    return CompletedProcess(words, process.exitcode or 0, out, err)


def start_warm(
    words: Sequence[str],
    variables: Mapping[str, str],
    home: Path | str,
    folder: Path | str | None = None,
) -> BaseProcess:
    """A `latentcli` command that runs in a process of its own; its streams are files in `home`."""
    warm_server()
    for name in STREAMS:
        Path(home, name).touch()
    given = (list(words), dict(variables), str(folder or Path.cwd()), str(home))
    process = SERVER.Process(target=_run, args=given)
    process.start()
    return process


def _run(words: list[str], variables: dict[str, str], folder: str, home: str) -> None:
    import torch

    from latentcli.cli.app import main

    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for number, name in enumerate(STREAMS):
        file = os.open(Path(home, name), os.O_RDWR)
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    code = main(words)
    sys.stdout.flush()
    os._exit(code)
