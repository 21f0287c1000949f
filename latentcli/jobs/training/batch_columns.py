"""Reads samples of one size at once, column by column: each [N, ...], or a list of N."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentcli.core.fields import CAPTION
from latentcli.core.posterior import posterior_of
from latentcli.jobs.loader.clip_frames import fractions_of
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.jobs.training.draws import Draw
from latentcli.jobs.training.sample_index import Places, SampleIndex

TOKEN = "class_token"
"""A part that an item has under its own name, where the store has it."""
FLIP = "_flip"
"""What the names of parts of the mirrored picture end in."""
FLIPS = ("random", "both", "none")
"""Of a picture and its mirror image, one is drawn, both are given, or the picture itself."""
_MOMENTS = ("mean", "logsnr", "logvar")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is read of a sample, and what becomes of it; as the options of LatentDataset."""

    state: str | None
    dtype: torch.dtype | None
    sample: bool
    flip: str
    captions: bool
    fields: bool


class Samples:
    """Some samples of one latent size."""

    def __init__(
        self,
        index: SampleIndex,
        places: Places,
        source: LatentStore,
        draws: Callable[[], list[Draw]],
    ) -> None:
        """`source` has their shards, `draws` gives the draw of each."""
        self.keys, self._units = index.keys.at(places), index.units[places].tolist()
        self._geometry = index.geometry(places)
        self._source, self._draws = source, draws
        self._names = source.part_names(self.keys[0], self._units[0])

    def columns(self, wanted: Wanted, convert: Callable[[Tensor, str], Tensor]) -> dict[str, Any]:
        """All that the items have, by name; `convert` brings latents to a state."""
        original, resized, crop = self._geometry
        found: dict[str, Any] = {"key": self.keys, "original_size": original}
        found |= {"resized_size": resized, "crop": crop}
        drawn = [False] * len(self.keys)
        if self._has_mirrors and wanted.flip == "random":
            drawn = [draw.coin() for draw in self._draws()]
            found["flipped"] = flipped = torch.tensor(drawn)
            found["crop"] = mirrored_crops(crop, resized, flipped)
        parts = self._parts(wanted, drawn)
        found["latent"] = self._latents(parts, wanted, convert)
        if TOKEN in parts:
            found[TOKEN] = parts[TOKEN]
        if "times" in parts:
            found["seconds"] = seconds(parts["times"], parts["clock"])
        if self._has_mirrors and wanted.flip == "both":
            mirrored = self._parts(wanted, [True] * len(self.keys))
            found["latent_flip"] = self._latents(mirrored, wanted, convert)
            if TOKEN + FLIP in self._names:
                found[TOKEN + FLIP] = mirrored[TOKEN]
        return found | self._texts(wanted)

    @property
    def _has_mirrors(self) -> bool:
        return any(name.endswith(FLIP) for name in self._names)

    def _parts(self, wanted: Wanted, mirrored: Sequence[bool]) -> dict[str, Tensor]:
        """The parts of each sample, or of its mirror image; no others are read."""
        own = [name for name in self._names if not name.endswith(FLIP)]
        if not wanted.sample and "logvar" in own:
            own.remove("logvar")  # of which the mode does not depend
        names = {
            name: [name + FLIP if one else name for one in mirrored]
            if name + FLIP in self._names
            else [name] * len(mirrored)
            for name in own
        }
        return self._source.stacked_parts(self.keys, self._units, names)

    def _latents(
        self, parts: dict[str, Tensor], wanted: Wanted, convert: Callable[[Tensor, str], Tensor]
    ) -> Tensor:
        latents = parts["latent"] if "latent" in parts else self._points(parts, wanted.sample)
        if wanted.state is not None:
            latents = convert(latents, wanted.state)
        return latents if wanted.dtype is None else latents.to(wanted.dtype)

    def _points(self, parts: dict[str, Tensor], sample: bool) -> Tensor:
        """Modes or samples of posteriors, float32.

        Each is computed by itself: the last bit of an exponential depends on where in the batch a
        number stands, and an item must not depend on those that it is read with.
        """
        moments = {name: part.unbind() for name, part in parts.items() if name in _MOMENTS}
        rows = zip(*moments.values(), strict=True)
        posteriors = [posterior_of(dict(zip(moments, row, strict=True))) for row in rows]
        if not sample:
            return torch.stack([posterior.mode() for posterior in posteriors])
        pairs = zip(posteriors, self._draws(), strict=True)
        return torch.stack([one.sample(generator=draw.generator()) for one, draw in pairs])

    def _texts(self, wanted: Wanted) -> dict[str, Any]:
        if not (wanted.captions or wanted.fields):
            return {}
        fields = self._source.fields_of(self.keys, self._units)
        # Text in every item: a batch is made of equal types.
        texts = {"caption": [own.get(CAPTION, "") for own in fields]} if wanted.captions else {}
        return texts | ({"fields": fields} if wanted.fields else {})


def mirrored_crops(crops: Tensor, sizes: Tensor, mirrored: Tensor) -> Tensor:
    """Crops [N, 4] (left, top, right, bottom) of pictures of `sizes` [N, 2], in their mirror image.

    Of those alone that are `mirrored` [N].
    """
    left, top, right, bottom = crops.unbind(1)
    width = sizes[:, 0]
    others = torch.stack([width - right, top, width - left, bottom], dim=1)
    return torch.where(mirrored[:, None], others, crops)


def seconds(times: Tensor, clocks: Tensor) -> Tensor:
    """When each frame of each clip is shown, float64 [N, T]; of times [N, T] and clocks [N, 4]."""
    ticks = [float(fractions_of(clock)[1]) for clock in clocks]
    return times.double() * torch.tensor(ticks, dtype=torch.float64)[:, None]
