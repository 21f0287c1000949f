"""What follows a job is looked at before the job begins, but never waited for without end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from latentcli.core.errors import UsageError
from latentcli.jobs.runtime import followers as followers_module
from latentcli.jobs.runtime.followers import answers, followers
from latentcli.jobs.runtime.json_log import JsonLog


def test_a_place_that_takes_no_file_is_refused_at_once(tmp_path: Path) -> None:
    notes = list[str]()
    with pytest.raises(UsageError, match="there is no folder"):
        followers(str(tmp_path / "none" / "log"), None, None, notes.append)
    with pytest.raises(UsageError, match="there is no folder"):
        followers(None, str(tmp_path / "none" / "job.prom"), None, notes.append)
    (found,) = followers(str(tmp_path / "log"), None, None, notes.append)
    assert found.name == f"The log {tmp_path / 'log'}" and notes == []
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_does_not_answer_is_told_of_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, notes = threading.Event(), list[str]()
    monkeypatch.setattr(JsonLog, "check", lambda self: free.wait(60) and None)
    monkeypatch.setattr(followers_module, "PATIENCE", 0.01)
    (found,) = followers("log.jsonl", None, None, notes.append)
    assert notes == [
        "The log log.jsonl has not answered for 0.01 s. The job goes on without waiting for it."
    ]
    assert isinstance(found, JsonLog)
    free.set()


def test_a_check_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    assert answers(JsonLog(str(tmp_path / "log")), 60)
    assert set(threading.enumerate()) <= before


def test_any_trouble_of_a_check_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: JsonLog) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(JsonLog, "check", fail)
    with pytest.raises(RuntimeError, match="odd"):
        answers(JsonLog("log"), 60)
