"""Keeps the shards that are open in a process, of all its stores, within what it may open."""

from __future__ import annotations

import os
import resource
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable

from latentcli.shards.store.shard_file import ShardFile

MOST = 128
"""Shards that are open at most; each costs a descriptor, and memory for its tensors' names."""
SHARE = 4
"""The part of a process's descriptors that shards may take is one of so many."""

_recent: OrderedDict[tuple[int, int], weakref.ref[ShardCache]] = OrderedDict()
"""Whose each open shard is, by the cache's id and the unit, the last used one at the end."""
_lock = threading.Lock()


class OpenShard:
    """An open shard and its tensors' names by key."""

    def __init__(self, file: ShardFile) -> None:
        self.file = file
        self.names: dict[str, list[str]] = {}
        for name in file.names:
            self.names.setdefault(name.rpartition("/")[0], []).append(name)


class ShardCache:
    """The open shards of one store. The least lately used ones of all stores are closed first.

    It can be used from several threads, and after a fork. A copy in another process is empty.
    """

    def __init__(self) -> None:
        self._shards: dict[int, OpenShard] = {}

    def get(self, unit: int, open_file: Callable[[int], ShardFile]) -> OpenShard:
        """A unit's shard, opened by `open_file` where it is not open."""
        shard = self._shards.get(unit)
        if shard is None:
            shard = self._shards[unit] = OpenShard(open_file(unit))
        self._keep(unit)
        return shard

    def drop(self, unit: int) -> None:
        """Closes a unit's shard, once none of its tensors is used."""
        self._shards.pop(unit, None)
        with _lock:
            _recent.pop((id(self), unit), None)

    def _keep(self, unit: int) -> None:
        place = id(self), unit
        with _lock:
            known = _recent.get(place)
            if known is None or known() is not self:
                _recent[place] = weakref.ref(self)
            _recent.move_to_end(place)
            if len(_recent) <= limit():
                return
            for place in [place for place, cache in _recent.items() if cache() is None]:
                del _recent[place]
            while len(_recent) > limit():
                (_, oldest), held = _recent.popitem(last=False)
                cache = held()
                if cache is not None:
                    cache._shards.pop(oldest, None)

    def __len__(self) -> int:
        return len(self._shards)

    def __reduce__(self) -> tuple[type[ShardCache], tuple[()]]:
        return ShardCache, ()


def limit() -> int:
    """How many shards may be open in this process at once, by its limit of descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(1, min(MOST, soft // SHARE))


def _new_lock() -> None:
    """Gives the child of a fork a lock that no thread of its parent holds."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)
