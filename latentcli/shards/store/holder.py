"""Describes the process that writes to a store, and reads how another describes itself."""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TypeVar

from latentcli.core.errors import StoreError
from latentcli.shards.storage.atomic_write import temporary_name
from latentcli.shards.storage.json_fields import from_object
from latentcli.shards.storage.paths import AnyPath, RemotePath

_ENDED = ("Z", "X")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that writes to a store."""

    host: str
    machine: str
    """Tells hosts of one name, and containers of one host, apart; empty where unknown."""
    pid: int
    started: int
    """Clock ticks from the boot of the machine to the start of the process; 0 where unknown."""
    command: str

    @classmethod
    def here(cls) -> Self:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _machine(), pid, _started(pid) or 0, _command())

    def is_here(self) -> bool:
        """Whether it is a process of this machine, of which all can be known."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    def is_dead(self) -> bool:
        """Whether it surely ended: only of a process of this machine can that be known."""
        if not self.is_here():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        # Another process may have the number by now.
        return bool(self.started) and _started(self.pid) != self.started


Kind = TypeVar("Kind", bound=Holder)


def refused(store: AnyPath, holder: Holder | None) -> StoreError:
    """The error of a second job; `holder` is None where it is not known."""
    who = "" if holder is None else f": process {holder.pid} on host {holder.host}"
    what = "" if holder is None else f" ({holder.command})"
    return StoreError(
        f"another job is writing to {store}{who}{what}. Wait until it ends, or choose another"
        " output folder (-o)."
    )


def read_holder(path: AnyPath, kind: type[Kind]) -> Kind | None:
    """Whom a file names; None where it is missing or garbled. OSError as reading."""
    try:
        return from_object(kind, json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def write_holder(path: AnyPath, holder: Holder, unique: str = "", *, new: bool = False) -> None:
    """Writes a small file at once, in the place of an old one; OSError where that is refused.

    It need not outlast a power failure. `unique` tells the writers of one process apart. A `new`
    file takes nobody's place: OSError where there is one, but some storages cannot tell.
    """
    data = json.dumps(asdict(holder), indent=2).encode() + b"\n"
    if isinstance(path, RemotePath):
        path.write_bytes(data, new=new)
        return
    temporary = path.with_name(temporary_name(f"{unique}{path.name}"))
    try:
        temporary.write_bytes(data)
        if new:
            path.hardlink_to(temporary)
        else:
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _command() -> str:
    """The program and its subcommand; the rest may hold secrets."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    if name in ("", "-c", "-m"):
        return "python"
    program = "latentcli" if name == "__main__.py" else name
    more = len(sys.argv) > 2
    return " ".join([program, *sys.argv[1:2], *(["…"] if more else [])])


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """As `Holder.started`; None where the process ended or nothing is known."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name of the program stands in parentheses and may hold anything.
    state, *numbers = text.rpartition(")")[2].split()
    return None if state in _ENDED else int(numbers[18])
