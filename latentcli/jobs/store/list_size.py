"""Tells how many units and inputs an input list has, of a long one from its end alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from latentcli.core.errors import StoreError
from latentcli.shards.storage.paths import AnyPath, read_part
from latentcli.shards.store.input_list import InputList

READ_WHOLE = 64 * 2**20
"""Bytes of a local list that are read; of a longer one, or a remote one, the end is."""
END = 2**20


@dataclass(frozen=True, slots=True)
class ListSize:
    """How much there is to encode."""

    units: int
    inputs: int
    exact: bool
    """Whether all of the list was read: else units that have lost their inputs count too."""


def list_size(path: AnyPath, size: int, per_unit: int) -> ListSize:
    """The units and inputs of a list of `size` bytes; StoreError where it is damaged.

    From the end alone, every unit before the last counts as one of `per_unit` inputs.
    """
    if isinstance(path, Path) and size <= READ_WHOLE:
        inputs = InputList.open(path)
        return ListSize(len(inputs.numbers), len(inputs), True)
    data = bytes(read_part(path, max(size - END, 0), size))
    lines = data.splitlines()[size > END :]
    try:
        units = [int(json.loads(line)["unit"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged: its end is not a row of an input list.") from error
    if not units:
        return ListSize(0, 0, size <= END)
    last = units[-1]
    of_last = per_unit if units[0] == last else Counter(units)[last]
    return ListSize(last + 1, last * per_unit + of_last, False)
