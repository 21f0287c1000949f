"""Sends encoded batches to the disk: copied back, packed in one thread, written in another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.jobs.inference.copy_back import CopyBack
from latentcli.jobs.runtime.background_thread import BackgroundThread

BATCHES_BEHIND = 4
"""Encoded batches that may wait to be packed."""
UNITS_BEHIND = 1
"""Packed units that may wait to be written, the one that is being written among them."""


@dataclass(slots=True)
class WayOut:
    """What happens behind the model."""

    run: EncodeRun
    copies: CopyBack
    packer: BackgroundThread
    writer: BackgroundThread
    begun: list[EncodedUnit] = field(default_factory=list)
    """Units that may have something on the disk which is not in a shard."""

    def check(self) -> None:
        """Raises what stops the job, or what one of the threads raised."""
        self.run.check()
        self.writer.check()

    def begin(self, unit: EncodedUnit) -> EncodedUnit:
        """The unit, noted as begun."""
        self.begun[:] = [*self.begun[-(BATCHES_BEHIND + UNITS_BEHIND) :], unit]
        return unit

    def end(self, unit: EncodedUnit) -> None:
        """All of a unit went to the packer: when that has it, it is written."""
        self.packer.submit(self.run.sink.write, self.run, unit, self.writer)


@contextmanager
def open_way_out(run: EncodeRun) -> Iterator[WayOut]:
    """Within the block batches are packed and units written; on the way out all of them are.

    An error of a thread comes out as `BackgroundThread` says.
    """
    accelerator = run.engine.accelerator
    begun: list[EncodedUnit] = []
    try:
        with (
            BackgroundThread(UNITS_BEHIND, name="writer") as writer,
            BackgroundThread(BATCHES_BEHIND, accelerator.use, name="packer") as packer,
        ):
            yield WayOut(run, CopyBack(accelerator), packer, writer, begun)
    finally:
        for unit in begun:
            unit.drop_spilled()
