"""Repeats a call to remote storage while its errors may pass by themselves."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

TRIES = 6
"""Calls at most. The waits between them double, from 1/31 of `retry_seconds` on."""

FEWEST_TRIES = 3
"""Calls at least, however long each of them took."""

LONG = 60.0
"""Seconds that the calls themselves may take, beside the waits, before there are no more."""

_SECONDS = 30.0

Result = TypeVar("Result")


class Plain(OSError):
    """An error that is in plain words already, and that will not pass."""


class Cut(OSError):
    """Fewer bytes came than the storage has: worth another try."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, _CUT)


_NEVER = (
    Plain,
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
OFFLINE = "OfflineModeIsEnabled"
"""What the Hub's client raises where HF_HUB_OFFLINE forbids it to ask: a ConnectionError."""
_STATUS = {
    408: "the storage waited too long for the request",
    425: "the storage was not ready yet",
    429: "the storage asks for fewer requests",
    500: "the storage had an internal error",
    502: "a gateway had no answer from the storage",
    503: "the storage is overloaded or down",
    504: "a gateway waited too long for the storage",
}
# Codes of S3 whose HTTP status alone does not say that they pass.
_CODES = {
    "BadDigest": "the data were damaged on the way",
    "IncompleteBody": "the upload was cut off",
    "InternalError": _STATUS[500],
    "OperationAborted": "another request conflicted with it",
    "RequestTimeout": _STATUS[408],
    "ServiceUnavailable": _STATUS[503],
    "SlowDown": _STATUS[429],
    "Throttling": _STATUS[429],
    "ThrottlingException": _STATUS[429],
    "XAmzContentSHA256Mismatch": "the data were damaged on the way",
}
_CUT = "the connection was lost"
_LATE = "there was no answer in time"
_UNREACHED = "the storage could not be reached"
_ERRNOS = {
    getattr(errno, name, errno.EIO): reason
    for reason, names in {
        _STATUS[500]: "EREMOTEIO",
        "the storage is busy": "EAGAIN EBUSY",
        _CUT: "ECONNABORTED ECONNRESET ENETRESET EPIPE",
        _UNREACHED: "ECONNREFUSED EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH",
        _LATE: "ETIMEDOUT",
        "the storage could not read or write": "EIO",
    }.items()
    for name in names.split()
}
# Errors of aiohttp, botocore, urllib3, requests and httpx, which we do not import for this.
_NAMES = {
    name: reason
    for reason, names in {
        _LATE: "TimeoutError FSTimeoutError ConnectTimeout ConnectTimeoutError ReadTimeout"
        " ReadTimeoutError WriteTimeout PoolTimeout ServerTimeoutError",
        _UNREACHED: "gaierror ConnectError ConnectionRefusedError ClientConnectorError"
        " EndpointConnectionError",
        "the data were damaged on the way": "ChecksumError FlexibleChecksumError",
        _CUT: "ChunkedEncodingError ClientConnectionError ClientOSError ClientPayloadError"
        " ConnectionClosedError ConnectionError HTTPClientError IncompleteRead"
        " IncompleteReadError NetworkError ProtocolError ResponseStreamingError",
        "the answer was malformed": "ResponseParserError",
    }.items()
    for name in names.split()
}


def retry_seconds() -> float:
    """Seconds over which tries are spread: 30, or what LATENTCLI_RETRY_SECONDS says."""
    try:
        return max(0.0, float(os.environ.get("LATENTCLI_RETRY_SECONDS", _SECONDS)))
    except ValueError:
        return _SECONDS


def retrying(call: Callable[[], Result], what: str) -> Result:
    """The call's result; where an error may pass, it waits a little longer each time, and tries on.

    `what` is what is done, for the sentence of the last error ("reading of s3://b/x"). An error
    that will not pass (not found, no permission, a bad request) comes at once and as it is; one
    that did not pass becomes a Plain one.
    """
    total = retry_seconds()
    start = time.monotonic()
    for number in range(1, TRIES + 1):
        try:
            return call()
        except Exception as error:
            reason = passing(error)
            if reason is None:
                raise
            elapsed = time.monotonic() - start
            if number == TRIES or (number >= FEWEST_TRIES and elapsed > total + LONG):
                raise Plain(
                    errno.ETIMEDOUT,
                    f"the {what} failed {number} times within {max(elapsed, 1):.0f} s, the last"
                    f" time because {reason}",
                ) from error
        # Jitter: many machines that were turned away together must not come back together.
        time.sleep(total / (2**TRIES // 2 - 1) * 2 ** (number - 1) * random.uniform(0.5, 1))
    raise AssertionError("unreachable")


def passing(error: BaseException) -> str | None:
    """Why an error may pass by itself, as half a sentence; None where it will not."""
    if isinstance(error, _NEVER) or type(error).__name__ == OFFLINE:
        return None
    for link in _chain(error):
        if reason := _named(link):
            return reason
        status, code = _answer(link)
        if (status, code) != (None, None):
            return _CODES.get(code or "") or _STATUS.get(status or 0) or _server_error(status)
    # Last: s3fs gives every answer that it does not know the number of a failed disk.
    numbers = (link.errno for link in _chain(error) if isinstance(link, OSError))
    return next((_ERRNOS[number] for number in numbers if number in _ERRNOS), None)


def answered(error: BaseException) -> tuple[int | None, str | None]:
    """The HTTP status and the S3 code of a server's answer, where an error comes of one."""
    answers = (answer for answer in map(_answer, _chain(error)) if answer != (None, None))
    return next(answers, (None, None))


def _server_error(status: int | None) -> str | None:
    return f"the storage answered with HTTP status {status}" if 501 < (status or 0) < 600 else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _answer(error: BaseException) -> tuple[int | None, str | None]:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status, response.get("Error", {}).get("Code")
    found = getattr(response, "status_code", None), getattr(error, "status", None)
    code = getattr(error, "code", None)
    status = next((value for value in (*found, code) if type(value) is int and value > 99), None)
    return status, None


def _named(error: BaseException) -> str | None:
    names = (kind.__name__ for kind in type(error).__mro__)
    return next((_NAMES[name] for name in names if name in _NAMES), None)
