"""Processes that hang, die, or are left alone cost what they must and nothing more."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from harness.processes import gone, in_session
from trapkit import Bomb, intake, pictures, processes

from latentcli.core.errors import Interrupted, LatentCliError, StoreError
from latentcli.core.types import InputRow, Row
from latentcli.jobs.loader import fork_server, pool, worker, worker_handle
from latentcli.jobs.loader.loader import open_chunks
from latentcli.jobs.loader.pixel_ring import RingSize, open_ring
from latentcli.jobs.loader.prepare import Intake, RawSample, Task, unit_tasks
from latentcli.jobs.loader.supervisor import Deaths
from latentcli.jobs.runtime.background_thread import nothing
from latentcli.jobs.runtime.frames import message_of, send_all


@pytest.fixture
def paths(tmp_path):
    return pictures(tmp_path, 30)


def all_tasks(source):
    return unit_tasks(source, range(source.inputs.units))


def taken(source, count, **options):
    """All rows by key, and the chunks."""
    with open_chunks(source, all_tasks(source), count, **options) as chunks:
        found = list(chunks)
    return {row.key: (row, pixels) for chunk in found for row, pixels in chunk.pictures()}


@pytest.mark.parametrize("told", [True, False])
def test_a_worker_whose_parent_went_while_it_started_ends_in_silence(tmp_path, paths, capfd, told):
    ours, theirs = socket.socketpair()
    if told:
        ours.sendall(message_of((intake(tmp_path, paths, size=(16, 16)), None)))
    with ours, theirs:
        orphan = fork_server.start(worker.run_worker, theirs)
    until(lambda: status_of(orphan.pid) == "Z")
    assert orphan.end() == 0
    assert capfd.readouterr().err == ""


def status_of(pid):
    """The letter that the system has for what a process does; Z has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_input_that_hangs_or_ends_its_process_costs_itself_only(tmp_path, paths):
    traps = {3: "sleep", 11: "hold", 12: "crash", 29: "exit"}
    sound = taken(intake(tmp_path, paths, size=(16, 16)), 0)
    start = time.perf_counter()
    found = taken(intake(tmp_path, paths, traps, size=(16, 16)), 2, time_limit=2.5)
    assert time.perf_counter() - start < 120
    assert list(found) == list(sound)
    reasons = {key: (row.stage, row.error) for key, (row, _) in found.items() if row.status != "ok"}
    assert reasons == {
        "003": ("decode_image", "took longer than 2.5 s (--time-limit)"),
        "011": ("decode_image", "took longer than 2.5 s (--time-limit)"),
        "012": ("decode_image", "the process that decoded it died (signal 11)"),
        "029": ("decode_image", "the process that decoded it died (exit code 3)"),
    }
    for key, (row, pixels) in found.items():
        if key in reasons:
            assert pixels is None and row.source == sound[key][0].source
        else:
            assert row == sound[key][0] and torch.equal(pixels, sound[key][1])


def test_a_sample_of_a_tar_can_hang_too(tmp_path, paths):
    source = intake(tmp_path, paths[:4], {1: "sleep"})
    raw = tuple(RawSample(Row(p.stem, f"t.tar::{p.name}", "ok"), p.read_bytes()) for p in paths[:4])
    with open_chunks(source, [Task(0, 0, 4, raw, True)], 1, time_limit=2) as chunks:
        (chunk,) = chunks
    assert [row.status for row in chunk.rows] == ["ok", "failed", "ok", "ok"]
    assert chunk.rows[1].source == "t.tar::001.png" and chunk.task.samples is raw
    assert "read" not in chunk.seconds and chunk.seconds["decode_image"] > 0


def test_one_death_costs_nothing(tmp_path, paths):
    sound = taken(intake(tmp_path, paths), 0)
    found = taken(intake(tmp_path, paths, {7: "crash"}, once=tmp_path / "sprung"), 1)
    assert (tmp_path / "sprung").exists()
    assert {key: row for key, (row, _) in found.items()} == {k: r for k, (r, _) in sound.items()}


def test_processes_that_die_again_and_again_end_the_job(tmp_path, paths):
    bomb = Intake(intake(tmp_path, paths).inputs, Bomb())
    tasks = [Task(0, 0, 3)]
    with (
        open_chunks(bomb, tasks, 1) as chunks,
        pytest.raises(LatentCliError, match=r"loader processes failed.*exit code 4.*same command"),
    ):
        next(chunks)


def asleep(wire):
    """A process that never starts."""
    time.sleep(1000)


def broken(wire):
    """One that has nothing to start with."""
    send_all(wire, [message_of(worker.Broken(StoreError("the list is gone")))])


