"""Defines the pictures of a batch that a device may still be at work on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from latentcli.jobs.inference.accelerator import DeviceTimer
from latentcli.jobs.runtime.meter import Meter


@dataclass(slots=True)
class Decoded:
    """Pictures with keys, which are copied to the host without being waited for."""

    keys: Sequence[str]
    _pictures: Tensor
    _timer: DeviceTimer
    """Ends when they are on the host."""
    _meter: Meter
    _counted: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pictures(self) -> Tensor:
        """uint8 [N, 3, H, W] on the host; waits for the device. Any thread may ask."""
        with self._lock:
            if not self._counted:
                self._meter.add("decode", self._timer.seconds(), len(self.keys))
                self._counted = True
        return self._pictures
