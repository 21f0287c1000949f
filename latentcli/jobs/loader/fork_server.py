"""Forks processes, within milliseconds, from a server process that has loaded torch and waits.

An interpreter that loads torch takes more than a second of processor time, and memory that forked
processes share. The server is itself a fork of a command that has just loaded its code, or, where
the process may have threads, a new interpreter. It does what is asked of it one after the other,
and ends with the process that it serves, however that ends: so do the processes that it forked.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.util import _args_from_interpreter_flags  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

from latentcli.jobs.loader.fork_order import End, Start, Target, folder
from latentcli.jobs.runtime.frames import message_of, receive_message, send_all, wire_pair
from latentcli.jobs.runtime.machine import end_with_parent
from latentcli.jobs.runtime.open_files import lead_nowhere
from latentcli.jobs.runtime.signals import held_back

WORKER = "latentcli.jobs.loader.worker"
"""The module that a server needs to have loaded."""
GRACE = 2.0
"""Seconds that a killed process gets to end."""
LOOK = 0.002
"""Seconds between two looks whether it has."""
START_LIMIT, END_LIMIT = 600.0, 60.0
"""Seconds that a server gets for its answer. It may have to load torch before its first one."""
PATIENCE = 1.0
"""Seconds between two looks at whether that was long enough."""
COMMAND = """
import sys
sys.path[:] = {path!r}
from latentcli.jobs.loader.fork_server import load_and_serve
load_and_serve({descriptor}, {parent})
"""

NAME = "worker"
"""What lists of processes call those that were forked."""


@dataclass(slots=True, eq=False)
class Child:
    """A process that the server forked."""

    pid: int
    server: Server
    ended: bool = False
    code: int | None = None
    """Its exit code, less than 0 for a signal, once it has ended and where that is known."""

    def kill(self) -> None:
        """Kills it, if it lives."""
        if not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int | None:
        """Kills it if it lives, and waits; its exit code, or None where it does not end."""
        if not self.ended:
            self.code, self.ended = self.server.end(self.pid), True
        return self.code


@dataclass(slots=True, eq=False)
class Server:
    """The server of a process, from this side."""

    wire: socket.socket
    pid: int
    owner: int
    """The process that it serves: one that this process forked would ask over the same wire."""
    children: list[Child] = field(default_factory=list)
    """Those that have not ended."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def start(self, target: Target, theirs: socket.socket) -> Child:
        """A process that runs a function, with the variables and the folder of this one.

        ConnectionError or EOFError where the server has ended, OSError where the system refuses.
        """
        with self._lock:
            answer = self._asked(Start.here(target), START_LIMIT, theirs.fileno())
            if isinstance(answer, OSError):
                raise answer
            child = Child(answer, self)
            self.children.append(child)
        return child

    def _asked(self, order: Start | End, limit: float, *descriptors: int) -> Any:
        """The answer to an order; nothing is asked again where it did not come.

        TimeoutError after so many seconds without one.
        """
        if self.wire.fileno() < 0:
            raise EOFError
        try:
            send_all(self.wire, [message_of(order)])
            if descriptors:
                socket.send_fds(self.wire, [b"\0"], descriptors)
            wait_for_answer(self.wire, limit)
            return receive_message(self.wire)
        except BaseException:
            # An answer that comes later would be taken for that of the next order.
            self.wire.close()
            raise

    def stop(self) -> None:
        """Kills it, and so all that it forked; the system then counts their time as this one's.

        A process that its owner has forked lets it live.
        """
        if self.owner != os.getpid():
            return
        with self._stopping:
            # Once its end was waited for, another process may have its number.
            stopped, self._stopped = self._stopped, True
            with suppress(ProcessLookupError, ChildProcessError):
                if not stopped:
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)

    def end(self, pid: int) -> int | None:
        """As `Child.end`."""
        with self._lock:
            self.children = [child for child in self.children if child.pid != pid]
            try:
                code: int | None = self._asked(End(pid), END_LIMIT)
            except (OSError, EOFError):
                self.stop()  # it may be there and do nothing
                return killed(pid)
        return code


_servers: list[Server] = []
"""The one that runs, or none."""
_starting = threading.Lock()


def _new_lock() -> None:
    """Gives the child of a fork a lock that no thread of its parent holds."""
    global _starting
    _starting = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


def children() -> list[int]:
    """The processes that were started here and have not been ended."""
    return [child.pid for server in _known() for child in server.children]


def begin() -> Server:
    """The server of this process, which is started where there is none; OSError where it cannot be.

    It never sees the signals that end a job, nor do the processes that it makes.
    """
    with _starting:
        return (_known() or [_keep(_interpreter())])[0]


def begin_here() -> None:
    """Starts the server as a fork of this process, where that is sound.

    For a command that has loaded what a job needs and has begun nothing: it has no threads yet.
    """
    with _starting:
        others = (
            thread for thread in threading.enumerate() if thread is not threading.main_thread()
        )
        # A timer waits, and holds nothing.
        alone = all(isinstance(thread, threading.Timer) for thread in others)
        if not _known() and alone and "torch" in sys.modules:
            with suppress(OSError):  # whoever needs one will see
                _keep(_fork())


