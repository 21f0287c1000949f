"""Forked processes are like those that a shell starts, and end with who asked for them."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness.processes import gone, in_session, workers

from latentcli.jobs.loader import fork_server
from latentcli.jobs.loader.fork_server import NAME
from latentcli.jobs.runtime.frames import message_of, receive_message, send_all
from latentcli.jobs.runtime.process import STOPPING

TESTS = Path(__file__).resolve().parents[2]


def tell(wire: socket.socket) -> None:
    """What a process is like."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    told = {
        "variable": os.environ.get("LATENTCLI_TOLD"),
        "folder": str(Path.cwd()),
        "name": Path("/proc/self/comm").read_text().strip(),
        "blocked": {number for number in STOPPING if number in blocked},
        "torch": "torch" in sys.modules,
        "files": {int(path.name) for path in Path("/proc/self/fd").iterdir()},
        "wire": wire.fileno(),
        "out": os.fstat(1) == os.fstat(2),
        "cores": os.sched_getaffinity(0),
        "umask": os.umask(0),
    }
    send_all(wire, [message_of(told)])


def leave(wire: socket.socket) -> None:
    os._exit(wire.recv(1)[0])


def hold(wire: socket.socket) -> None:
    """As a codec that keeps Python's lock."""
    wire.send(b"x")
    ctypes.PyDLL(None).sleep(1000)


def complain(wire: socket.socket) -> None:
    """As a library that says something."""
    for stream in (1, 2):
        os.write(stream, b"a message")
    os.read(0, 1)
    wire.send(b"x")


def fail(wire: socket.socket) -> None:
    raise RuntimeError("an error of the process")


def started(target):
    ours, theirs = socket.socketpair()
    with theirs:
        return ours, fork_server.start(target, theirs)


def test_a_process_is_as_one_of_its_own(tmp_path, monkeypatch):
    fork_server.begin()
    monkeypatch.setenv("LATENTCLI_TOLD", "later than the server")
    monkeypatch.chdir(tmp_path)
    cores, mask = os.sched_getaffinity(0), os.umask(0o027)
    try:
        os.sched_setaffinity(0, {max(cores)})
        wire, child = started(tell)
        told = receive_message(wire)
    finally:
        os.sched_setaffinity(0, cores)
        os.umask(mask)
    assert (told["cores"], told["umask"]) == ({max(cores)}, 0o027)
    assert (told["variable"], told["folder"]) == ("later than the server", str(tmp_path))
    assert told["name"] == NAME and told["torch"] and told["out"]
    assert told["blocked"] == set(STOPPING)
    # The streams, the wire, one to nowhere, and that in which the list is read.
    assert len(told["files"] - {0, 1, 2, told["wire"]}) <= 3
    assert child.end() in (0, -signal.SIGKILL)


@pytest.mark.parametrize("code", [0, 7])
def test_its_end_is_known(code):
    wire, child = started(leave)
    assert child.pid in fork_server.children()
    wire.send(bytes([code]))
    assert wire.recv(1) == b""
    assert child.end() == code
    assert child.pid not in fork_server.children()


def test_one_that_hangs_is_killed():
    wire, child = started(hold)
    assert wire.recv(1) == b"x"
    child.kill()
    assert wire.recv(1) == b""
    assert child.end() == -signal.SIGKILL == child.end()


def test_an_error_ends_it():
    wire, child = started(fail)
    assert wire.recv(1) == b""
    assert child.end() == 1


def test_a_server_that_was_killed_is_replaced():
    wire, child = started(hold)
    assert wire.recv(1) == b"x"
    os.kill(child.server.pid, signal.SIGKILL)
    assert wire.recv(1) == b"", "its processes end with it"
    assert child.end() == -signal.SIGKILL
    wire, other = started(leave)
    assert other.server is not child.server
    wire.send(b"\3")
    assert wire.recv(1) == b"" and other.end() == 3


def test_an_answer_that_did_not_come_is_not_taken_for_another(monkeypatch):
    """A signal's handler of the user's may raise between an order and its answer."""
    wire, child = started(hold)
    assert wire.recv(1) == b"x"

    def interrupted(wire):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fork_server, "receive_message", interrupted)
        started(leave)
    assert wire.recv(1) == b"", "the server that was asked ends, and all that it forked"
    assert child.end() == -signal.SIGKILL
    wire, other = started(leave)
    wire.send(b"\5")
    assert wire.recv(1) == b"" and other.end() == 5


def test_a_server_that_does_nothing_is_killed(monkeypatch):
    monkeypatch.setattr(fork_server, "PATIENCE", 0.05)
    monkeypatch.setattr(fork_server, "END_LIMIT", 0.2)
    wire, child = started(hold)
    assert wire.recv(1) == b"x"
    os.kill(child.server.pid, signal.SIGSTOP)
    assert child.end() == -signal.SIGKILL
    assert wire.recv(1) == b""
    wire, other = started(leave)
    wire.send(b"\6")
    assert wire.recv(1) == b"" and other.end() == 6


