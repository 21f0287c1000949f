"""Makes a batch of items: tensors are stacked, texts and fields are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from latentcli.core.errors import UsageError
from latentcli.jobs.training.batch_memory import whole

_SHOWN = 3


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A batch of items of a LatentDataset or LatentStream, for DataLoader(collate_fn=...).

    Tensors [...] become one [N, ...], texts a list of N, and `fields` a list of N dicts, whatever
    is in them. Other values are as in torch's own default_collate. UsageError where the tensors of
    one name differ in size, or the items differ in what they have.
    """
    if not items:
        raise UsageError("There are no items to make a batch of.")
    names = items[0].keys()
    for item in items:
        if item.keys() != names:
            odd = ", ".join(sorted(names ^ item.keys()))
            raise UsageError(f"Not all items of a batch have {odd}: {_keys([items[0], item])}.")
    return {name: _column(name, [item[name] for item in items], items) for name in names}


def _column(name: str, values: list[Any], items: Sequence[Mapping[str, Any]]) -> Any:
    if name == "fields" or isinstance(values[0], str):
        return values
    if not isinstance(values[0], Tensor):
        return default_collate(values)
    try:
        # In a worker torch's own collate puts the batch where the loop's process can see it.
        if get_worker_info() is not None:
            return default_collate(values)
        found = whole(values)
        return torch.stack(values) if found is None else found
    except RuntimeError:
        # Sizes are looked at where they matter alone: this is called for each batch.
        _check_sizes(name, values, items)
        raise


def _check_sizes(name: str, values: list[Tensor], items: Sequence[Mapping[str, Any]]) -> None:
    first: dict[tuple[int, ...], Mapping[str, Any]] = {}
    for value, item in zip(values, items, strict=True):
        first.setdefault(tuple(value.shape), item)
    if len(first) == 1:
        return
    shown = [f"{_keys([item])} has {list(shape)}" for shape, item in list(first.items())[:_SHOWN]]
    more = f" and {len(first) - _SHOWN} more" if len(first) > _SHOWN else ""
    raise UsageError(
        f"The {name} of one batch must have one size: {', '.join(shown)}{more}. Give the loader"
        " batch_sampler=latentcli.BucketBatchSampler(dataset, batch_size), which makes batches of"
        " one size, or encode with --size."
    )


def _keys(items: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(repr(item.get("key", "an item")) for item in items)
