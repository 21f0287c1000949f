"""Reads the bytes of one input: a file, a URL, or a member of a tar."""

from __future__ import annotations

import os
import stat
from io import BufferedReader

from latentcli.core.errors import SampleError
from latentcli.shards.storage.byte_stream import open_stream, without_waiting
from latentcli.shards.storage.decompress import compression_of
from latentcli.shards.storage.paths import RemotePath, path_of
from latentcli.shards.tar.member import member_bytes, split_member


def read_bytes(source: str, limit: int | None = None) -> bytes:
    """A file's bytes, at most `limit`; SampleError of stage read where they cannot be had.

    `source` is a path, a URL, or `<tar>::<member>` of either where there is no such file.
    """
    name, member = split_member(source)
    where = path_of(name)
    try:
        if member is not None and compression_of(where.name) is not None:
            with open_stream(where) as stream:
                return member_bytes(stream, member, limit)
        if isinstance(where, RemotePath):
            return _read_remote(where, member, limit)
        with open(where, "rb", opener=without_waiting) as file:
            return _read(file, os.fstat(file.fileno()), member, limit)
    except FileNotFoundError as error:
        raise SampleError("read", "the file is not there") from error
    except IsADirectoryError as error:
        raise SampleError("read", "it is a folder, not a file") from error
    except (OSError, ValueError) as error:
        raise SampleError("read", f"the file cannot be read: {_reason(error)}") from error


def _read(
    file: BufferedReader, info: os.stat_result, member: str | None, limit: int | None
) -> bytes:
    if not stat.S_ISREG(info.st_mode):
        raise SampleError("read", "it is not a regular file but a device or a pipe")
    if member is not None:
        return member_bytes(file, member, limit)
    data = file.read() if limit is None else file.read(limit + 1)
    _check_size(max(info.st_size, len(data)), limit)
    return data


def _read_remote(path: RemotePath, member: str | None, limit: int | None) -> bytes:
    if member is not None:
        with path.open("rb") as file:
            return member_bytes(file, member, limit)
    if limit is not None:
        _check_size(path.stat().st_size, limit)
    return path.read_bytes()


def _check_size(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise SampleError("read", f"the file has {size} bytes, allowed are at most {limit}")


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
