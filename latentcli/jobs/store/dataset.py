"""Reads a latent store as a torch dataset for a training loop."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentcli.core.errors import IncompleteStore, UsageError
from latentcli.core.fields import CAPTION
from latentcli.core.posterior import posterior_of
from latentcli.core.types import Row
from latentcli.jobs.loader.clip_frames import fractions_of
from latentcli.jobs.store.latent_store import LatentStore, latent_of
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.presence import AGAIN

BESIDE = ("class_token", "class_token_flip")
"""Parts that an item has under their own names, where the store has them."""
FLIP = "_flip"
"""What the names of parts of the mirrored picture end in."""
GEOMETRY = 6
"""Integers kept per sample: original W and H, and the crop's four."""


class LatentDataset(Dataset[dict[str, Any]]):
    """Items {"key", "latent" [C, h, w], "original_size" (W, H), "crop" (l, t, r, b), "caption"}.

    "caption" is text, "" where a sample has none. With `fields` an item has "fields" besides, all
    that is known of the sample by name; `captions=False` leaves "caption" out.

    "class_token" [features], float32, and "latent_flip" [C, h, w], of the mirrored picture, are
    there where the store has them. Of a clip, "latent" is [T, C, h, w] and "seconds" [T], float64,
    says when each frame is shown.

    `dtype` casts the latents (None keeps the stored bfloat16). `sample=True` draws a fresh
    posterior sample at every access, which needs a store made with --latents moments. `transform`
    is called on each item. Random access is cheap: shards are mapped, records are read once, here.

    `check="open"` compares each shard's sha256 with its commit record before its first use in a
    process, which reads it once more. A store with damaged or missing units, or that a job still
    writes to, is an IncompleteStore error unless `allow_partial` takes the latents that are there.
    """

    def __init__(
        self,
        path: str | AnyPath,
        *,
        dtype: torch.dtype | None = None,
        sample: bool = False,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        captions: bool = True,
        fields: bool = False,
        check: str = "none",
        allow_partial: bool = False,
    ) -> None:
        self.store = LatentStore(path, check)
        if sample and self.store.state != "moments":
            raise UsageError(
                f"{path} holds {self.store.state} latents; only a store made with"
                " --latents moments can be sampled from."
            )
        self.keys: list[str] = []
        self._units, self._geometry = array("i"), array("i")
        for unit, rows in self.store.rows_by_unit():
            for row in rows:
                if row.status == "ok":
                    self.keys.append(row.key)
                    self._units.append(unit)
                    self._geometry.extend(geometry(row))
        # Only now it is known whether all records can be read.
        if not allow_partial:
            refuse_partial(self.store)
        self.dtype = dtype
        self.sample = sample
        self.transform = transform
        self.captions = captions
        self.fields = fields

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Any:
        index = range(len(self))[index]
        width, height, *crop = self._geometry[GEOMETRY * index : GEOMETRY * (index + 1)]
        parts = self.store.parts(self.keys[index], self._units[index])
        item = {
            "key": self.keys[index],
            "latent": self._latent(parts),
            "original_size": (width, height),
            "crop": tuple(crop),
        }
        mirrored = {n.removesuffix(FLIP): part for n, part in parts.items() if n.endswith(FLIP)}
        if mirrored:
            item["latent_flip"] = self._latent(mirrored)
        item |= {name: parts[name] for name in BESIDE if name in parts}
        if "times" in parts:
            item["seconds"] = parts["times"].double() * float(fractions_of(parts["clock"])[1])
        if self.captions or self.fields:
            item |= self._texts(self.keys[index], self._units[index])
        return item if self.transform is None else self.transform(item)

    def _texts(self, key: str, unit: int) -> dict[str, Any]:
        fields = self.store.fields(key, unit)
        # Text in every item: a batch is made of equal types.
        texts = {"caption": fields.get(CAPTION, "")} if self.captions else {}
        return texts | ({"fields": fields} if self.fields else {})

    def _latent(self, parts: Mapping[str, Tensor]) -> Tensor:
        latent = posterior_of(parts).sample() if self.sample else latent_of(parts)
        return latent if self.dtype is None else latent.to(self.dtype)


def refuse_partial(store: LatentStore) -> None:
    """IncompleteStore where some of the store's latents are damaged or missing."""
    there = store.look_closely() if store.misses_fields() else store.presence
    if there.is_whole:
        return
    gone = there.unreadable + there.missing
    count = f", {gone:,} of {len(store) + gone:,} samples are missing" if gone else ""
    raise IncompleteStore(
        f"{store.path} is not whole{count} ({there.describe()}). {AGAIN} allow_partial=True takes"
        f" the {len(store):,} latents that are there."
    )


def geometry(row: Row) -> tuple[int, ...]:
    """Original size and crop of a row; zeros in a single shard, which does not know them."""
    return (*(row.original_size or (0, 0)), *(row.crop or (0, 0, 0, 0)))
