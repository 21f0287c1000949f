"""Reads the samples of a store one after the other, in the state that a format wants.

Samples of a unit are brought to it together: a tensor's own overhead, a hundred thousand times, is
what an export would take most of its time for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from posixpath import basename, splitext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from latentcli.core.errors import StoreError
from latentcli.core.posterior import LOGVAR_RANGE, GaussianPosterior, Posterior, posterior_of
from latentcli.core.types import Row
from latentcli.exports.format import ExportSample, Moments, Setting
from latentcli.exports.serialise import DTYPES
from latentcli.jobs.export.labels import Label
from latentcli.jobs.store.latent_store import LatentStore, latent_of

FLIP = "_flip"
PARTS = ("latent", "mean", "logvar", "logsnr")
"""What a latent is made of."""
BATCH = 256
"""Samples that are converted together at most."""
BATCH_BYTES = 1 << 20
"""That their latents take in float32, as far as one does not take more."""

Parts = Mapping[str, Tensor]


class Place(NamedTuple):
    """The samples of a unit among all."""

    unit: int
    first: int
    samples: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How the samples of a store are read."""

    store: LatentStore
    places: Sequence[Place]
    setting: Setting
    label: Label
    needs: frozenset[str]
    """What the format cannot do without."""
    sample: int | None
    """Seed of posterior samples; None takes the mode."""
    packed: bool
    """Whether inputs are packed in tars or tables, so that a source names no picture."""
    largest: tuple[int, int] = (0, 0)
    """(h, w) of the latents that have the most cells."""
    fields: bool = True
    """Whether captions and other fields are read."""

    def samples(self, start: int = 0) -> Iterator[ExportSample]:
        """Those from `start` on, in the order of the input list; units before are not read."""
        for place in self.places:
            at = max(start - place.first, 0)
            if at >= place.samples:
                continue
            rows = [row for row in self.store.unit_rows(place.unit) if row.status == "ok"]
            keys = [row.key for row in rows] if self.fields else []
            fields = self.store.unit_fields(place.unit, keys) if keys else {}
            while at < len(rows):
                batch = rows[at : at + batch_size(rows[at])]
                yield from self.batch(batch, place.unit, place.first + at, fields)
                at += len(batch)
            self.store.let_go(place.unit)

    def batch(
        self, rows: Sequence[Row], unit: int, index: int, fields: Mapping[str, dict[str, Any]]
    ) -> Iterator[ExportSample]:
        """The samples of some rows of a unit.

        StoreError where a latent is damaged or not finite, or lacks a class that is needed.
        """
        latents = self.converted(
            [(row.key, self.store.parts(row.key, unit, copy=False)) for row in rows]
        )
        for at, row in enumerate(rows):
            own = fields.get(row.key, {})
            yield ExportSample(
                key=row.key,
                name=name_of(row, self.packed),
                filename=basename(row.source.rpartition("::")[2]),
                index=index + at,
                **latents[at],
                original_size=row.original_size or (0, 0),
                resized_size=row.resized_size or (0, 0),
                crop=row.crop or (0, 0, 0, 0),
                caption=str(own.get("caption", "")),
                fields=own,
                label=self._label(row.key, own),
                picture="" if self.packed else row.source,
            )

    def _label(self, key: str, fields: Mapping[str, Any]) -> int | None:
        label = self.label(key, fields)
        if label is None and "labels" in self.needs:
            raise StoreError(
                f"{key!r} has no class, and this format needs one for each sample. --labels folder"
                " takes the first folders of the names instead."
            )
        return label

    def converted(self, samples: Sequence[tuple[str, Parts]]) -> list[dict[str, Any]]:
        """For each sample its latent, and whatever else of tensors the format wants of it."""
        alike: dict[Any, list[int]] = {}
        for at, (_, parts) in enumerate(samples):
            signature = tuple((name, part.shape, part.dtype) for name, part in parts.items())
            alike.setdefault(signature, []).append(at)
        found: list[dict[str, Any]] = [{} for _ in samples]
        for places in alike.values():
            keys = [samples[at][0] for at in places]
            for end, names in (("", ("latent", "moments")), (FLIP, MIRRORED)):
                stacked = stack([samples[at][1] for at in places], end)
                if stacked:
                    latents, moments = self._of_one_size(keys, stacked, end)
                    for i, at in enumerate(places):
                        found[at][names[0]] = latents[i]
                        if moments is not None:
                            found[at][names[1]] = Moments(*(part[i] for part in moments))
        return found

    def _of_one_size(
        self, keys: Sequence[str], parts: Parts, what: str
    ) -> tuple[Tensor, Moments | None]:
        """Latents [N, C, h, w] of parts [N, C, h, w], and the moments where they are needed."""
        latents = latent_of(parts)
        if self.sample is not None:
            shape = latents.shape[1:]
            draws = [torch.randn(shape, generator=noise_of(self.sample, k + what)) for k in keys]
            latents = posterior_of(parts).sample(torch.stack(draws))
        latents = self.store.in_state(latents, self.setting.state)
        self._check_finite(keys, latents)
        return latents, spread(parts) if "moments" in self.needs else None

    def _check_finite(self, keys: Sequence[str], latents: Tensor) -> None:
        dtype = DTYPES[self.setting.dtype]
        # Rounding keeps the order, and what is no number comes through: two values tell of all.
        if torch.stack(latents.aminmax()).to(dtype).isfinite().all():
            return
        finite = latents.to(dtype).isfinite().flatten(1).all(1).tolist()
        key = next(key for key, sound in zip(keys, finite, strict=True) if not sound)
        raise StoreError(
            f"The latent of {key!r} has values that {self.setting.dtype} cannot hold as"
            f" {self.setting.state} latents; nothing of it was written. Use --dtype float32."
        )


MIRRORED = ("mirrored", "mirrored_moments")
"""The names that what is of mirrored pictures has in a sample."""


def batch_size(row: Row) -> int:
    """How many samples like this one are converted together."""
    values = 1
    for side in row.latent_shape or ():
        values *= side
    return max(1, min(BATCH, BATCH_BYTES // (4 * values)))


def stack(samples: Sequence[Parts], end: str) -> dict[str, Tensor]:
    """The parts of samples that are alike, [N, C, h, w]; those whose names end so, without that."""
    names = [name for name in PARTS if f"{name}{end}" in samples[0]]
    return {name: torch.stack([parts[f"{name}{end}"] for parts in samples]) for name in names}


def noise_of(seed: int, key: str) -> torch.Generator:
    """A generator that depends on the seed and the sample alone, and not on the order."""
    digest = hashlib.sha256(f"{seed}/{key}".encode("utf-8", "surrogatepass")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def spread(parts: Parts) -> Moments:
    """Mean, standard deviation and log-variance of raw latents, float32."""
    posterior = posterior_of(parts)
    if isinstance(posterior, Posterior):
        logvar = logsigmoid(-posterior.logsnr.float())
        return Moments(posterior.mode(), posterior.sigma, logvar)
    if not isinstance(posterior, GaussianPosterior):
        raise ValueError("a point has no spread")
    logvar = posterior.logvar.float()
    return Moments(posterior.mode(), torch.exp(logvar.clamp(*LOGVAR_RANGE) / 2), logvar)


def name_of(row: Row, packed: bool) -> str:
    """What the picture is called below its source, without its last suffix; of a tar's, its key."""
    if packed:
        return row.key
    # Keys differ from names where two pictures have one name but for the suffix.
    folder = row.key.rpartition("/")[0]
    stem = splitext(basename(row.source))[0]
    return f"{folder}/{stem}" if folder else stem
