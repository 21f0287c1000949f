"""Finds the files beside inputs that belong to them, such as captions and metadata."""

from __future__ import annotations

import posixpath
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from latentcli.core.fields import DOCUMENT, CaptionRule


def _numbers() -> defaultdict[str, array[int]]:
    return defaultdict(lambda: array("q"))


def _names() -> defaultdict[str, list[str]]:
    return defaultdict(list)


@dataclass(slots=True)
class Beside:
    """Files that are named as captions, documents and metadata are: 8 bytes a file.

    Whether they belong to an input is known once all inputs are.
    """

    endings: tuple[str, ...] = ()
    """Of files that belong to the input whose name is the rest of theirs; none: nothing belongs."""
    metadata: Collection[str] = ()
    """Names of files that belong to the inputs of their folder and those below it."""
    stems: defaultdict[str, array[int]] = field(default_factory=_numbers)
    """The `hash` of each path without its ending, by the reason that the file is counted under."""
    folders: defaultdict[str, list[str]] = field(default_factory=_names)
    """The folder of each file of metadata, by that reason."""

    @classmethod
    def of(cls, rule: CaptionRule | None, metadata: Collection[str]) -> Beside:
        """What looks for the files that a rule takes, and for metadata; for none without a rule."""
        if rule is None:
            return cls()
        return cls(tuple(f".{suffix}" for suffix in (*rule.suffixes, DOCUMENT)), metadata)

    def note(self, reason: str, path: str) -> None:
        """Takes note of one more file that is counted under a reason."""
        folder, _, name = path.rpartition("/")
        if name in self.metadata:
            self.folders[reason].append(folder)
        elif name.endswith(self.endings):
            ending = next(ending for ending in self.endings if name.endswith(ending))
            self.stems[reason].append(hash(path[: -len(ending)]))

    def belonging(self, inputs: Sequence[str]) -> Counter[str]:
        """How many of the files belong to these inputs, by the reason they are counted under."""
        # Every command counts what is left out, and few have anything here: these load slowly.
        import numpy as np

        from latentcli.shards.keys import folders_of

        found = Counter[str]()
        if self.folders:
            above = folders_of(inputs)
            for reason, folders in self.folders.items():
                found[reason] += sum(folder in above for folder in folders)
        if self.stems and inputs:
            stems = (hash(posixpath.splitext(path)[0]) for path in inputs)
            wanted = np.unique(np.fromiter(stems, np.int64, len(inputs)))
            for reason, noted in self.stems.items():
                at = np.searchsorted(wanted[:-1], noted)
                found[reason] += int(np.count_nonzero(wanted[at] == noted))
        return +found
