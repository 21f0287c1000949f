"""Keeps the shards that are open in a process, of all its stores, within what it may open."""

from __future__ import annotations

import os
import resource
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from latentcli.shards.store.shard_file import ShardFile

MOST = 1024
"""Shards that are open at most; each costs a descriptor, and memory for its tensors' names."""
FEW = 128
"""Shards that may be open whatever memory they cost."""
TENSORS = 2**19
"""Tensors in all open shards, where there are more than a few: half a KiB of memory each."""
SHARE = 4
"""The part of a process's descriptors that shards may take is one of so many."""

_recent: OrderedDict[tuple[int, int], Held] = OrderedDict()
"""All open shards, by the cache's id and the unit, the last used one at the end."""
_lock = threading.Lock()


class Held(NamedTuple):
    """An open shard among those of all stores."""

    cache: weakref.ref[ShardCache]
    """Whose it is."""
    tensors: int
    """How many it has."""


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
        self._keep(unit, len(shard.file.entries))
        return shard

    def drop(self, unit: int) -> None:
        """Closes a unit's shard, once none of its tensors is used."""
        self._shards.pop(unit, None)
        with _lock:
            _recent.pop((id(self), unit), None)

    def _keep(self, unit: int, tensors: int) -> None:
        place = id(self), unit
        with _lock:
            known = _recent.get(place)
            is_new = known is None or known.cache() is not self
            if is_new:
                _recent[place] = Held(weakref.ref(self), tensors)
            _recent.move_to_end(place)
            # Only a new one adds tensors, so that they need not be counted at each look-up.
            if len(_recent) <= limit() and (len(_recent) <= FEW or not is_new):
                return
            for place in [place for place, held in _recent.items() if held.cache() is None]:
                del _recent[place]
            while _are_too_many():
                (_, oldest), held = _recent.popitem(last=False)
                cache = held.cache()
                if cache is not None:
                    cache._shards.pop(oldest, None)

    def __len__(self) -> int:
        return len(self._shards)

    def __reduce__(self) -> tuple[type[ShardCache], tuple[()]]:
        return ShardCache, ()


def _are_too_many() -> bool:
    if len(_recent) > limit():
        return True
    return len(_recent) > FEW and sum(held.tensors for held in _recent.values()) > TENSORS


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
