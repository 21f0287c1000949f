"""Detects whether accelerate, which itself divides loaders among ranks, reads a sampler.

`Accelerator.prepare` wraps what a loader reads from, in every process, and lets each process have
its part. What was shared out among the ranks already would be shared out twice, and most of it
never read. Nothing tells the thing that is wrapped, so it looks who asks.
"""

from __future__ import annotations

import sys
from types import FrameType

_MODULE = "accelerate.data_loader"
_FAR = 32
"""Callers that are looked at: up to a worker that was forked there are some fifteen of torch."""


def asked_by_accelerate(*names: str) -> bool:
    """Whether an object of one of these classes of accelerate is among the callers."""
    if _MODULE not in sys.modules:
        return False
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_FAR):
        if frame is None:
            return False
        if frame.f_globals.get("__name__") == _MODULE:
            owner = frame.f_locals.get("self")
            # `type`, not `__class__`: its loaders say that they are torch's.
            if type(owner).__name__ in names:
                return True
        frame = frame.f_back
    return False
