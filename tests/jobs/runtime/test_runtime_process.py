"""Streams of a process that never fail, or fail once; see tests/cli/test_cli_streams.py too."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from latentcli.core.errors import LatentCliError
from latentcli.jobs.runtime.process import Data, Talk, loading


@pytest.fixture
def full():
    """A descriptor whose disk has no room."""
    with Path("/dev/full").open("wb", buffering=0) as file:
        yield file.fileno()


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for handle in ends:
        os.close(handle)


def test_talk_that_cannot_be_written_is_dropped(full):
    stream = io.TextIOWrapper(io.BufferedWriter(Talk(full)), write_through=True)
    for _ in range(3):
        assert stream.write("anybody?\n") == 9
        stream.flush()
    assert Talk(10**6).write(b"no such descriptor") == 18
    assert not Talk(full).isatty() and Talk(full).fileno() == full


def test_talk_is_written_as_it_is(pipe):
    stream = io.TextIOWrapper(io.BufferedWriter(Talk(pipe[1])), encoding="utf-8")
    stream.write("é\n")
    stream.flush()
    assert os.read(pipe[0], 10) == "é\n".encode()


def test_talk_waits_for_a_reader_that_is_slow(pipe):
    """A pipe in non-blocking mode is full before all is in it."""
    os.set_blocking(pipe[1], False)
    data, found = os.urandom(300_000), bytearray()

    def read() -> None:
        while len(found) < len(data):
            found.extend(os.read(pipe[0], 2**16))

    reader = threading.Thread(target=read)
    writer = threading.Thread(target=Talk(pipe[1]).write, args=(data,))
    writer.start()
    reader.start()
    writer.join()
    reader.join()
    assert found == data


def test_data_that_cannot_be_written_is_an_error_once(full):
    stream = Data(full)
    with pytest.raises(LatentCliError, match="cannot be written: No space left on device"):
        stream.write(b"data")
    assert stream.write(b"data") == 4


def test_a_reader_that_has_left_wants_no_more():
    ends = os.pipe()
    os.close(ends[0])
    assert Data(ends[1]).write(b"data") == 4
    os.close(ends[1])


COMMAND = """
import gc, sys
from latentcli.cli.start import start
looks = []
gc.callbacks.append(lambda phase, info: looks.append(info) if phase == "start" else None)
sys.argv[:] = ["latentcli", "inspect", "."]
code = start()
assert "torch" in sys.modules and gc.isenabled()
print(code, gc.get_freeze_count(), len(looks))
"""


def test_a_command_looks_for_no_garbage_in_what_it_loads(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    code, kept, looks = map(int, done.stdout.split())
    assert code == 1 and kept > 100_000  # torch alone is 300,000 objects
    assert looks < 200  # some 480 otherwise


def test_a_process_that_has_torch_is_left_as_it_is() -> None:
    import torch  # noqa: F401

    before = gc.isenabled(), gc.get_freeze_count()
    with loading():
        assert gc.isenabled() == before[0]
    assert (gc.isenabled(), gc.get_freeze_count()) == before


def test_garbage_is_looked_for_again_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    with pytest.raises(ImportError), loading():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
