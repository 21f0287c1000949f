"""Holds what a job asks of the survey of its store, and what that finds."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from latentcli.core.caption_counts import CaptionCounts
from latentcli.core.types import InputRow
from latentcli.shards.sources.companions import Companions
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.roots import Roots

SHOWN = 3
"""Names in a message."""
REASONS = {
    "new": "not in the store yet",
    "left": "listed, but not encoded yet",
    "damaged": "their shard or its record is damaged or missing",
    "changed": "changed since they were encoded",
    "failed": "failed before",
    "filtered": "left out by the filters before",
    "renamed": "renamed, the latent is kept",
    "gone": "in the store, but no longer given by the sources",
    "done": "encoded already",
}
"""What an input can be. Of several, the first holds."""
RETRIES = {None: ("changed",), "changed": ("changed",), "failed": ("changed", "failed"), "none": ()}
"""Which inputs are encoded again, by the option."""


@dataclass(frozen=True, slots=True)
class Reason:
    """The inputs of one kind."""

    count: int
    examples: tuple[str, ...]
    """Keys of the first few."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a job asks of a survey."""

    retry: str | None = None
    """Inputs to encode again: a key of RETRIES."""
    compare: str = "stat"
    """stat: an input whose size and time are those of the list is as it was. digest: its bytes
    decide, and every input is read."""
    whole: bool = False
    """Encode the whole shard of an input that is encoded again, for the bytes of a new store."""
    rekey: bool = True
    """Give inputs the keys of a new store where they were found in the same folder as before."""
    captions: str | None = None
    """What belongs to the inputs, as the option says; None leaves captions as they are."""


USUAL_ASK = Ask()
"""What is asked where nothing else is said."""


@dataclass(slots=True)
class Survey:
    """What a job would find to do in a store, before anything is written there."""

    frozen: InputList | None
    """The store's list as it is; None where it has none yet."""
    roots: Roots
    """Where the inputs lie today."""
    moved: bool = False
    """Whether they have moved since the store was written."""
    copied: bool = False
    """Whether they have moved, and none has the time that the list has of it: sizes decide then."""
    todo: list[int] = field(default_factory=list)
    """Units to encode, those of new inputs as well."""
    parts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Of those, units that are done but for some inputs: the indices of these."""
    outdated: list[int] = field(default_factory=list)
    """Units to write anew from their own shards: inputs of theirs have other names."""
    texts: list[int] = field(default_factory=list)
    """Units whose samples have other captions or fields by now."""
    to_encode: int = 0
    """Inputs in the units to encode."""
    new: Sequence[InputRow] = ()
    """Rows that the list gets at its end. None for a store without a list: it gets all."""
    at_once: dict[str, InputRow] = field(default_factory=dict)
    """By source in the list: rows to change before anything is encoded."""
    at_end: dict[str, InputRow] = field(default_factory=dict)
    """The same, once all is encoded: these rows say what was encoded, or written, last."""
    again: set[int] = field(default_factory=set)
    """Units of rows that change at once, whose records must not stand beside these."""
    gone: list[InputRow] = field(default_factory=list)
    """Rows whose inputs the sources do not give."""
    kept: list[InputRow] = field(default_factory=list)
    """Rows of changed inputs whose latents are kept all the same."""
    stamps: array[int] | None = None
    """Of the inputs found, as the list has them of its rows; None where that is not asked."""
    companions: Companions | None = None
    """What reads the texts beside the inputs."""
    captions: CaptionCounts = field(default_factory=CaptionCounts)
    """Flaws of the files of metadata."""
    failed: int = 0
    """Samples that failed before and are not tried again."""
    samples: int = 0
    """Samples, failed ones too, in the units that are not encoded again."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in REASONS})

    def add(self, reason: str, keys: Sequence[str]) -> None:
        """Counts inputs."""
        self.counts[reason] += len(keys)
        self.examples[reason] += keys[: SHOWN - len(self.examples[reason])]

    @property
    def reasons(self) -> dict[str, Reason]:
        """By name of REASONS; the counts sum up to the inputs of the store and the new ones."""
        return {name: Reason(self.counts[name], tuple(self.examples[name])) for name in REASONS}
