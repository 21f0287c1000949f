"""A store has one writer: a second one is told who that is, and a dead one is in nobody's way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from latentcli.core.errors import StoreError
from latentcli.shards.storage.paths import RemotePath, path_of
from latentcli.shards.store import lease
from latentcli.shards.store.holder import Holder, read_holder
from latentcli.shards.store.lock import StoreLock

pytest.importorskip("fsspec")

BEAT = 0.2
HOLD = """
import fcntl, sys
from pathlib import Path
from latentcli.shards.store.lock import StoreLock
def refuse(*_):
    raise OSError(9, "no locks here")
if sys.argv[2] == "lease":
    fcntl.flock = refuse
with StoreLock(Path(sys.argv[1])) as lock:
    print(lock.held, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("LATENTCLI_LEASE_SECONDS", str(BEAT))


@pytest.fixture
def no_locks(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EBADF, "no locks on folders")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture(params=["local", "remote"])
def leased(request, tmp_path):
    """A store that is held by a lease."""
    if request.param == "local":
        request.getfixturevalue("no_locks")
        return tmp_path / "store"
    return path_of(f"memory://{uuid.uuid4().hex}/store")


def hold(store, kind):
    """Another process that holds a store."""
    command = [sys.executable, "-c", HOLD, str(store), kind]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def end(process):
    process.stdin.close()
    process.stdout.close()
    process.wait()


def names(store):
    return sorted(path.name for path in store.iterdir()) if store.exists() else []


def claim(**changes):
    holder = replace(Holder.here(), **changes)
    return lease.Claim(**asdict(holder), token="other", beat=1, seconds=BEAT)


def test_a_second_job_is_told_who_holds_a_folder(tmp_path):
    other = hold(tmp_path, "flock")
    with pytest.raises(StoreError) as raised, StoreLock(tmp_path):
        pass
    host = os.uname().nodename
    assert str(raised.value) == (
        f"another job is writing to {tmp_path}: process {other.pid} on host {host} (python)."
        " Wait until it ends, or choose another output folder (-o)."
    )
    assert names(tmp_path) == ["holder.json"]
    end(other)
    assert names(tmp_path) == []


def test_the_holder_of_a_killed_job_is_forgotten(tmp_path):
    other = hold(tmp_path, "flock")
    other.kill()
    end(other)
    assert names(tmp_path) == ["holder.json"]
    with StoreLock(tmp_path) as lock:
        assert read_holder(tmp_path / "holder.json", Holder) == Holder.here()
        lock.check()
    assert names(tmp_path) == []


def test_a_folder_in_which_no_holder_can_be_written_can_be_held(tmp_path):
    (tmp_path / "holder.json").mkdir()
    with StoreLock(tmp_path) as lock:
        assert lock.held
        with pytest.raises(StoreError, match=r"is writing to \S+\. Wait"):
            StoreLock(tmp_path).__enter__()
    assert names(tmp_path) == ["holder.json"]


def test_a_lease_beats_and_goes_away(leased):
    with StoreLock(leased) as lock:
        assert lock.held
        beats = set()
        deadline = time.monotonic() + 10
        while len(beats) < 3 and time.monotonic() < deadline:
            document = json.loads((leased / "lease.json").read_bytes())
            beats.add(document["beat"])
            time.sleep(BEAT / 4)
            lock.check()
        assert len(beats) == 3
        assert (document["host"], document["pid"]) == (os.uname().nodename, os.getpid())
        with pytest.raises(StoreError, match=f"process {os.getpid()} on host"):
            StoreLock(leased).__enter__()
        lock.check()
    assert not lock.held
    time.sleep(2 * BEAT)
    assert names(leased) == []


def test_a_killed_holder_of_this_machine_is_replaced_at_once(tmp_path, no_locks, monkeypatch):
    other = hold(tmp_path, "lease")
    other.send_signal(signal.SIGKILL)
    end(other)
    assert names(tmp_path) == ["lease.json"]
    monkeypatch.setattr(lease, "WATCHED", 10**6)
    with StoreLock(tmp_path):
        assert read_holder(tmp_path / "lease.json", Holder) == Holder.here()
    assert names(tmp_path) == []


def test_a_live_holder_in_another_process_is_left_alone(tmp_path, no_locks):
    other = hold(tmp_path, "lease")
    with pytest.raises(StoreError, match=f"process {other.pid} on host"):
        StoreLock(tmp_path).__enter__()
    end(other)
    with StoreLock(tmp_path):
        pass


def test_a_stopped_holder_loses_its_lease_and_is_told(tmp_path, no_locks):
    other = hold(tmp_path, "lease")
    other.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    with StoreLock(tmp_path):
        assert 2.5 * BEAT < time.monotonic() - start < 60
        other.send_signal(signal.SIGCONT)
        time.sleep(3 * BEAT)
        # It must not have written its counter again.
        assert read_holder(tmp_path / "lease.json", Holder) == Holder.here()
        end(other)
        assert names(tmp_path) == ["lease.json"]
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "changes",
    [{"host": "elsewhere"}, {"machine": "another boot"}],
)
def test_a_silent_holder_elsewhere_is_watched_first(leased, changes):
    leased.mkdir(exist_ok=True)
    lease._write(leased / "lease.json", claim(pid=2**22 + 5, **changes))
    start = time.monotonic()
    with StoreLock(leased):
        assert time.monotonic() - start >= lease.WATCHED * BEAT
    assert names(leased) == []


