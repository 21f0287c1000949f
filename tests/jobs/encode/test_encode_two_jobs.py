"""Two jobs on one store at once: the second is told who holds it, the first does not notice."""

from __future__ import annotations

import signal
import socket
import subprocess

import pytest
from harness import s3
from harness.held_job import DATA, job_that_waits, words_for
from jobkit import toy_pictures, tree

from latentcli.cli.app import main
from latentcli.core.errors import StoreError
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.storage.paths import path_of


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
