"""Reads the samples of a store one after the other, in the state that a format wants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from torch import Tensor

from latentcli.core.errors import StoreError
from latentcli.core.posterior import posterior_of
from latentcli.core.types import Row
from latentcli.exports.format import ExportSample, Setting
from latentcli.exports.serialise import DTYPES
from latentcli.jobs.export.labels import Label
from latentcli.jobs.store.latent_store import LatentStore, latent_of

FLIP = "_flip"


@dataclass(frozen=True, slots=True)
class Reading:
    """How the samples of a store are read."""

    store: LatentStore
    setting: Setting
    label: Label
    moments: bool
    """Whether the format needs mean and deviation."""
    sample: int | None
    """Seed of posterior samples; None takes the mode."""
    packed: bool
    """Whether inputs are packed in tars or tables, so that a source names no picture."""

    def samples(self, start: int = 0) -> Iterator[ExportSample]:
        """Those from `start` on, in the order of the input list; units before are not read."""
        index = 0
        for unit, rows in self.store.rows_by_unit():
            ok = [row for row in rows if row.status == "ok"]
            if index + len(ok) > start:
                for i, row in enumerate(ok, index):
                    if i >= start:
                        yield self.sample_of(row, unit, i)
            index += len(ok)

    def sample_of(self, row: Row, unit: int, index: int) -> ExportSample:
        """The sample of a row; StoreError where its latent is damaged or not finite."""
        parts = self.store.parts(row.key, unit)
        mirrored = {n.removesuffix(FLIP): part for n, part in parts.items() if n.endswith(FLIP)}
        fields = self.store.fields(row.key, unit)
        return ExportSample(
            key=row.key,
            name=name_of(row, self.packed),
            filename=PurePosixPath(row.source.rpartition("::")[2]).name,
            index=index,
            latent=self._latent(row.key, parts, ""),
            mirrored=self._latent(row.key, mirrored, FLIP) if mirrored else None,
            moments=spread(parts) if self.moments else None,
            mirrored_moments=spread(mirrored) if self.moments and mirrored else None,
            original_size=row.original_size or (0, 0),
            resized_size=row.resized_size or (0, 0),
            crop=row.crop or (0, 0, 0, 0),
            caption=str(fields.get("caption", "")),
            fields=fields,
            label=self.label(row.key, fields),
            picture="" if self.packed else row.source,
        )

    def _latent(self, key: str, parts: Mapping[str, Tensor], what: str) -> Tensor:
        latent = latent_of(parts)
        if self.sample is not None:
            latent = posterior_of(parts).sample(generator=noise_of(self.sample, key + what))
        latent = self.store.in_state(latent, self.setting.state)
        if not latent.to(DTYPES[self.setting.dtype]).isfinite().all():
            raise StoreError(
                f"The latent of {key!r} has values that {self.setting.dtype} cannot hold as"
                f" {self.setting.state} latents; nothing of it was written. Take --dtype float32."
            )
        return latent


def noise_of(seed: int, key: str) -> torch.Generator:
    """A generator that depends on the seed and the sample alone, and not on the order."""
    digest = hashlib.sha256(f"{seed}/{key}".encode("utf-8", "surrogatepass")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def spread(parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the raw latent, float32."""
    posterior = posterior_of(parts)
    mode = posterior.mode()
    return mode, posterior.sample(torch.ones_like(mode)) - mode


def name_of(row: Row, packed: bool) -> str:
    """What the picture is called below its source, without its last suffix; of a tar's, its key."""
    if packed:
        return row.key
    # Keys differ from names where two pictures have one name but for the suffix.
    return str(PurePosixPath(row.key).parent / PurePosixPath(row.source).stem)
