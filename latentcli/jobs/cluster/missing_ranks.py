"""Tells which processes of a job have not come yet, and why they are waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from latentcli.jobs.runtime.meter import ignore

NOTICE = 5.0
"""Seconds without others after which it is told who is waited for."""
SHOWN = 3
"""Ranks in a message."""


@dataclass(slots=True)
class MissingRanks:
    """Tells once, after some seconds, who of a job has not come yet."""

    why: str = ""
    """From what it is known that there are others, and what to do where there are none."""
    note: Callable[[str], object] = ignore
    since: float = field(default_factory=time.monotonic)
    told: bool = False

    @property
    def due(self) -> bool:
        """Whether it is time to tell."""
        return not self.told and time.monotonic() - self.since >= NOTICE

    def tell(self, world: int, absent: Sequence[int]) -> None:
        """Names ranks that are absent, of so many in all."""
        self.told = True
        if absent:
            some = ", ".join(map(str, absent[:SHOWN]))
            more = f" and {len(absent) - SHOWN:,} more" if len(absent) > SHOWN else ""
            noun, verb = ("Rank", "has") if len(absent) == 1 else ("Ranks", "have")
            self.note(f"{noun} {some}{more} of {world} {verb} not joined yet. {self.why}".rstrip())

    def watching(self, waiting: Callable[[], None], world: int) -> Callable[[], None]:
        """What is called while rank 0 is waited for."""

        def wait() -> None:
            if self.due:
                self.tell(world, [0])
            waiting()

        return wait
