"""A latent store as a torch dataset for a training loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentcli.core.errors import UsageError
from latentcli.core.posterior import Posterior
from latentcli.jobs.store import LatentStore, latent_of


class LatentDataset(Dataset[dict[str, Any]]):
    """Items {"key", "latent" [C, h, w], "original_size" (W, H), "crop" (l, t, r, b)}.

    `dtype` casts the latents (None keeps the stored bfloat16). `sample=True` draws a fresh
    posterior sample at every access, which needs a store made with --latents moments. `transform`
    is called on each item.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: torch.dtype | None = None,
        sample: bool = False,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self.store = LatentStore(path)
        if sample and self.store.state != "moments":
            raise UsageError(
                f"{path} holds {self.store.state} latents; only a store made with"
                " --latents moments can be sampled from."
            )
        self.keys = list(self.store.keys())
        self.dtype = dtype
        self.sample = sample
        self.transform = transform

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Any:
        key = self.keys[index]
        row = self.store.row(key)
        item = {
            "key": key,
            "latent": self._latent(key),
            "original_size": row.original_size,
            "crop": row.crop,
        }
        return item if self.transform is None else self.transform(item)

    def _latent(self, key: str) -> Tensor:
        parts = self.store.parts(key)
        if self.sample:
            latent = Posterior(parts["mean"], parts["logsnr"]).sample()
        else:
            latent = latent_of(parts)
        return latent if self.dtype is None else latent.to(self.dtype)
