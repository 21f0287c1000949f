"""Tells which endings no file of a folder has, so that such files need not be looked for.

A folder is listed, and again where its names have changed: then its own time has too. That time
may be of another machine's clock, and is only compared with itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

PER_INPUT = 16
"""Names that may be listed for each input that is asked for: it takes less than to look for it."""
SETTLED = 4.0
"""Seconds after which a change gives a folder another time: file systems count in up to two."""


class EndingsThere:
    """Of some suffixes of files in a local folder, those that files there may have now."""

    def __init__(
        self,
        folder: str,
        suffixes: Sequence[str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._folder, self._suffixes, self._clock = folder, tuple(suffixes), clock
        self._there = self._suffixes
        self._changed, self._since = -1, clock()
        """The folder's own time, and since when it is known to be that."""
        self._as_of: int | None = None
        """Its time when it was listed; None where its names may change within that."""
        self._room = 0
        """Names that may be listed for what was asked."""
        self._names = 0
        """That the folder had, or has at least."""

    def of(self, asked: int) -> Sequence[str]:
        """The suffixes, for so many inputs: all but those that no file has, whatever its case.

        A folder that cannot be listed, or changes all the time and is large, may have all of them.
        """
        self._room += PER_INPUT * asked
        with suppress(OSError):
            changed, now = Path(self._folder).stat().st_mtime_ns, self._clock()
            if changed == self._as_of:
                return self._there
            if changed != self._changed:
                self._changed, self._since = changed, now
            if self._room >= self._names and self._list():
                self._as_of = changed if now - self._since > SETTLED else None
                return self._there
        return self._suffixes

    def _list(self) -> bool:
        """Lists the folder; False where it has more names than there is room for: then twice as
        many are to be asked for before the next try.
        """
        self._as_of, count = None, 0
        # Some file systems know no case, and some know letters beyond ASCII in several forms.
        unseen = tuple({ending_of(suffix) for suffix in self._suffixes if suffix.isascii()})
        with os.scandir(self._folder) as entries:
            for count, entry in enumerate(entries if unseen else (), 1):
                if count > self._room:
                    self._names = 2 * self._room
                    return False
                name = entry.name.casefold()
                if name.endswith(unseen):
                    unseen = tuple(ending for ending in unseen if not name.endswith(ending))
                    if not unseen:
                        break
        self._there = tuple(s for s in self._suffixes if ending_of(s) not in unseen)
        self._room, self._names = 0, count
        return True


def ending_of(suffix: str) -> str:
    """What names end in that have a suffix, whatever their case."""
    return f".{suffix}".casefold()
