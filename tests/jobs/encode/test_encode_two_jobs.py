"""Two jobs on one store at once: the second is told who holds it, the first does not notice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import s3
from harness.fuzz_files import good_pictures
from harness.tars import tar
from jobkit import environment, toy_pictures, tree

from latentcli.cli.app import main
from latentcli.core.errors import StoreError
from latentcli.jobs.config import VerifyJob
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.storage.paths import path_of

DATA = tar((f"{n}.png", good_pictures()["rgb.png"]) for n in range(6))


def words_for(source: str, store: str, model: str) -> list[str]:
    return [
        *("encode", source, "--output", store, "--model", model, "--device", "cpu"),
        *("--allow-pipe", "--workers", "0", "--no-self-check", "--quiet"),
    ]


@dataclass
class Waiting:
    """A job in a process of its own that has its store, and waits for what a pipe will bring."""

    process: subprocess.Popen[str]
    words: list[str]
    pipe: int = -1

    def begins(self, pipe: Path) -> bool:
        """Whether its command reads from the pipe by now; then the pipe's other end is ours."""
        try:
            self.pipe = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """The end of what the pipe brings."""
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe = -1

    def finish(self) -> None:
        """Gives it its tar, and waits for its end."""
        os.set_blocking(self.pipe, True)
        with open(self.pipe, "wb", closefd=False) as file:
            file.write(DATA)
        self.close()
        _, errors = self.process.communicate(timeout=120)
        assert (self.process.returncode, errors) == (0, "")


@contextmanager
def job_that_waits(folder: Path, store: str, model: str) -> Iterator[Waiting]:
    """Such a job; it and its command are ended at the end of the block."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    words = words_for(f"pipe:cat {pipe}", store, model)
    own = {name: value for name, value in os.environ.items() if name == "LATENTCLI_LEASE_SECONDS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "latentcli", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | own,
    )
    job, end = Waiting(process, words), time.monotonic() + 120
    try:
        while not job.begins(pipe):
            assert process.poll() is None and time.monotonic() < end, "it does not begin"
            time.sleep(0.05)
        yield job
    finally:
        process.kill()
        job.close()
        process.communicate()


def refused(words: list[str], process: subprocess.Popen[str], capsys) -> None:
    """A second job is refused in one sentence, which says who is at work."""
    assert main(words) == 1
    told = capsys.readouterr()
    assert told.err.count("error:") == 1 and "Traceback" not in told.err and told.out == ""
    assert f"process {process.pid} on host {socket.gethostname()}" in told.err
    assert "latentcli encode" in told.err and "another job is writing to" in told.err


def test_on_a_folder(model, tmp_path, capsys):
    store = tmp_path / "store"
    with job_that_waits(tmp_path, str(store), model) as job:
        before, process, words = tree(store), job.process, job.words
        refused(words, process, capsys)
        with pytest.raises(StoreError, match=f"process {process.pid} on host"):
            run_verify(VerifyJob(store=str(store), samples=0, repair=True))
        other = words_for(str(toy_pictures(tmp_path / "pictures", 3)), str(store), model)
        refused(other, process, capsys)
        assert tree(store) == before
        process.send_signal(signal.SIGSTOP)
        refused(words, process, capsys)
        process.send_signal(signal.SIGCONT)
        job.finish()
    done = tree(store)
    assert not {"holder.json", "lease.json"} & done.keys()
    assert run_verify(VerifyJob(store=str(store), samples=0))["ok"]
    assert main(words) == 0, "the lock is free again, and nothing is left to do"
    assert tree(store) == done


def test_a_killed_job_holds_nothing(model, tmp_path):
    store = tmp_path / "store"
    with job_that_waits(tmp_path, str(store), model) as job:
        job.process.kill()
        job.process.wait()
        (tmp_path / "pipe").unlink()
        (tmp_path / "pipe").write_bytes(DATA)
        assert main(job.words) == 0
    assert run_verify(VerifyJob(store=str(store), samples=0))["ok"]


@s3.needs_s3
def test_on_s3(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LATENTCLI_LEASE_SECONDS", "1")
    with s3.s3_server() as server:
        store = f"{server.bucket()}/store"
        with job_that_waits(tmp_path, store, model) as job:
            refused(job.words, job.process, capsys)
            job.finish()
        names = {path.name for path, _ in path_of(store).find()}
        assert "manifest.json" in names and "lease.json" not in names
        assert run_verify(VerifyJob(store=store, samples=0))["ok"]
        assert main(job.words) == 0
