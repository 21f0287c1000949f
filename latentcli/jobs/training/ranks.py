"""Finds out which of several training processes this one is."""

from __future__ import annotations

import os

from latentcli.core.errors import UsageError


def ranks(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """(number of ranks, this one's), as given, else those of torch.distributed, else of the job.

    The last are the variables WORLD_SIZE and RANK, as torchrun and accelerate set them; without
    them there is one rank. UsageError for one number without the other, or numbers that do not go
    together.
    """
    if (num_replicas is None) != (rank is None):
        raise UsageError("num_replicas and rank go together: give both or neither.")
    count, own = _found() if num_replicas is None or rank is None else (num_replicas, rank)
    if not 0 <= own < count:
        raise UsageError(f"rank is {own} of {count} ranks; it counts from 0 to num_replicas - 1.")
    return count, own


def _found() -> tuple[int, int]:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size(), dist.get_rank()
    try:
        return int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE and RANK are {os.environ.get('WORLD_SIZE')!r} and"
            f" {os.environ.get('RANK')!r}, which are not whole numbers: give num_replicas and"
            " rank."
        ) from error


class UnequalRanks(RuntimeWarning):
    """Some ranks have more batches in an epoch than others."""
