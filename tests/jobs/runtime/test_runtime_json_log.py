"""The log of events: whole lines, whatever the disk does, behind those of earlier jobs."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from latentcli.core.errors import UsageError
from latentcli.jobs.runtime.json_log import JsonLog


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_there_at_once_and_those_of_earlier_jobs_stay(tmp_path):
    path = tmp_path / "log.jsonl"
    for job in range(2):
        log = JsonLog(str(path))
        log.write({"job": job, "rate": float("nan"), "path": "caf\udce9"})
        assert lines(path)[-1] == {"job": job, "rate": None, "path": "caf\udce9"}
    assert len(lines(path)) == 2 and path.read_bytes().endswith(b"}\n")


def test_a_line_that_a_killed_job_left_unfinished_spoils_no_other(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"b')
    log = JsonLog(str(path))
    for number in range(2):
        log.write({"n": number})
    assert path.read_text() == '{"a": 1}\n{"b\n{"n":0}\n{"n":1}\n'


def test_a_folder_that_is_gone_and_back(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    log = JsonLog(str(folder / "log.jsonl"))
    log.write({"n": 0})
    folder.rename(tmp_path / "old")
    with pytest.raises(FileNotFoundError):
        log.write({"n": 1})
    folder.mkdir()
    log.write({"n": 2})
    assert lines(folder / "log.jsonl") == [{"n": 2}]


def test_a_full_disk_and_then_room():
    log = JsonLog("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        log.write({"n": 0})


def test_half_a_line_on_a_disk_that_gets_full(tmp_path):
    """A limit on the size of files, which ends a write in its middle."""
    path = tmp_path / "log.jsonl"
    log = JsonLog(str(path))
    log.write({"n": 0})
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (12, resource.RLIM_INFINITY))
            with pytest.raises(OSError, match="No space left"):
                log.write({"n": 1})
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            log.write({"n": 2})
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert path.read_text() == '{"n":0}\n{"n"\n{"n":2}\n'


def test_a_pipe_without_a_reader_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    log = JsonLog(str(tmp_path / "pipe"))
    with pytest.raises(OSError, match="No such device"):
        log.write({})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-", "standard output"),
        ("s3://bucket/log", "is a URL"),
        ("{}/nowhere/log", "there is no folder"),
        ("{}", "is a folder"),
    ],
)
def test_what_can_be_no_log(tmp_path, text, told):
    with pytest.raises(UsageError, match=told) as caught:
        JsonLog(text.format(tmp_path)).check()
    assert "--log-json" in str(caught.value)
