"""Reads inputs that are files; the base of what reads other kinds of source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from latentcli.core.types import InputRow, Row
from latentcli.jobs.loader.clip_frames import ClipInput
from latentcli.jobs.loader.prepare import Intake, RawSample, Task, read_sample, unit_tasks
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.stdio import go_on
from latentcli.shards.sources.digests import digest_of
from latentcli.shards.store.commit import TarOrigin
from latentcli.shards.store.input_list import InputList


@dataclass(slots=True)
class Reader:
    """Reads the inputs of a job; one object per job, used by one thread at a time."""

    packed: ClassVar[bool] = False
    """Whether each input holds many samples, and is a unit of its own."""
    noun: ClassVar[str] = "file"
    """What one input is called in a message."""
    endings: ClassVar[tuple[str, ...]] = ()
    """Of the names of packed inputs, lower case; the last is the usual one."""

    suffixes: frozenset[str]
    """Of the files that are pictures or clips, lower case with the dot."""
    meter: Meter
    check: Callable[[], None] = go_on
    """Called while a pipe gives nothing; may raise."""
    origins: dict[int, TarOrigin] = field(default_factory=dict)
    """By unit, what it was made from, where inputs are packed."""
    taken: int = 0
    """Bytes of packed inputs read so far."""
    image_field: str | None = None
    """Of packed inputs, the member or column that is the picture; None where it is found."""
    image_root: str | None = None
    """Folder that files which a table names must lie in; None is the table's own."""
    nothing_to_encode: int = 0
    """Samples of packed inputs, so far, that hold no picture (or clip); they have no rows."""

    @classmethod
    def owns(cls, path: str) -> bool:
        """Whether an input is of this kind, by its name."""
        return path.lower().endswith(cls.endings)

    def samples(self, row: InputRow) -> Iterator[RawSample]:
        """The samples of one input with their bytes, in order; refused ones too."""
        yield read_sample(row)

    def again(self, row: Row) -> RawSample:
        """One sample once more, by its row in a store."""
        return read_sample(InputRow(row.key, row.source, 0))

    def tasks(self, intake: Intake, units: Iterable[int]) -> Iterator[Task]:
        """The pictures of some units as tasks for the loader, in order; a unit's last says so.

        Files are read by who decodes them.
        """
        return unit_tasks(intake, units)

    def clips(self, row: InputRow) -> Iterator[ClipInput]:
        """The clips of one input, each good until the next one is asked for."""
        sha256 = digest_of(row.source)
        yield ClipInput(Row(row.key, row.source, "ok", sha256=sha256), row.source)

    def unit_prefix(self, inputs: InputList, unit: int) -> str:
        """What the keys of a unit's samples begin with in the store, and not in their input."""
        return ""
