"""Which errors pass, how often and how long is tried, and what the last sentence says."""

from __future__ import annotations

import errno
import time
from itertools import pairwise

import pytest

from latentcli.shards.storage import retry
from latentcli.shards.storage.retry import TRIES, Cut, Plain, passing, retrying


class ReadTimeoutError(Exception):
    pass


class ClientPayloadError(Exception):
    pass


class ContentLengthError(Exception):
    # As aiohttp's, which gives every garbled body the status 400.
    status = 400


class Answer(Exception):
    def __init__(self, status, code=""):
        self.response = {
            "ResponseMetadata": {"HTTPStatusCode": status},
            "Error": {"Code": code},
        }


class HttpError(Exception):
    def __init__(self, status):
        self.response = type("Response", (), {"status_code": status})


def caused(error, cause):
    error.__cause__ = cause
    return error


PASSING = [
    TimeoutError(),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    BrokenPipeError(errno.EPIPE, "pipe"),
    OSError(errno.EIO, "input/output error"),
    OSError(errno.EBUSY, "slow down"),
    ReadTimeoutError("https://..."),
    caused(ClientPayloadError("cut"), ContentLengthError()),
    caused(OSError(errno.EINVAL, "bad digest"), Answer(400, "BadDigest")),
    caused(OSError(errno.EIO, "odd"), Answer(502)),
    Answer(503, "SlowDown"),
    Answer(429),
    HttpError(500),
    HttpError(529),
    Cut(),
]
STAYING = [
    FileNotFoundError(errno.ENOENT, "no"),
    caused(FileNotFoundError("no"), ConnectionResetError()),
    PermissionError("no"),
    Plain(errno.EIO, "it is short"),
    OSError(errno.ENOSPC, "full"),
    caused(OSError(errno.EIO, "odd"), Answer(400, "InvalidRequest")),
    Answer(403, "AccessDenied"),
    HttpError(404),
    HttpError(501),
    ValueError("no"),
    ImportError("no"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("LATENTCLI_RETRY_SECONDS", "0.1")


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_trouble_on_the_way_is_tried_again(error):
    assert passing(error)
    left = [error, error]

    def call():
        if left:
            raise left.pop()
        return 5

    assert retrying(call, "reading") == 5


@pytest.mark.parametrize("error", STAYING, ids=repr)
def test_an_error_that_will_not_pass_comes_at_once(error):
    calls = []

    def call():
        calls.append(1)
        raise error

    with pytest.raises(type(error)) as raised:
        retrying(call, "reading")
    assert raised.value is error
    assert len(calls) == 1


def failing(seconds=0.0):
    calls = []

    def call():
        calls.append(time.monotonic())
        time.sleep(seconds)
        raise Answer(503)

    with pytest.raises(OSError) as raised:
        retrying(call, "upload")
    return calls, raised.value


def test_it_gives_up_with_a_plain_sentence(monkeypatch):
    monkeypatch.setenv("LATENTCLI_RETRY_SECONDS", "0.62")
    calls, error = failing()
    assert len(calls) == TRIES
    assert error.strerror == (
        "the upload failed 6 times within 1 s, the last time because the storage is overloaded or"
        " down"
    )
    waits = [b - a for a, b in pairwise(calls)]
    for number, wait in enumerate(waits):
        assert 0.01 * 2**number <= wait <= 0.02 * 2**number + 1
    assert sum(waits) >= 0.3


def test_slow_failures_are_tried_less_often(monkeypatch):
    monkeypatch.setattr(retry, "LONG", 0.05)
    calls, _ = failing(seconds=0.1)
    assert len(calls) == 3


def test_the_clock_of_the_wall_does_not_matter(monkeypatch):
    past = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: next(past))
    calls, _ = failing()
    assert len(calls) == TRIES


def test_a_strange_setting_means_the_default(monkeypatch):
    from latentcli.shards.storage.retry import retry_seconds

    monkeypatch.setenv("LATENTCLI_RETRY_SECONDS", "soon")
    assert retry_seconds() == 30