def test_processes_that_hang_at_their_start_end_the_job(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(worker_handle, "run_worker", asleep)
    monkeypatch.setattr(worker_handle, "START_LIMIT", 0.3)
    source = intake(tmp_path, paths)
    with (
        open_chunks(source, all_tasks(source), 1, time_limit=0.3) as chunks,
        pytest.raises(LatentCliError, match=r"4 of them died, the last by signal 9"),
    ):
        next(chunks)


def test_an_error_at_the_start_ends_the_job_in_its_own_words(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(worker_handle, "run_worker", broken)
    source = intake(tmp_path, paths)
    with (
        open_chunks(source, all_tasks(source), 1) as chunks,
        pytest.raises(StoreError, match="the list is gone"),
    ):
        next(chunks)


def test_a_process_that_has_no_room_for_a_file_says_so(tmp_path, paths):
    """Its last descriptors are those of the loader's socket."""
    process = worker_handle.Process(intake(tmp_path, paths))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, limits[1]))
        with pytest.raises(OSError, match="Too many open files"):
            process.wait_for_start(30)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        process.end()


def test_a_job_that_may_open_few_files_says_so(tmp_path, paths):
    source, limits = intake(tmp_path, paths), resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    open_before = descriptors()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_one + 3, limits[1]))
        with pytest.raises(LatentCliError, match=r"Too many open files.*ulimit -n"):
            taken(source, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert descriptors() == open_before


def test_a_job_that_may_have_no_more_threads_says_so(tmp_path, paths, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LatentCliError, match=r"can't start new thread.*ulimit -u"):
        taken(intake(tmp_path, paths), 1)
    monkeypatch.setattr(fork_server, "_servers", [])
    with pytest.raises(OSError, match="can't start new thread"):
        fork_server.begin()


def test_a_server_that_ends_at_once_is_told_in_words(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(fork_server, "_servers", [])
    nothing = "{path!r}; {descriptor}; {parent}; raise SystemExit"
    monkeypatch.setattr(fork_server, "COMMAND", nothing)
    with pytest.raises(LatentCliError, match="the process that starts them ends at once"):
        taken(intake(tmp_path, paths), 1)


def test_deaths_are_weighed_by_what_was_done_in_between():
    deaths = Deaths(workers=1)
    for _ in range(20):
        deaths.count_unexplained("signal 9")
        deaths.done(500)
    for _ in range(20):
        deaths.count_unexplained("signal 11")
        deaths.blame_input("signal 11")
    for _ in range(2):
        deaths.blame_input("signal 9")
    with pytest.raises(LatentCliError, match="3 inputs in a row"):
        deaths.blame_input("signal 9")
    with pytest.raises(LatentCliError, match="4 of them died"):
        for _ in range(4):
            deaths.count_unexplained("signal 9")


def test_a_damaged_list_ends_the_job_in_its_own_words(tmp_path, paths):
    source = intake(tmp_path, paths)
    text = source.inputs.path.read_text()
    source.inputs.path.write_text(text.replace('"key"', '"kex"'))
    with (
        open_chunks(source, all_tasks(source), 1) as chunks,
        pytest.raises(StoreError, match="is damaged"),
    ):
        next(chunks)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def until(condition, seconds=30.0):
    """Waits for what must come to be."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def endless(seen):
    for number in itertools.count():
        seen.append(number)
        yield Task(0, number % 10, 1)


def test_little_is_read_ahead_and_the_end_is_quick(tmp_path, paths):
    source, seen = intake(tmp_path, paths, {5: "hold"}), []
    fork_server.begin()
    before = descriptors()
    with open_chunks(source, endless(seen), 2) as chunks:
        next(chunks)
        until(lambda: len(seen) > 10)
        time.sleep(0.2)  # more than are allowed would be ahead by now
        assert 10 < len(seen) <= 2 * pool.AHEAD + 2
        assert len(processes()) == 2
        began = time.perf_counter()
    assert time.perf_counter() - began < 60  # one process is held for as long as it lives
    assert not processes()
    names = [thread.name for thread in threading.enumerate()]
    assert "keeper" not in names and "dispatch" not in names
    assert descriptors() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_reads_are_ahead_and_bounded(tmp_path, monkeypatch):
    """Files of 10 bytes, room for 30: the reads that are not taken stay within it, in order."""
    monkeypatch.setattr(worker, "READ_BYTES", 30)
    begun, gate = [], threading.Event()

    def slow(row):
        begun.append(row.key)
        gate.wait()
        return RawSample(Row(row.key, row.source, "ok"), b"x")

    monkeypatch.setattr(worker, "read_sample", slow)
    reads = worker.ReadAhead()
    sizes = [10] * 5 + [90] + [10] * 3
    reads.add([InputRow(str(i), "x", 0, size) for i, size in enumerate(sizes)])
    until(lambda: len(begun) >= 3)
    time.sleep(0.1)  # a fourth would begin by now
    assert sorted(begun) == ["0", "1", "2"]
    gate.set()
    found = [reads.take() for _ in sizes]
    assert [sample.row.key for sample, _, _ in found] == [str(i) for i in range(9)]
    assert [last for _, _, last in found] == [False] * 8 + [True]
    busy = reads.seconds()
    assert busy >= 0.1 and reads.seconds() == 0.0


def test_reads_go_on_with_the_threads_that_there_may_be(monkeypatch):
    start, begun = threading.Thread.start, []

    def scarce(thread):
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(worker, "read_sample", lambda row: RawSample(Row(row.key, "x", "ok"), b""))
    monkeypatch.setattr(threading.Thread, "start", scarce)
    reads, rows = worker.ReadAhead(), [InputRow(str(i), "x", 0, 9) for i in range(20)]
    reads.add(rows)
    assert [reads.take()[0].row.key for _ in rows] == [row.key for row in rows]
    with pytest.raises(RuntimeError, match="can't start new thread"):
        worker.ReadAhead().add(rows)


@pytest.mark.parametrize(
    ("together", "ring_bytes"),
    [(10**6, None), (2 * 10**6, 10**6), (10**6, 10**7)],
    ids=["alone", "beside a ring", "beside a large ring"],
)
def test_few_bytes_are_ahead(tmp_path, paths, monkeypatch, together, ring_bytes):
    """A ring's are among them, and a large one leaves some: a million in each of these."""
    monkeypatch.setattr(pool, "AHEAD_BYTES", together)
    monkeypatch.setattr(pool, "BESIDE_RING", 10**6)
    source, seen = intake(tmp_path, paths), []

    def tasks():
        for number in range(20):
            seen.append(number)
            yield Task(0, number, 1, (RawSample(Row(f"{number}", "x", "ok"), bytes(400_000)),))

    size = RingSize(10, ring_bytes // 10, 10) if ring_bytes else None
    with (
        open_ring(size, lambda memory: nothing) as ring,
        open_chunks(source, tasks(), 1, ring=ring) as chunks,
    ):
        for number, chunk in enumerate(chunks, 1):
            time.sleep(0.01)
            assert chunk.rows[0].error.startswith("not a picture")
            assert len(seen) <= number + 3


def test_what_the_tasks_raise_comes_in_its_place(tmp_path, paths):
    source = intake(tmp_path, paths)

    def tasks():
        yield Task(0, 0, 3)
        yield Task(0, 3, 0)
        raise StoreError("the tar broke off")

    for count in (0, 1):
        with open_chunks(source, tasks(), count) as chunks:
            assert [len(next(chunks).rows), len(next(chunks).rows)] == [3, 0]
            with pytest.raises(StoreError, match="broke off"):
                next(chunks)


def test_who_waits_can_be_stopped(tmp_path, paths):
    source, never = intake(tmp_path, paths), threading.Event()

    def tasks():
        yield Task(0, 0, 1)
        never.wait()

    def stop():
        raise Interrupted("stopped")

    with open_chunks(source, tasks(), 1) as chunks:
        assert len(next(chunks).rows) == 1
    with pytest.raises(Interrupted), open_chunks(source, tasks(), 1, waiting=stop) as chunks:
        list(chunks)
    assert not processes()
    never.set()


SCRIPT = """
import os, signal, sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from latentcli.jobs.loader.prepare import unit_tasks
from latentcli.jobs.loader.loader import open_chunks
from trapkit import intake, pictures, processes

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    traps = {{9: "hold"}} if sys.argv[2] == "hang" else {{}}
    source = intake(folder, pictures(folder, 30), traps)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    with open_chunks(source, unit_tasks(source, range(3)), 2) as chunks:
        next(chunks)
        while len(before := processes()) < 2:  # one may have prepared it before the other began
            time.sleep(0.01)
        print("running", len(before), flush=True)
        if sys.argv[2] == "signals":
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                os.killpg(0, number)
        print(1 + sum(1 for _ in chunks), before == processes(), flush=True)
"""


def script(tmp_path, what):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(path=[str(Path(__file__).parent.parent)]))
    return subprocess.Popen(
        [sys.executable, str(path), str(tmp_path), what],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def test_no_process_outlives_a_killed_parent(tmp_path):
    process = script(tmp_path, "hang")
    assert process.stdout.readline() == "running 2\n"
    time.sleep(0.3)
    assert len(in_session(process.pid)) >= 2
    process.kill()
    process.wait()
    assert gone(process.pid, seconds=2)


def test_signals_are_the_parents_business(tmp_path):
    process = script(tmp_path, "signals")
    assert process.stdout.readline() == "running 2\n"
    assert process.stdout.read() == "30 True\n"
    assert process.wait() == 0
    assert gone(process.pid, seconds=2)