def test_a_process_that_got_the_number_of_a_dead_one_is_not_the_holder():
    here = Holder.here()
    assert not here.is_dead()
    if here.started:
        assert replace(here, started=here.started - 1).is_dead()
    assert replace(here, pid=2**22 + 5).is_dead()
    assert not replace(here, pid=2**22 + 5, host="elsewhere").is_dead()


def test_a_lost_lease_is_noticed(leased):
    with StoreLock(leased) as lock:
        lock.check()
        lease._write(leased / "lease.json", claim(host="elsewhere", pid=77, command="latentcli x"))
        deadline = time.monotonic() + 30
        with pytest.raises(StoreError) as raised:
            while time.monotonic() < deadline:
                lock.check()
                time.sleep(BEAT / 4)
        assert "was taken over by another job: process 77 on host elsewhere (latentcli x)" in str(
            raised.value
        )
    assert json.loads((leased / "lease.json").read_bytes())["pid"] == 77


def test_a_job_that_was_stopped_looks_before_it_writes(leased):
    with StoreLock(leased) as lock:
        # As if the process had been stopped: no beat came in between.
        held = lock._lease
        with held._busy:
            lease._write(leased / "lease.json", claim())
            held._alive -= 100
        with pytest.raises(StoreError, match="was taken over"):
            lock.check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"])
def test_a_garbled_lease_is_no_lease(leased, content):
    leased.mkdir(exist_ok=True)
    (leased / "lease.json").write_bytes(content)
    with StoreLock(leased) as lock:
        assert lock.held
    assert names(leased) == []


def test_of_many_that_start_at_once_one_writes(leased, monkeypatch):
    # Slow enough for a busy machine: between reading and writing lies less than a quarter of it.
    monkeypatch.setenv("LATENTCLI_LEASE_SECONDS", "2")
    leased.mkdir(exist_ok=True)
    start, done = threading.Barrier(6), threading.Event()
    held, refused = [], []

    def run():
        lock = StoreLock(leased)
        start.wait()
        try:
            with lock:
                held.append(lock)
                done.wait(20)
        except StoreError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 15
    while len(held) + len(refused) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    done.set()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
    assert all("another job is writing to" in text for text in refused)
    assert names(leased) == []


def test_who_comes_a_moment_later_takes_nothing(leased):
    """Both have seen that nobody has the store; the first one keeps it all the same."""
    leased.mkdir(exist_ok=True)
    first = lease.Lease(leased)
    first.take()
    document = json.loads((leased / "lease.json").read_bytes())
    with pytest.raises(StoreError, match="another job is writing to"):
        lease.Lease(leased)._claim(new=True)
    assert json.loads((leased / "lease.json").read_bytes())["token"] == document["token"]
    first.check()
    first.release()
    assert names(leased) == []


def test_an_interrupt_while_it_is_taken_leaves_nothing(leased, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(lease.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        StoreLock(leased).__enter__()
    assert names(leased) == []


def test_a_clock_that_goes_back_does_not_matter(leased, monkeypatch):
    past = iter(range(10**9, 0, -100_000))
    monkeypatch.setattr(time, "time", lambda: next(past))
    with StoreLock(leased) as lock:
        time.sleep(2 * BEAT)
        lock.check()
        with pytest.raises(StoreError, match="another job"):
            StoreLock(leased).__enter__()


def test_a_store_cannot_be_a_file(tmp_path):
    remote = path_of(f"memory://{uuid.uuid4().hex}/store")
    assert isinstance(remote, RemotePath)
    remote.write_bytes(b"x")
    (tmp_path / "store").write_bytes(b"x")
    for store in (remote, Path(tmp_path / "store")):
        with pytest.raises(StoreError, match="is a file: a latent store is a folder"):
            StoreLock(store).__enter__()


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["/x/latentcli", "encode", "photos", "-o", "s"], "latentcli encode …"),
        (["/x/latentcli/__main__.py", "slurm"], "latentcli slurm"),
        (["-c", "secret"], "python"),
        ([], "python"),
    ],
)
def test_a_command_is_named_without_its_options(monkeypatch, arguments, command):
    monkeypatch.setattr(sys, "argv", arguments)
    assert Holder.here().command == command
