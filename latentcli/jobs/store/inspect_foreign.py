"""Describes the latents of another tool: whose they are, how many, and what their values are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import SampleError, UsageError
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.latents.stats import ChannelSums
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.foreign.folder import ForeignFolder, below, open_foreign_set
from latentcli.shards.tensors.foreign.latents import ForeignLatent

NAMED = 10
"""Keys or problems that are named."""
ADVICE = "Write these files again with the tool that made them, or remove them."


def inspect_foreign(
    path: AnyPath, report: str | None = None, reporter: Reporter = SILENT
) -> dict[str, Any] | None:
    """The --json document of `inspect` for another tool's file or folder; None for anything else.

    All latents are read, one at a time. UsageError where a `report` is asked for; StoreError and
    UsageError as `open_foreign_folder`.
    """
    found = open_foreign_set(path, None)
    if found is None:
        return None
    if report is not None:
        raise UsageError(
            f"--report is for stores, and {path} holds latents of {found.format}; leave it out."
        )
    meter = Meter("inspect", found.count, reporter.progress, noun="latents")
    meter.begin()
    values = ForeignValues()
    for block in found.blocks:
        for latent in found.latents(block):
            values.add(latent)
            meter.advance(1)
    return document(path, found, values)


@dataclass(slots=True)
class ForeignValues:
    """Running figures of latents that come one at a time."""

    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    dtypes: Counter[str] = field(default_factory=Counter)
    sums: ChannelSums = field(default_factory=ChannelSums)
    least: Tensor | None = None
    """Per channel, as `most`; of finite latents alone."""
    most: Tensor | None = None
    spoiled: list[str] = field(default_factory=list)
    """Keys of latents with values that are not finite; the first ones."""
    spoiled_count: int = 0
    problems: list[str] = field(default_factory=list)
    """Why latents could not be read; the first ones."""
    unread: int = 0

    def add(self, latent: ForeignLatent) -> None:
        """Reads a latent and takes it in."""
        try:
            values = latent.load()
            self._take(latent.key, values)
        except (SampleError, ValueError) as error:
            self.unread += 1
            if len(self.problems) < NAMED:
                self.problems.append(f"{latent.key}: {error}")

    def _take(self, key: str, values: Tensor) -> None:
        if self.least is not None and len(self.least) != len(values):
            raise ValueError(f"it has {len(values)} channels, those before {len(self.least)}")
        if 0 in values.shape:
            raise ValueError(f"it is {list(values.shape)}, and has no values")
        self.sizes[tuple(values.shape)] += 1
        self.dtypes[str(values.dtype).removeprefix("torch.")] += 1
        if not bool(values.isfinite().all()):
            self.spoiled_count += 1
            if len(self.spoiled) < NAMED:
                self.spoiled.append(key)
            return
        self.sums.add(values[None])
        flat = values.float().flatten(1)
        least, most = flat.amin(1), flat.amax(1)
        self.least = least if self.least is None else torch.minimum(self.least, least)
        self.most = most if self.most is None else torch.maximum(self.most, most)

    def channels(self) -> dict[str, list[float]] | None:
        """Mean, std, min and max of each channel; None where no latent is sound."""
        means = self.sums.summary()
        if means is None or self.least is None or self.most is None:
            return None
        return means | {"min": self.least.tolist(), "max": self.most.tolist()}


def document(path: AnyPath, found: ForeignFolder, values: ForeignValues) -> dict[str, Any]:
    """The --json document."""
    bad = values.unread + values.spoiled_count
    problems = [
        *values.problems,
        *(f"{key}: it has values that are not finite" for key in values.spoiled),
    ]
    return {
        "store": str(path),
        "format": found.format,
        "media": "images",
        "latent_space": None if found.space is None else f"{found.space}#{found.state}",
        "state": found.state,
        "encoded": values.sizes.total(),
        "failed": values.unread,
        "files": len(found.names),
        "bytes": sum(below(found.path, name).stat().st_size for name in found.names),
        "dtypes": dict(values.dtypes.most_common()),
        "latent_sizes": {"x".join(map(str, k)): n for k, n in values.sizes.most_common()},
        "channels": values.channels(),
        "not_finite": {"count": values.spoiled_count, "keys": values.spoiled},
        "damaged": {"count": bad, "problems": problems[:NAMED]},
        "missing": 0,
        "incomplete": f"{bad:,} of its latents cannot be used: {problems[0]}" if bad else None,
        "advice": ADVICE if bad else None,
    }
