"""Measures a command: its seconds, and the peak memory of it and of all processes it starts."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

LOOK = 0.05
"""Seconds between two looks at the processes."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a command took."""

    seconds: float
    cpu: float
    """Seconds of processor time, of all processes that were waited for."""
    main: float
    """MiB that the first process held at most."""
    worker: float
    """MiB that the largest of the others held at most."""
    tree: float
    """MiB: the largest sum, over the processes alive at one moment, of what each has held at most.

    It cannot be missed between two looks, and counts a page that processes share once for each.
    """
    load: float
    """The machine's load average at the end."""
    output: bytes
    """What it wrote to standard output; empty where a sink took that."""


def measure(
    command: Sequence[str],
    *,
    feed: Callable[[IO[bytes]], object] | None = None,
    sink: Callable[[IO[bytes]], object] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Used:
    """Runs a command to its end; RuntimeError with what it said where that is no good one.

    `feed` writes its standard input, and `sink` reads its standard output, in threads of their own.
    """
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(variables or {})},
    )
    output: list[bytes] = []
    errors: list[bytes] = []
    take = sink or (lambda pipe: output.append(pipe.read()))
    threads = [
        threading.Thread(target=use, args=(end, function), daemon=True)
        for end, function in (
            (process.stdin, feed),
            (process.stdout, take),
            (process.stderr, lambda pipe: errors.append(pipe.read())),
        )
        if end is not None and function is not None
    ]
    for thread in threads:
        thread.start()
    peaks = watch(process)
    seconds = time.perf_counter() - begin
    for thread in threads:
        thread.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{b''.join(errors).decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Used(seconds, cpu, *peaks, os.getloadavg()[0], b"".join(output))


def use(pipe: IO[bytes], function: Callable[[IO[bytes]], object]) -> None:
    """Gives a function one end of a pipe and closes it; that the other end is gone is no error."""
    with suppress(BrokenPipeError), pipe:
        function(pipe)


def watch(process: subprocess.Popen[Any]) -> tuple[float, float, float]:
    """(main, worker, tree) as in `Used`, of a process until its end."""
    main = worker = tree = 0.0
    while process.poll() is None:
        held = family(process.pid)
        main = max(main, held.get(process.pid, 0.0))
        worker = max(worker, *(mib for pid, mib in held.items() if pid != process.pid), 0.0)
        tree = max(tree, sum(held.values()))
        time.sleep(LOOK)
    return main, worker, tree


def family(leader: int) -> dict[int, float]:
    """MiB that a process and all that descend from it have held at most so far, by number.

    A process that is still a copy of its parent, and not started yet, is left out.
    """
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found = {leader: high_water(leader)}
    pending = [leader]
    while pending:
        parent = pending.pop()
        for pid in children.get(parent, ()):
            pending.append(pid)
            if words_of(pid) != words_of(parent):
                found[pid] = high_water(pid)
    return found


def parents() -> dict[int, int]:
    """The number of each process, and that of its parent."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal():
            with suppress(OSError):
                text = Path(f"/proc/{name}/stat").read_text()
                found[int(name)] = int(text.rpartition(")")[2].split()[1])
    return found


def words_of(pid: int) -> bytes:
    """A process's command line and its name, which may change; empty where it has ended."""
    try:
        return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "comm"))
    except OSError:
        return b""


def high_water(pid: int) -> float:
    """MiB that a process held at most so far; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process that is alive; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
