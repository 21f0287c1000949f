"""A store's folder in, the right to be its only writer out."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Self

from latentcli.core.errors import StoreError
from latentcli.shards.write import write_error

# What file systems without locks on folders answer (NFS, some Lustre mounts).
_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


class StoreLock:
    """Context manager: an exclusive lock on the store's folder, which is made where it is missing.

    It leaves no file and ends with the process, however that ends. `held` is false where the
    file system has no such locks: then nothing guards against a second writer.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.held = False
        self._handle: int | None = None

    def __enter__(self) -> Self:
        self._handle = _open_folder(self.store)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held = True
        except BlockingIOError as error:
            self.__exit__()
            raise StoreError(
                f"another job is writing to {self.store}: wait until it ends, or choose another"
                " output folder (-o)."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                self.__exit__()
                raise write_error(self.store, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._handle, self.held = None, False


def _open_folder(store: Path) -> int:
    try:
        store.mkdir(parents=True, exist_ok=True)
        return os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    except FileExistsError as error:
        raise StoreError(f"{store} is a file: a latent store is a folder.") from error
    except OSError as error:
        raise write_error(store, error) from error
