"""Tells which inputs of a store are gone or changed since they were encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentcli.core.types import InputRow
from latentcli.jobs.loader.readers import is_lasting
from latentcli.shards.layout import INPUTS
from latentcli.shards.sources.digests import digests_of
from latentcli.shards.storage.paths import AnyPath, is_remote, path_of
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.roots import below
from latentcli.shards.store.unit_state import UnitState, unit_states

EXAMPLES = 5
"""Sources named of each kind."""


@dataclass(slots=True)
class SourceState:
    """What has become of the inputs of a store."""

    missing_roots: list[str] = field(default_factory=list)
    """Folders of the inputs that are not there: nothing is known of what is in them."""
    gone: int = 0
    unknown: int = 0
    """Inputs of which the store, one without its sources.json, does not say where they lie."""
    changed: int | None = None
    """None where that was not looked at."""
    examples: dict[str, list[str]] = field(default_factory=lambda: {"gone": [], "changed": []})

    def note(self, kind: str, source: str) -> None:
        """Counts an input."""
        setattr(self, kind, (getattr(self, kind) or 0) + 1)
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(source)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "missing_roots": self.missing_roots,
            "gone": self.gone,
            "unknown": self.unknown,
            "changed": self.changed,
            "gone_examples": self.examples["gone"],
            "changed_examples": self.examples["changed"],
        }


def state_of_sources(store: AnyPath, manifest: Manifest, *, changes: bool = False) -> SourceState:
    """Looks at every input of a store where it lies; with `changes`, reads those that look new.

    An input has changed where it has another size, or another time and other bytes. StoreError
    where the list of inputs cannot be read.
    """
    inputs = InputList.open(store / INPUTS)
    found = SourceState(changed=0 if changes else None)
    there = _known(inputs, found)
    for state in unit_states(store, manifest.spec_hash, inputs):
        suspects = list(_suspects(state, there, found))
        if changes:
            digests = digests_of(row.source for row, _ in suspects)
            for (row, before), now in zip(suspects, digests, strict=True):
                if before is None or now != before:
                    found.note("changed", row.source)
    return found


def _known(inputs: InputList, found: SourceState) -> dict[str, tuple[int, int]]:
    """Sizes and times of the remote inputs, from one listing of each root; notes missing roots."""
    there = dict[str, tuple[int, int]]()
    for root in inputs.roots.paths:
        path = path_of(root)
        if isinstance(path, Path):
            found.missing_roots += [] if path.exists() else [root]
            continue
        listed = {str(file): (info.st_size, info.st_mtime_ns) for file, info in path.find()}
        found.missing_roots += [] if listed else [root]
        there |= listed
    return there


def _suspects(
    state: UnitState, there: Mapping[str, tuple[int, int]], found: SourceState
) -> Iterator[tuple[InputRow, str | None]]:
    """Inputs of a unit that may have changed, with their digests; those that are gone are noted."""
    digests = state.digests if state.record is not None else [None] * len(state.inputs)
    for row, digest in zip(state.inputs, digests, strict=True):
        away = any(below(root, row.source) is not None for root in found.missing_roots)
        if away or not is_lasting(row.source):
            continue
        if not is_remote(row.source) and not Path(row.source).is_absolute():
            found.unknown += 1
            continue
        now = there.get(row.source) if is_remote(row.source) else _stat(row.source)
        if now is None:
            found.note("gone", row.source)
        elif state.record is not None and now != (row.size, row.mtime_ns):
            yield row, digest


def _stat(source: str) -> tuple[int, int] | None:
    try:
        info = Path(source).stat()
    except (OSError, ValueError):
        return None
    return info.st_size, info.st_mtime_ns
