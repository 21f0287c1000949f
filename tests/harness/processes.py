"""Starts jobs, and finds the processes of theirs: however they were started, they bear a mark."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from latentcli.jobs.loader.fork_server import NAME

MARK = "KILL_TEST"
"""The variable that all processes of a job inherit; its value is the number of this process."""
ORPHAN_SECONDS = 20.0
"""Loader processes look for their parent every five seconds."""
LINGERING = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own processes, which end a minute after a raylet that was killed."""


def start(
    command: Sequence[str], store: Path | str, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Runs a job in a session of its own, so that its loader processes can be told."""
    return subprocess.Popen(
        [*command, "--output", str(store)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **(variables or {}), MARK: str(os.getpid())},
    )


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], pause: float = 0.001
) -> bool:
    """Waits until the condition holds (true) or the process has ended (false)."""
    while not condition():
        if process.poll() is not None:
            return condition()
        time.sleep(pause)
    return True


def in_session(leader: int) -> list[int]:
    """Processes that were started by `leader`, itself left out."""
    return [pid for pid in _pids() if pid != leader and _session(pid) == leader]


def workers(leader: int) -> list[int]:
    """Those of them that load or export: their fork server has named them."""

    def named(pid: int) -> bool:
        with suppress(OSError):
            return Path(f"/proc/{pid}/comm").read_text().strip() == NAME
        return False

    return [pid for pid in in_session(leader) if named(pid)]


def gone(leader: int, seconds: float = ORPHAN_SECONDS) -> bool:
    """Whether all processes of a killed leader end within some seconds."""
    return _soon(lambda: not in_session(leader), seconds)


def marked(passed_over: Sequence[str] = LINGERING) -> dict[int, list[str]]:
    """The living processes of all jobs that this process started, and their command lines."""
    mark = f"{MARK}={os.getpid()}".encode()
    found = {}
    for pid in _pids():
        with suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if mark in environment and _session(pid) != -1:
                found[pid] = words_of(pid)
    return {pid: words for pid, words in found.items() if words[0] not in passed_over}


def all_gone(seconds: float = ORPHAN_SECONDS, passed_over: Sequence[str] = LINGERING) -> bool:
    """Whether all marked processes end within some seconds."""
    return _soon(lambda: not marked(passed_over), seconds)


def living() -> str:
    """The marked processes in words."""
    told = [f"{pid} ({' '.join(words)[:90].strip()})" for pid, words in marked(()).items()]
    return ", ".join(told) or "nobody any more"


def strike(pids: Iterable[int]) -> None:
    """SIGKILL."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def words_of(pid: int) -> list[str]:
    """A process's command line."""
    text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return text.rstrip("\0 ").split("\0")


def variable(pid: int, name: str) -> str | None:
    """A variable that a process was started with."""
    with suppress(OSError):
        for text in Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0"):
            if text.startswith(f"{name}="):
                return text.partition("=")[2]
    return None


def _soon(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            return False
        time.sleep(0.05)
    return True


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def _session(pid: int) -> int:
    """A living process's session; -1 where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] == "Z" else int(fields[3])