def test_no_order_is_waited_for_without_an_end(monkeypatch):
    monkeypatch.setattr(fork_server, "PATIENCE", 0.05)
    monkeypatch.setattr(fork_server, "START_LIMIT", 0.2)
    stopped = fork_server.begin()
    os.kill(stopped.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError, match=r"no answer in 0\.2 s"):
        started(leave)
    monkeypatch.undo()
    wire, child = started(leave)
    assert child.server is not stopped
    wire.send(b"\7")
    assert wire.recv(1) == b"" and child.end() == 7


def test_a_process_that_cannot_be_handed_its_socket_is_refused():
    """As where the server has as many files open as it may."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"\0")
        answer = fork_server._forked(theirs, fork_server.Start.here(leave))
    assert isinstance(answer, OSError) and answer.errno == errno.EMFILE


def test_a_server_is_killed_once(monkeypatch):
    """Later another process may have its number."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    wire, _ = socket.socketpair()
    server = fork_server.Server(wire, pid, os.getpid())
    server.stop()
    killed = []
    monkeypatch.setattr(os, "kill", lambda *given: killed.append(given))
    server.stop()
    assert not killed


def test_a_server_that_cannot_start_is_an_error_of_the_system(monkeypatch):
    monkeypatch.setattr(fork_server, "_servers", [])
    monkeypatch.setattr(
        fork_server, "COMMAND", "{path!r}; {descriptor}; {parent}; raise SystemExit"
    )
    with pytest.raises(OSError, match="ends at once"):
        started(leave)


def test_what_the_program_has_put_on_its_path_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(fork_server, "_servers", [])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    wire, child = started(leave)
    wire.send(b"\4")
    assert wire.recv(1) == b"" and child.end() == 4
    child.server.stop()


SCRIPT = """
import os, socket, sys, time
sys.path[:0] = {path!r}
{first}
from latentcli.jobs.loader import fork_server
from test_loader_fork_server import hold

if __name__ == "__main__":
    fork_server.begin_here()
    ours, theirs = socket.socketpair()
    with theirs:
        child = fork_server.start(hold, theirs)
    ours.recv(1)
    print(len(fork_server.children()), flush=True)
    {last}
"""


@pytest.mark.parametrize("first", ["import torch", "import threading"])
@pytest.mark.parametrize("last", ["sys.stdin.read()", "sys.exit(0)", "os._exit(0)"])
def test_all_end_with_their_owner(tmp_path, first, last):
    """A fork of the process itself, and an interpreter; killed, at its end, and in a hurry."""
    script = tmp_path / "script.py"
    path = [str(TESTS), str(Path(__file__).parent)]
    script.write_text(SCRIPT.format(path=path, first=first, last=last))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, script], stdin=pipe, stdout=pipe, start_new_session=True
    ) as owner:
        assert owner.stdout.readline() == b"1\n"
        if "stdin" in last:
            assert len(workers(owner.pid)) == 1 and len(in_session(owner.pid)) >= 2
            owner.kill()
        assert owner.stdout.read() == b"", "nobody holds its output"
        owner.wait()
        assert gone(owner.pid)


STREAMLESS = """
import os, socket, sys
sys.path[:0] = {path!r}
{first}
from latentcli.jobs.loader import fork_server
from test_loader_fork_server import complain, leave

if __name__ == "__main__":
    fork_server.begin_here()
    for target, last in ((complain, b"x"), (leave, b"")):
        ours, theirs = socket.socketpair()
        with theirs:
            child = fork_server.start(target, theirs)
        ours.send(b"\\3")
        assert ours.recv(1) == last
        child.end()
    os._exit(7)
"""


@pytest.mark.parametrize("first", ["import torch", "import threading"])
def test_a_program_without_streams(tmp_path, first):
    """As a service that has closed them: what a library says does not go to the server."""
    script = tmp_path / "script.py"
    path = [str(TESTS), str(Path(__file__).parent)]
    script.write_text(STREAMLESS.format(path=path, first=first))
    words = ["sh", "-c", 'exec "$0" "$1" <&- >&- 2>&-', sys.executable, str(script)]
    assert subprocess.run(words, start_new_session=True).returncode == 7


def test_a_process_with_threads_is_not_forked():
    """What they hold would be held for ever in the fork; here is at least that of the server."""
    code = (
        "import threading, torch; from latentcli.jobs.loader import fork_server as f;"
        "threading.Thread(target=threading.Event().wait, daemon=True).start();"
        "f.begin_here(); print(len(f._servers))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_a_fork_while_a_server_starts_can_start_its_own():
    with fork_server._starting:
        pid = os.fork()
        if pid == 0:
            os._exit(fork_server._starting.acquire(blocking=False))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_a_fork_of_the_owner_has_a_server_of_its_own():
    mine = fork_server.begin()
    pid = os.fork()
    if pid == 0:
        mine.stop()  # as at its end
        os._exit(fork_server._known() == [mine])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert fork_server.begin() is mine
    wire, child = started(leave)
    wire.send(b"\0")
    assert wire.recv(1) == b"" and child.end() == 0
