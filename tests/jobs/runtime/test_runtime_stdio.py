"""Standard input and output: waiting that ends, data alone on stdout, and ends that are gone."""

from __future__ import annotations

import ctypes
import os
import select
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tarjobkit import standard_streams

from latentcli.core.errors import Interrupted, LatentCliError, UsageError
from latentcli.jobs.runtime.stdio import (
    Incoming,
    Stdout,
    go_on,
    open_stdin,
    open_stdout,
    standard_ends,
)


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for handle in ends:
        with suppress(OSError):
            os.close(handle)


def refusal(seconds):
    """A check that raises after so many seconds."""
    until = time.monotonic() + seconds

    def check():
        if time.monotonic() > until:
            raise Interrupted("enough")

    return check


def test_a_reading_gives_what_is_there(pipe):
    os.write(pipe[1], b"some")
    stream = Incoming(pipe[0])
    assert stream.read(100) == b"some"
    os.write(pipe[1], b"more")
    assert [stream.read(3), stream.read(3)] == [b"mor", b"e"]
    os.close(pipe[1])
    assert [stream.read(3), stream.read(3)] == [b"", b""]


def test_a_reading_of_a_silent_pipe_ends_when_the_check_raises(pipe):
    with pytest.raises(Interrupted):
        Incoming(pipe[0], refusal(0.3)).read(10)


def test_waiting_for_a_silent_pipe_costs_no_processor_time(pipe):
    """In a second it looks a few times, and not as often as it can."""
    looks, refuse = [], refusal(1.0)
    with pytest.raises(Interrupted):
        Incoming(pipe[0], lambda: looks.append(refuse())).read(10)
    assert len(looks) < 50


def test_a_pipe_in_non_blocking_mode_is_read_all_the_same(pipe):
    os.set_blocking(pipe[0], False)
    threading.Timer(0.2, os.write, (pipe[1], b"late")).start()
    assert Incoming(pipe[0]).read(10) == b"late"


def test_all_bytes_arrive_in_order(pipe):
    data = os.urandom(300_000)
    found = bytearray()

    def read():
        while len(found) < len(data):
            found.extend(os.read(pipe[0], 70_000))

    reader = threading.Thread(target=read)
    reader.start()
    stdout = Stdout(pipe[1])
    stdout.write([data[:10], data[10:200_000], memoryview(data)[200_000:]])
    reader.join()
    assert bytes(found) == data
    assert stdout.bytes == len(data)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_writing_that_nobody_reads_ends_when_the_check_raises(pipe, blocking):
    os.set_blocking(pipe[1], blocking)
    stdout = Stdout(pipe[1], refusal(0.3))
    with pytest.raises(Interrupted):
        stdout.write([bytes(5), bytes(10**6)])
    assert stdout.bytes >= 2**12


def test_a_reader_that_is_gone_is_one_sentence(pipe):
    stdout = Stdout(pipe[1])
    stdout.write([bytes(7)])
    stdout.check()
    os.close(pipe[0])
    with pytest.raises(LatentCliError, match="closed it after 7 bytes; the job stopped there"):
        stdout.write([bytes(7)])
    with pytest.raises(LatentCliError, match="closed it after 7 bytes"):
        stdout.check()


def test_a_full_disk_is_one_sentence():
    with Path("/dev/full").open("wb", buffering=0) as full:
        stdout = Stdout(full.fileno())
        with pytest.raises(LatentCliError, match="cannot be written: No space left on device"):
            stdout.write([bytes(10)])


def test_nothing_but_the_data_is_on_stdout(tmp_path):
    libc = ctypes.CDLL(None)
    with standard_streams(tmp_path) as ends:
        libc.printf(b"before\n")
        with open_stdout() as stdout:
            print("from Python")
            libc.printf(b"from C\n")
            os.write(1, b"from below\n")
            stdout.write([b"data"])
            print("again")
        print("after")
        sys.stdout.flush()
    assert ends.output == b"before\ndataafter\n"


def test_ends_that_cannot_be_used_are_refused_at_once(monkeypatch):
    opened = os.openpty()
    with os.fdopen(opened[1]) as terminal, os.fdopen(opened[0]):
        monkeypatch.setattr(sys, "stdin", terminal)
        with (
            pytest.raises(UsageError, match="is a terminal here; try cat"),
            standard_ends(True, False, go_on),
        ):
            pass
        own = os.dup(1)
        os.dup2(terminal.fileno(), 1)
        try:
            with (
                pytest.raises(UsageError, match="which is a terminal here; redirect it"),
                standard_ends(False, True, go_on),
            ):
                pass
        finally:
            os.dup2(own, 1)
            os.close(own)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="Standard input is closed"), open_stdin():
        pass
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UsageError, match="Standard output is closed"), open_stdout():
        pass


def test_a_pipe_takes_as_much_as_is_written_without_waiting(pipe):
    """What `Stdout` relies on: an empty pipe takes its whole size, one with room PIPE_BUF."""
    os.set_blocking(pipe[1], False)
    stdout = Stdout(pipe[1])
    assert os.write(pipe[1], bytes(stdout._room())) == 2**16
    os.read(pipe[0], select.PIPE_BUF)
    assert stdout._room() == select.PIPE_BUF
    assert os.write(pipe[1], bytes(select.PIPE_BUF)) == select.PIPE_BUF
