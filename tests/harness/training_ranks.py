"""Trains on a store in a process that is one rank of several, as those of torchrun are."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def train_as_rank(store: str, folder: str, variables: dict[str, str], accelerate: bool) -> None:
    """Writes the keys that a rank was given to `<folder>/<rank>`, or what went wrong there."""
    import torch
    import torch.distributed as dist

    os.environ.update(variables)
    torch.set_num_threads(1)
    out = Path(folder, variables["RANK"])
    try:
        dist.init_process_group("gloo")
        found = keys_given(store) | (keys_by_accelerate(store) if accelerate else {})
        out.write_text(json.dumps(found))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        out.write_text(traceback.format_exc())
        os._exit(1)


def keys_given(store: str) -> dict[str, Any]:
    """Keys of each batch of an epoch, of both kinds of loaders."""
    from torch.utils.data import DataLoader

    from latentcli import LatentStream

    stream: DataLoader[Any] = DataLoader(LatentStream(store, batch_size=3), batch_size=None)
    return {"buckets": train(buckets(store)), "stream": train(stream)}


def keys_by_accelerate(store: str) -> dict[str, Any]:
    """The same of two epochs of a loader that accelerate has prepared, and what it refuses."""
    import torch.distributed as dist
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(buckets(store))
    found: dict[str, Any] = {"lengths": [len(prepared), len(buckets(store))]}
    found["accelerate"] = [train(prepared) for _ in range(2)]
    found["skipped"] = [batch["key"] for batch in accelerator.skip_first_batches(prepared, 2)]
    # The first process reads for the others, or each reads all: both are found out.
    if dist.get_rank() == 0:
        ways = [(None, "fork"), (None, "spawn"), (False, "fork")]
        found["refused"] = [refused(store, *way) for way in ways]
    return found


def train(batches: Iterable[Any]) -> list[list[str]]:
    """A step for each batch; ranks that differ in number would wait for each other for ever."""
    import torch

    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Conv2d(4, 1, 1))
    keys = []
    for batch in batches:
        assert len({tuple(latent.shape) for latent in batch["latent"]}) == 1
        model(batch["latent"].float()).mean().backward()
        keys.append(batch["key"])
    return keys


def buckets(store: str) -> Any:
    """A loader with one worker."""
    from torch.utils.data import DataLoader

    from latentcli import BucketBatchSampler, LatentDataset, collate

    dataset = LatentDataset(store)
    sampler = BucketBatchSampler(dataset, 3)
    # The server that warm processes come from makes workers by default, which takes longer.
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=1,
        multiprocessing_context="fork",
    )


def refused(store: str, dispatch: bool | None, context: str) -> bool:
    """Whether a stream that accelerate prepares is an error."""
    import torch
    from accelerate.data_loader import prepare_data_loader
    from torch.utils.data import DataLoader

    from latentcli import LatentStream
    from latentcli.core.errors import UsageError

    stream: DataLoader[Any] = DataLoader(
        LatentStream(store, batch_size=3),
        batch_size=1 if dispatch is False else None,
        num_workers=1,
        multiprocessing_context=context,
    )
    prepared = prepare_data_loader(
        stream,
        put_on_device=dispatch is None,
        dispatch_batches=dispatch,
        device=torch.device("cpu"),
    )
    try:
        next(iter(prepared))
    except UsageError:
        return True
    return False
