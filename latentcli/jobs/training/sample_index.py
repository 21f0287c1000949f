"""Lists the samples of a store compactly: keys, units, sizes and geometry, in arrays.

Millions of small Python objects would be copied into each worker process one page at a time, as
soon as it counts its references to them; arrays are shared.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentcli.core.types import Row

Places = npt.NDArray[np.int64]
"""Places of samples in the store's order."""
_GEOMETRY = 2 + 2 + 4
"""Numbers of a sample's original size, resized size and crop."""


class Keys(Sequence[str]):
    """Keys in one piece of memory: their UTF-8 bytes, and 8 more for each."""

    def __init__(self, keys: Iterable[str]) -> None:
        encoded = [key.encode() for key in keys]
        self._text = b"".join(encoded)
        self._ends = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self.key(place) for place in places]
        return self.key(places)

    def __iter__(self) -> Iterator[str]:
        return map(self.key, range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether another sequence, such as a list, has the same keys."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def at(self, places: Places) -> list[str]:
        """The keys of places, which must be some of those from 0 on."""
        begins, ends = self._ends[places].tolist(), self._ends[places + 1].tolist()
        spans = zip(begins, ends, strict=True)
        return [self._text[begin:end].decode() for begin, end in spans]

    def key(self, place: int) -> str:
        """The key of a place, which must be one of those from 0 on."""
        return self._text[self._ends[place] : self._ends[place + 1]].decode()


class SampleIndex:
    """The samples that have latents, by their place in the store's order."""

    def __init__(self, rows: Iterable[tuple[int, Sequence[Row]]]) -> None:
        """`rows` are those of each unit, with its number."""
        units, geometry, ids = array("i"), array("i"), array("i")
        known: dict[tuple[int, ...], int] = {}

        def keys() -> Iterator[str]:
            for unit, of_unit in rows:
                for row in of_unit:
                    if row.status == "ok":
                        units.append(unit)
                        geometry.extend(_geometry(row))
                        shape = tuple(row.latent_shape or ())
                        ids.append(known.setdefault(shape, len(known)))
                        yield row.key

        self.keys = Keys(keys())
        self.units: npt.NDArray[np.int32] = np.array(units, np.int32)
        """Unit of each sample."""
        self.shape_ids: npt.NDArray[np.int32] = np.array(ids, np.int32)
        """Place of each sample's latent shape in `shapes`."""
        self.shapes = tuple(known)
        """The shapes of latents that there are: (C, h, w), of clips (T, C, h, w)."""
        self._geometry = np.array(geometry, np.int32).reshape(-1, _GEOMETRY)

    def __len__(self) -> int:
        return len(self.keys)

    def unit(self, place: int) -> int:
        """The unit of a sample."""
        return self.units.item(place)

    def geometry(self, places: Places) -> tuple[Tensor, Tensor, Tensor]:
        """Original sizes [N, 2], resized sizes [N, 2] and crops [N, 4] of samples, int64.

        Zeros where they are not known.
        """
        rows = self._geometry[places]
        parts = np.split(rows, (2, 4), axis=1)
        original, resized, crop = (torch.from_numpy(part.astype(np.int64)) for part in parts)
        return original, resized, crop


def _geometry(row: Row) -> tuple[int, ...]:
    """(W, H) of the picture, (W, H) after the resize, and the crop (l, t, r, b)."""
    return (
        *(row.original_size or (0, 0)),
        *(row.resized_size or (0, 0)),
        *(row.crop or (0, 0, 0, 0)),
    )