def start(target: Target, theirs: socket.socket) -> Child:
    """A process of the server; a server that has ended is replaced. OSError as `Server.start`."""
    for _ in range(2):
        server = begin()
        try:
            return server.start(target, theirs)
        except (ConnectionError, EOFError):
            with _starting:
                if server in _servers:
                    _servers.remove(server)
            atexit.unregister(server.stop)
            server.stop()
    raise OSError(errno.ECHILD, "the process that starts them ends at once")


def wait_for_answer(wire: socket.socket, limit: float) -> None:
    """Waits until something comes, or the other end goes; TimeoutError after so many seconds.

    The seconds in which this process was stopped are not counted.
    """
    poll = select.poll()
    poll.register(wire, select.POLLIN)
    waited = 0.0
    while not poll.poll(1000 * PATIENCE):
        waited += PATIENCE
        if waited >= limit:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer in {limit:g} s")


def killed(pid: int) -> int | None:
    """Kills a process whose server has ended; as of `Child.end`, once it is gone."""
    until = time.monotonic() + GRACE
    while time.monotonic() < until:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            return -signal.SIGKILL
        # The first process of a container gets those whose parent has ended.
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        with suppress(OSError):  # without a list of processes, it is killed until it is gone
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":  # it has ended, and nobody has asked for its exit code yet
                return -signal.SIGKILL
        time.sleep(LOOK)
    return None


def _known() -> list[Server]:
    if any(server.owner != os.getpid() for server in _servers):
        _servers.clear()
    return _servers


def _keep(server: Server) -> Server:
    _servers.append(server)
    atexit.register(server.stop)
    return server


def _fork() -> Server:
    ours, theirs = wire_pair()
    parent = os.getpid()
    import_module(WORKER)
    with held_back(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that libraries have
        pid = os.fork()
        if pid == 0:
            try:
                end_with_parent(parent)
                lead_nowhere(theirs.fileno())
                serve(theirs)
            finally:
                os._exit(1)
    theirs.close()
    return Server(ours, pid, parent)


def _interpreter() -> Server:
    ours, theirs = wire_pair()
    path = [entry for entry in sys.path if isinstance(entry, str)]
    code = COMMAND.format(path=path, descriptor=theirs.fileno(), parent=os.getpid())
    # The system ends the server with the thread that started it, so that one never ends.
    found: list[subprocess.Popen[bytes] | OSError] = []
    started = threading.Event()

    def keep() -> None:
        try:
            with held_back():
                if not sys.executable:
                    reason = "this Python does not know where its interpreter is"
                    raise OSError(errno.ENOENT, reason)
                words = [sys.executable, *_args_from_interpreter_flags(), "-c", code]
                # torch does not load in a folder that is gone.
                where, kept = None if folder() else "/", [theirs.fileno()]
                found.append(
                    subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=kept, cwd=where)
                )
        except OSError as error:
            found.append(error)
        finally:
            started.set()
        threading.Event().wait()

    try:
        threading.Thread(target=keep, name="fork server", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    started.wait()
    theirs.close()
    (process,) = found
    if isinstance(process, OSError):
        raise process
    return Server(ours, process.pid, os.getpid())


def load_and_serve(descriptor: int, parent: int) -> None:
    """All that an interpreter does that was started to be a server."""
    end_with_parent(parent)
    lead_nowhere(descriptor)
    import_module(WORKER)
    serve(socket.socket(fileno=descriptor))


def serve(wire: socket.socket) -> None:
    """Forks and ends processes as it is asked to; never returns."""
    # What is there by now stays: no collection in a process looks at it, and so copies its pages.
    gc.freeze()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    name("fork server")
    while True:
        try:
            order = receive_message(wire)
            answer = _forked(wire, order) if isinstance(order, Start) else _ended(order.pid)
            send_all(wire, [message_of(answer)])
        except (EOFError, OSError):
            os._exit(0)  # there is nobody left to serve


def name(text: str) -> None:
    """Names this process in the lists of the system, up to 15 characters of ASCII."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(text)


def _forked(wire: socket.socket, order: Start) -> int | OSError:
    _, descriptors, _, _ = socket.recv_fds(wire, 1, 1)
    server = os.getpid()
    if not descriptors:
        return OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    try:
        pid = os.fork()
    except OSError as error:
        pid, failure = -1, error
    if pid == 0:
        try:
            wire.close()
            theirs = socket.socket(fileno=descriptors[0])  # open until the exit code is settled
            _run(order, theirs, server)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(1)
    os.close(descriptors[0])
    return pid if pid > 0 else failure


def _run(order: Start, wire: socket.socket, server: int) -> None:
    end_with_parent(server)
    name(NAME)
    order.settle()
    order.target(wire)
    os._exit(0)


def _ended(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + GRACE
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(LOOK)
    return None
