"""Computes networks of convolutions tile by tile, each with the halo that its layers look into.

The halo is not declared: it follows from the kernels, strides and paddings of the layers. What lies
beyond a picture's edge is padding for a tile as it is for the whole, so a tile gives the same
values up to the rounding of another shape. A layer that sees the whole picture, such as a group
norm, stands between two runs of tiles and is computed whole: there, features are small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from latentcli.models import effvit
from latentcli.models.tiled.room import Room, no_part_fits, spans
from latentcli.models.tiny_network import TinyBlock

Span = tuple[int, int]
"""First and one past the last of some rows, or columns."""
Measure = Callable[[Callable[[], Tensor]], tuple[Tensor, int]]
"""What a call gives, and the most bytes that its tensors took at once."""


@dataclass(frozen=True, slots=True)
class Window:
    """What one layer does to rows and, alike, to columns."""

    needs: Callable[[Span], Span]
    """Output rows to the input rows that they are made of, beyond the picture's edge too."""
    down: int = 1
    up: int = 1
    """Input rows per output row, and the other way round; one of them is 1."""


def _convolution(layer: Any) -> Window:
    (stride, _), (kernel, _), (padding, _) = layer.stride, layer.kernel_size, layer.padding
    return Window(
        lambda rows: (rows[0] * stride - padding, (rows[1] - 1) * stride - padding + kernel),
        down=stride,
    )


def _enlarged(factor: float) -> Window:
    up = int(factor)
    return Window(lambda rows: (rows[0] // up, -(-rows[1] // up)), up=up)


def _chain(layers: Iterable[nn.Module]) -> Window | None:
    """The window of layers in a row; None where one of them has none."""
    windows = [window_of(layer) for layer in layers]
    known = [window for window in windows if window is not None]
    if len(known) < len(windows):
        return None

    def needs(rows: Span) -> Span:
        for window in reversed(known):
            rows = window.needs(rows)
        return rows

    return Window(needs, math.prod(w.down for w in known), math.prod(w.up for w in known))


def _pixelwise(layer: nn.Module) -> Window:
    return Window(lambda rows: rows)


WINDOWS: Mapping[type[nn.Module], Callable[[Any], Window | None]] = {
    nn.Conv2d: _convolution,
    nn.Upsample: lambda layer: _enlarged(layer.scale_factor) if layer.mode == "nearest" else None,
    nn.PixelShuffle: lambda layer: _enlarged(layer.upscale_factor),
    nn.Sequential: _chain,
    nn.ReLU: _pixelwise,
    nn.BatchNorm2d: lambda layer: None if layer.training else _pixelwise(layer),
    TinyBlock: lambda layer: window_of(layer.conv) if layer.pool is None else None,
    effvit.ChannelRMSNorm: _pixelwise,
    effvit.Widen: lambda layer: window_of(layer.main),
    effvit.Residual: lambda layer: window_of(layer.main),
    # Of two rows of output, the shortcut needs no more than the convolution beside it.
    effvit.Upsample: lambda layer: window_of(layer.main),
}
"""By type of layer. One that is not here counts as seeing the whole picture."""


def window_of(layer: nn.Module) -> Window | None:
    """What a layer looks into; None where it may see the whole picture."""
    known = WINDOWS.get(type(layer))
    return None if known is None else known(layer)


class Run(nn.Module):
    """Some layers in a row that are computed together: in tiles where they have a window."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.window = _chain(layers)
        self.work = self.result = 0
        """Bytes per place of its input [1, D, h, w]: of the work, with its result, and of that."""

    def measure(self, features: Tensor, measure: Measure) -> Tensor:
        """Finds how much it takes from small features; gives what it makes of them."""
        out, taken = measure(lambda: self.layers(features))
        places = features.shape[-2] * features.shape[-1]
        self.work, self.result = -(-taken // places), -(-out.nbytes // places)
        return out

    def forward(self, features: Tensor, left: int) -> Tensor:
        """[1, D, h, w] in the largest tiles that fit into `left` bytes.

        AboveLimit where not even the smallest do.
        """
        height, width = features.shape[-2:]
        if self.work * height * width <= left:
            return self.layers(features)  # type: ignore[no-any-return]
        if self.window is None:
            raise no_part_fits()
        cells = height // self.window.down, width // self.window.down
        tiles = self._tiles(self.window, cells, left - self.result * height * width)
        return self._in_tiles(features, self.window, *tiles)

    def _tiles(self, window: Window, cells: tuple[int, int], left: int) -> list[list[Span]]:
        """Rows and columns of cells that tiles are cut into: the largest tiles that fit."""
        parts = [1, 1]
        while True:
            cut = [spans(length, n) for length, n in zip(cells, parts, strict=True)]
            sides = [
                max(stop - start for start, stop in (halo(window, s, length) for s in ss))
                for ss, length in zip(cut, cells, strict=True)
            ]
            if self.work * math.prod(sides) <= left:
                return cut
            longer = max((0, 1), key=lambda axis: cells[axis] / parts[axis])
            if parts[longer] == cells[longer]:
                raise no_part_fits()
            parts[longer] = min(cells[longer], parts[longer] * 2)

    def _in_tiles(
        self, features: Tensor, window: Window, rows: list[Span], columns: list[Span]
    ) -> Tensor:
        height, width = (side // window.down for side in features.shape[-2:])
        up, out = window.up, torch.empty(0)
        for top, bottom in rows:
            y = halo(window, (top, bottom), height)
            for left, right in columns:
                x = halo(window, (left, right), width)
                tile = self.layers(features[..., y[0] : y[1], x[0] : x[1]])
                if not out.numel():
                    out = tile.new_empty((1, tile.shape[1], height * up, width * up))
                above, before = top - y[0] // window.down, left - x[0] // window.down
                out[..., top * up : bottom * up, left * up : right * up] = tile[
                    ...,
                    above * up : (above + bottom - top) * up,
                    before * up : (before + right - left) * up,
                ]
        return out


def halo(window: Window, cells: Span, length: int) -> Span:
    """The input rows that some cells of `length` are made of, whole cells and within the picture.

    A cell is what the layers shrink to one output row, or the input row that they enlarge.
    """
    first, stop = window.needs((cells[0] * window.up, cells[1] * window.up))
    down = window.down
    return max(0, first // down) * down, min(length, -(-stop // down)) * down


class TiledNetwork(nn.Module):
    """Layers in a row, [N, D, h, w] in and out: whole where that fits, else picture by picture.

    `pixels` is the number of the picture's rows per row of the input.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        room: Room,
        pixels: int,
        sample: Tensor,
        measure: Measure,
    ) -> None:
        super().__init__()
        runs = groupby(layers, key=lambda layer: window_of(layer) is not None)
        self.runs = nn.ModuleList(Run(list(some)) for _, some in runs)
        self.room, self.pixels = room, pixels
        for run in self.runs:
            assert isinstance(run, Run)
            sample = run.measure(sample, measure)

    def forward(self, features: Tensor) -> Tensor:
        height, width = (side * self.pixels for side in features.shape[-2:])
        if self.room.fits(len(features), height, width):
            for run in self.runs:
                features = run.get_submodule("layers")(features)
            return features
        each = (features[i : i + 1] for i in range(len(features)))
        return torch.cat([self._one(one, height, width) for one in each])

    def _one(self, features: Tensor, height: int, width: int) -> Tensor:
        left, given = self.room.left(height, width), features
        for run in self.runs:
            held = 0 if features is given else features.nbytes
            features = run(features, left - held)
        return features
