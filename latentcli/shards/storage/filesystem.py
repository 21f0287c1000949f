"""Opens the fsspec filesystem of a URL, and puts what it raises into plain words."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from latentcli.core.errors import UsageError
from latentcli.shards.storage.forks import watch_forks
from latentcli.shards.storage.hub_files import HubFiles
from latentcli.shards.storage.retry import OFFLINE, Plain, answered, retry_seconds, retrying

Result = TypeVar("Result")

_PACKAGES = {
    "s3": ("s3fs", "'latentcli[s3]'"),
    "s3a": ("s3fs", "'latentcli[s3]'"),
    "gs": ("gcsfs", "'latentcli[gcs]'"),
    "gcs": ("gcsfs", "'latentcli[gcs]'"),
    "hf": ("huggingface_hub", "huggingface_hub"),
    "http": ("aiohttp", "aiohttp"),
    "https": ("aiohttp", "aiohttp"),
}
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "SSOError",
    "DefaultCredentialsError",
    "RefreshError",
}
_GONE = {
    "RepositoryNotFoundError": "there is no such repository, or this token may not read it",
    "RevisionNotFoundError": "the repository has no such branch, tag or commit",
    "RemoteEntryNotFoundError": "it is not there",
}
"""What the Hub's errors say of what is missing."""
_REFUSED = {401: "the Hub does not know the token", 403: "the token may not do that"}
_ENDPOINTS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"),
    *("HF_ENDPOINT", "HF_TOKEN"),
)

_open: dict[tuple[object, ...], Any] = {}


def filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL, opened once a process, and the URL's path in it.

    It keeps no listings: another machine may write to the same storage. UsageError where the
    scheme is unknown or its package is missing.
    """
    scheme = url.partition("://")[0].lower()
    # An open connection does not survive a fork, and an endpoint may be set after the import.
    key = (os.getpid(), scheme, retry_seconds(), *map(os.environ.get, _ENDPOINTS))
    # No lock here: a fork could copy it while it is held. Two threads may make a spare one.
    files = _open.get(key) or _open.setdefault(key, _new(scheme))
    return files, files._strip_protocol(url)


def _new(scheme: str) -> Any:
    import fsspec

    watch_forks()
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        package, wanted = _PACKAGES.get(scheme, (None, None))
        if package is None:
            raise UsageError(f"{scheme}:// needs another package: {error}") from error
        raise UsageError(f"{scheme}:// needs {package}: pip install {wanted}") from error
    except ValueError as error:
        raise UsageError(
            f"{scheme}:// is not a known kind of storage: use s3://, gs://, hf://, https://, or"
            " another scheme of fsspec."
        ) from error
    options = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "hf":
        return HubFiles(**options)
    return kind(**options, **(_s3_options() if scheme in ("s3", "s3a") else {}))


def _s3_options() -> dict[str, Any]:
    """Two quick tries of each part of a long upload; retry.py repeats the whole."""
    total = retry_seconds()
    patience = min(max(total, 1), 20)
    return {
        "max_concurrency": 1,
        "config_kwargs": {
            # The second try waits for up to a second, which is too much where time is short.
            "retries": {"mode": "standard", "total_max_attempts": 2 if total >= 5 else 1},
            "connect_timeout": min(patience, 10),
            "read_timeout": patience,
        },
    }


def ask(url: str, what: str, call: Callable[[Any, str], Result]) -> Result:
    """The result of `call(filesystem, path)`, tried again where trouble may pass.

    `what` is the work ("reading"). Errors are OSErrors whose strerror is plain words, without a
    full stop; FileNotFoundError and PermissionError stay what they are.
    """
    files, path = filesystem(url)
    if getattr(files, "retries", 1) != 1:
        files.retries = 1
    try:
        return retrying(lambda: call(files, path), what)
    except UsageError:
        raise
    except Exception as error:
        raise plain(error, url) from error


def plain(error: Exception, url: str) -> OSError:
    """The same error as an OSError of that URL in plain words."""
    names = {kind.__name__ for kind in type(error).__mro__}
    scheme = url.partition("://")[0]
    said = _said(error)
    if names & _NO_CREDENTIALS:
        return PermissionError(
            errno.EACCES, f"no credentials for {scheme}:// were found, or they do not work", url
        )
    if scheme == "hf" and (refused := _hub_refusal(error, names)):
        kind, number, reason = refused
        return kind(number, reason, url)
    if isinstance(error, FileNotFoundError):
        bucket = "bucket" in said
        reason = "the bucket does not exist" if bucket else "it is not there"
        return FileNotFoundError(errno.ENOENT, reason, url)
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, f"the storage does not permit it ({said})", url)
    if isinstance(error, Plain):
        return OSError(error.errno, error.strerror, url)
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    return OSError(number, f"the storage refuses it ({said})", url)


def _hub_refusal(error: Exception, names: Collection[str]) -> tuple[type[OSError], int, str] | None:
    """What the Hub says by the kind of its error or its status, where it is one of these."""
    if OFFLINE in names:
        return OSError, errno.ENETDOWN, "HF_HUB_OFFLINE is set, so the Hub is not asked"
    if "GatedRepoError" in names:
        reason = "its owner has to grant access: ask for it on its page"
        return PermissionError, errno.EACCES, reason
    for name, reason in _GONE.items():
        if name in names:
            return FileNotFoundError, errno.ENOENT, reason
    reason = _REFUSED.get(answered(error)[0] or 0, "")
    return (PermissionError, errno.EACCES, reason) if reason else None


def _said(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200].rstrip(". ")
