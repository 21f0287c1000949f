"""Takes the right to be a store's only writer, by a file lock or by a lease."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from latentcli.shards.layout import HOLDERS
from latentcli.shards.storage.atomic_write import write_error
from latentcli.shards.storage.paths import AnyPath, RemotePath, reading
from latentcli.shards.store.holder import Holder, read_holder, refused, write_holder
from latentcli.shards.store.lease import Lease
from latentcli.shards.store.place import check_place, is_a_file, nearest, no_place

# What file systems without locks on folders answer (NFS, some Lustre mounts).
_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}
_ASKED = 10
_PAUSE = 0.05


class StoreLock:
    """Context manager: the exclusive right to write to a store, whose folder is made if missing.

    Of a local folder it is a lock of the system, which ends with the process, however that ends;
    of remote storage, and where there are no such locks, a lease (lease.py). While it is held a
    small file says by whom, and is deleted at the end. StoreError tells a second job who that is.
    """

    def __init__(self, store: AnyPath) -> None:
        self.store = store
        self.held = False
        self._handle: int | None = None
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        try:
            if not isinstance(self.store, Path) or not self._lock_folder(self.store):
                self._take_lease()
        except BaseException:
            self._let_go()
            raise
        self.held = True
        return self

    def __exit__(self, *_: object) -> None:
        if self.held and self._lease is not None:
            self._lease.release()
        elif self.held and isinstance(self.store, Path):
            with suppress(OSError):
                (self.store / HOLDERS[0]).unlink(missing_ok=True)
        self._let_go()

    def check(self) -> None:
        """StoreError where the right was lost meanwhile; call it before a unit is committed."""
        if self.held and self._lease is not None:
            self._lease.check()

    def _lock_folder(self, store: Path) -> bool:
        """Whether there are locks here; then it is locked."""
        self._handle = _open_folder(store)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refused(store, _holder(store)) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise write_error(store, error) from error
            return False
        # This is for people: where it cannot be written, the job goes on.
        with suppress(OSError):
            write_holder(store / HOLDERS[0], Holder.here())
        return True

    def _take_lease(self) -> None:
        if isinstance(self.store, RemotePath):
            _check_no_file(self.store)
        self._lease = Lease(self.store)
        self._lease.take()

    def _let_go(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._handle, self._lease, self.held = None, None, False


def _open_folder(store: Path) -> int:
    try:
        store.mkdir(parents=True, exist_ok=True)
        return os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    except FileExistsError as error:
        raise is_a_file(store) from error
    except OSError as error:
        if nearest(store) == store:
            raise write_error(store, error) from error
        check_place(store)
        raise no_place(store, error) from error


def _check_no_file(store: RemotePath) -> None:
    with reading(store):
        if store.is_file():
            raise is_a_file(store)


def _holder(store: Path) -> Holder | None:
    """Who holds the lock; if it took it but a moment ago, the file may be of a job before."""
    for _ in range(_ASKED):
        holder = None
        with suppress(OSError):
            holder = read_holder(store / HOLDERS[0], Holder)
        if holder is not None and not holder.is_dead():
            return holder
        time.sleep(_PAUSE)
    return None
