"""Writes deterministic, readable JSON, and reads JSON objects with plain errors."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.core.json_values import finite
from latentcli.shards.storage.hub import here
from latentcli.shards.storage.paths import AnyPath, RemotePath

_ENCODER = json.JSONEncoder(allow_nan=False)


def one_line(value: Any) -> str:
    """JSON on one line, pure ASCII; a float that is not finite becomes null."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError):  # no dict but another mapping, or a float that JSON cannot say
        return _ENCODER.encode(finite(value))


def pretty(value: Any, indent: str = "") -> str:
    """JSON with one field a line and lists of objects one object a line; other lists on one."""
    inner = indent + "  "
    if isinstance(value, Mapping) and value:
        items = (f"{json.dumps(name)}: {pretty(item, inner)}" for name, item in value.items())
        return _block("{}", items, indent)
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return _block("[]", map(one_line, value), indent)
    return one_line(value)


def _block(brackets: str, items: Iterable[str], indent: str) -> str:
    body = f",\n{indent}  ".join(items)
    return f"{brackets[0]}\n{indent}  {body}\n{indent}{brackets[1]}"


def may_pass(path: AnyPath, error: StoreError) -> bool:
    """Whether a file below a path that `load_object` did not read may be sound all the same.

    A file that is not there is not, nor one that a local disk cannot read.
    """
    cause = error.__cause__
    if not isinstance(cause, OSError) or isinstance(cause, FileNotFoundError):
        return False
    return isinstance(path, RemotePath) or cause.errno != errno.EIO


def load_object(path: AnyPath) -> dict[str, Any]:
    """The JSON object in a file; StoreError where it is missing, unreadable or no such thing."""
    try:
        value = json.loads(here(path).read_bytes())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: it is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} is damaged: it is not a JSON object.")
    return value
