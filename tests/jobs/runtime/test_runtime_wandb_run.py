"""Runs of Weights & Biases: with the library itself offline, and with one that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from latentcli.core.errors import UsageError
from latentcli.jobs.runtime.broadcast import Broadcast
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.wandb_run import WandbRun, no_prompt

FACTS = {"verb": "encode", "store": "somewhere", "model": "toy", "rank": 0, "world": 1}
WHOLE_JOB = """
from test_runtime_wandb_run import whole_job
# A job so short ends before the library is loaded, and waits for it.
notes = [note for note in whole_job("encode") if "not taken the last events yet" not in note]
assert notes == []
"""
FAILING = """
class Settings:
    def __init__(self, **settings):
        self.settings = settings

class Run:
    def log(self, figures):
        raise ConnectionError("the service is away\\nand more")
    summary = {}
    class config:
        update = staticmethod(lambda *a, **k: None)
    def finish(self, exit_code):
        raise ConnectionError("the service is away")

def init(**words):
    if words["job_type"] == "decode":
        raise RuntimeError("no API key configured.")
    return Run()
"""


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another library of this name, which fails in one place or the other."""
    (tmp_path / "wandb.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    yield
    sys.modules.pop("wandb", None)


def whole_job(verb: str) -> list[str]:
    """A job of a few steps; what it told."""
    notes: list[str] = []
    broadcast = Broadcast([WandbRun()], FACTS | {"verb": verb}, notes.append, period=3600.0)
    broadcast.release()
    broadcast.start({"host": "here", "version": "1"})
    meter = Meter(verb, 3, broadcast.progress)
    meter.begin()
    meter.add("encode", 0.1, 3)
    meter.advance(3)
    broadcast.end(0)
    return notes


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_a_run_is_written_offline(tmp_path):
    variables = os.environ | {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WHOLE_JOB, "s3://user:secret@host/x"],
        env=variables,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    # Standard output may be a stream of data.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (run,) = folder.glob("*.wandb")
    data = run.read_bytes()
    assert all(word in data for word in (b"somewhere", b"stage/encode/busy", b"rate_whole"))
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"secret" not in everything, "a command line may hold secrets"


@pytest.mark.parametrize(
    ("verb", "reason"),
    [("encode", "the service is away"), ("decode", "no API key configured")],
)
def test_a_library_that_fails_is_one_note(failing, verb, reason):
    assert whole_job(verb) == [
        f"The run of Weights & Biases cannot be written: {reason}. The job goes on."
    ]


@pytest.mark.parametrize("folder", [False, True])
def test_without_the_library_one_is_told_what_to_install(tmp_path, monkeypatch, folder):
    """Also where its folder of runs is, which Python takes for a package."""
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    if folder:
        (tmp_path / "wandb").mkdir()
        known = [tmp_path, *(p for p in sys.path if not (Path(p) / "wandb").exists())]
        monkeypatch.setattr(sys, "path", list(map(os.fspath, known)))
    else:
        monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install 'latentcli\[wandb\]'"):
        WandbRun().check()
    sys.modules.pop("wandb", None)


def test_the_library_cannot_ask_on_a_terminal(monkeypatch):
    """It would, where it finds no key, and the job shows its progress there."""
    leader, follower = os.openpty()
    with os.fdopen(follower) as terminal, os.fdopen(leader):
        monkeypatch.setattr(sys, "stdin", terminal)
        with no_prompt():
            assert not sys.stdin.isatty() and sys.stdin.read() == ""
        assert sys.stdin is terminal
    monkeypatch.setattr(sys, "stdin", None)
    with no_prompt():
        assert sys.stdin is None
