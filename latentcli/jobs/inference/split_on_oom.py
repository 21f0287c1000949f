"""Gives a device a batch in as few pieces as its memory takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentcli.jobs.inference.max_memory import mib
from latentcli.jobs.inference.out_of_memory import (
    empty_cache,
    is_out_of_memory,
    may_be_out_of_memory,
)
from latentcli.jobs.runtime.meter import ignore
from latentcli.models.tiled.room import AboveLimit, Room

Parts = dict[str, Tensor]
"""By name, each [N, ...] with one entry per picture."""


@dataclass(slots=True)
class SplitOnOom:
    """Remembers how many pictures a device takes at once."""

    note: Callable[[str], None] = ignore
    """Called once per shape and number when a batch gets fewer from now on."""
    room: Room | None = None
    """What --max-memory leaves; None where there is no such limit."""
    sizes: dict[tuple[int, ...], int] = field(default_factory=dict)
    """By shape [3, H, W], where a batch was too much."""

    def encode(
        self, encode: Callable[[Tensor, Sequence[str]], Parts], pixels: Tensor, keys: Sequence[str]
    ) -> Parts:
        """What `encode` gives for the pictures [N, 3, H, W], which have these keys; see `fit`."""
        shape = tuple(pixels.shape[1:])
        return self.fit(lambda part: encode(pixels[part], keys[part]), shape, len(keys))

    def fit(
        self,
        work: Callable[[slice], Parts],
        shape: tuple[int, ...],
        count: int,
        *,
        whole: bool = False,
    ) -> Parts:
        """What `work` gives for `count` pictures of a shape [3, H, W], of which it takes a slice.

        Where memory runs out the pieces are halved, for this batch and all later ones of its shape;
        torch.OutOfMemoryError where not even one picture fits, or, with `whole`, not all at once;
        it is an AboveLimit where that is for the room and not for the device.
        An error that may be of memory and does not say so is tried with fewer pictures too; with
        one it is raised as it is. No piece has more pictures than the room takes.
        """
        most = count if self.room is None else self.room.pictures(*shape[1:])
        if whole and most < count:
            raise AboveLimit("more than --max-memory")
        if self.room is not None and most == 0 and self.room.obstacle is not None:
            raise AboveLimit("more than --max-memory")
        while True:
            size = count if whole else min(self.sizes.get(shape, count), count, max(1, most))
            try:
                return joined([work(slice(start, start + size)) for start in range(0, count, size)])
            except AboveLimit:
                raise
            except RuntimeError as error:
                sure = is_out_of_memory(error)
                if not may_be_out_of_memory(error) or (not sure and (size == 1 or whole)):
                    raise
                if size == 1 or whole:
                    raise torch.OutOfMemoryError(str(error)) from error
            # Not while the error is handled: it holds on to all that its frames had allocated.
            empty_cache()
            self.sizes[shape] = -(-size // 2)
            what = (
                "ran out of memory on"
                if sure
                else "found no algorithm, possibly because memory ran out, for"
            )
            self.note(
                f"The device {what} {size} pictures of {shape[2]}x{shape[1]}: from now on it gets"
                f" {self.sizes[shape]} at once."
            )


def too_large(
    error: Exception,
    what: str,
    width: int,
    height: int,
    together: int = 1,
    room: Room | None = None,
) -> str:
    """Why a picture or a frame (`what`) failed with an error of memory.

    `together` is how many frames a model that knows time decodes at once, `room` what --max-memory
    leaves.
    """
    size = f"of {width}x{height}"
    if isinstance(error, AboveLimit) and room is not None:
        return _above_limit(what, size, together, room, room.whole * height * width * together)
    several = f"{together} frames {size} that the model decodes together"
    reason = f"the device ran out of memory on {several if together > 1 else f'a {what} {size}'}"
    if room is not None:
        reason += f": it has less free than the {mib(room.limit)} that --max-memory leaves"
    if together > 1:
        return f"{reason}; give it fewer with --num-frames"
    if room is not None and room.obstacle is None:
        return f"{reason}; with a smaller --max-memory it is computed in smaller parts"
    return reason


def _above_limit(what: str, size: str, together: int, room: Room, whole: int) -> str:
    if together > 1:
        return (
            f"{together} frames {size} that the model decodes together take {mib(whole)}, but"
            f" --max-memory leaves {mib(room.limit)}; give it fewer with --num-frames"
        )
    if room.obstacle is not None:
        return (
            f"a {what} {size} takes {mib(whole)}, but --max-memory leaves {mib(room.limit)}, and"
            f" this model cannot compute it in parts: {room.obstacle}; give more memory, or make"
            f" the {what} smaller"
        )
    return (
        f"a {what} {size} takes {mib(whole)}, and even its smallest part takes more than the"
        f" {mib(room.limit)} that --max-memory leaves"
    )


def joined(pieces: Sequence[Parts]) -> Parts:
    """The parts of all pieces together."""
    if len(pieces) == 1:
        return pieces[0]
    return {part: torch.cat([piece[part] for piece in pieces]) for part in pieces[0]}
