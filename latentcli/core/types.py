"""Defines the nouns of the stream as frozen dataclasses that check themselves.

Layouts are named where a tensor crosses a boundary: N batch, C channels, H and W pixels,
h and w latent cells. Pixels are uint8 RGB on the image side and float in [-1, 1] on the model side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latentcli.core.pickled import by_fields

if TYPE_CHECKING:
    import torch

NORMAL_STATES = ("whitened", "scaled")
"""What a model's own latents are: whitened per channel, or scaled (and shifted) as a whole."""
STATES = (*NORMAL_STATES, "raw", "moments")

QUANTISED_DTYPES = ("fp8", "int8")
"""Of STORE_DTYPES those that are stored over a scale per channel."""
STORE_DTYPES = ("bf16", "fp16", *QUANTISED_DTYPES)
"""What latents can be stored in."""

FILTERED = "filtered"
"""Status of an input that a filter of the job refused."""


@dataclass(frozen=True, slots=True)
class InputRow:
    """One input of a job, as frozen in inputs.jsonl."""

    key: str
    """Unique name in the store, with forward slashes and without the file's suffix."""
    source: str
    """Where its bytes are: an absolute path."""
    unit: int
    """The unit (and so the shard) that it belongs to."""
    size: int = -1
    """Bytes when the list was made, or -1."""
    mtime_ns: int = -1
    """Modification time in nanoseconds when the list was made, or -1."""
    sha256: str | None = None
    """Of an input that has another name than when it was encoded: its digest, by which its latent
    is known. None where source and key are those that were encoded."""
    stamp: int = 0
    """64 bits that change with the captions and other fields that belong to it; 0 is none."""


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """What a model's latents are, for everybody who stores or reads them."""

    channels: int
    """Latent channels c."""
    downscale: int
    """Pixels per latent cell along each side, f."""
    size_divisor: int
    """Image height and width must be multiples of this."""
    space: str
    """Latent space id without the state: latents of equal ids can be exchanged between models."""
    state: str = "whitened"
    """What `encode` gives and `decode` takes: one of NORMAL_STATES."""

    def __post_init__(self) -> None:
        if self.state not in NORMAL_STATES:
            raise ValueError(
                f"latents are {self.state!r}, allowed are {' and '.join(NORMAL_STATES)}"
            )
        if self.size_divisor % self.downscale:
            raise ValueError(
                f"size divisor {self.size_divisor} is not a multiple of the downscale"
                f" {self.downscale}"
            )

    @property
    def geometry(self) -> str:
        """The field's short code, such as f16c128."""
        return f"f{self.downscale}c{self.channels}"

    def space_id(self, state: str) -> str:
        """Full id, such as flux2#whitened; `state` is one of STATES."""
        if state not in STATES:
            raise ValueError(f"latent state is {state!r}, allowed are {', '.join(STATES)}")
        return f"{self.space}#{state}"

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the latent of an H x W image; ValueError where the size rule is broken."""
        if height <= 0 or width <= 0 or height % self.size_divisor or width % self.size_divisor:
            raise ValueError(
                f"image is {width}x{height}, width and height must be multiples of"
                f" {self.size_divisor}"
            )
        return height // self.downscale, width // self.downscale

    def image_size(
        self, shape: Sequence[int], height: int | None = None, width: int | None = None
    ) -> tuple[int, int]:
        """(H, W) of the images of latents of this shape, [N, C, h, w].

        ValueError where the shape is none of this model's latents, or not that of height x width.
        """
        *_, channels, h, w = (1, 1, *shape)
        height = h * self.downscale if height is None else height
        width = w * self.downscale if width is None else width
        wanted = (self.channels, *self.latent_size(height, width))
        if len(shape) != 4 or (channels, h, w) != wanted:
            raise ValueError(
                f"latents are {tuple(shape)}; for {width}x{height} images they must be"
                f" [N, {', '.join(map(str, wanted))}]"
            )
        return height, width


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one input: one row of a commit record."""

    key: str
    source: str
    status: str
    """ok, failed, or filtered: refused by a filter of the job, and no failure."""
    stage: str | None = None
    """The stage that failed; filter, where one refused it."""
    error: str | None = None
    """Why there is no latent."""
    original_size: tuple[int, int] | None = None
    """(W, H) of the picture as a person sees it, before resize and crop."""
    resized_size: tuple[int, int] | None = None
    """(W, H) after resize, before crop."""
    crop: tuple[int, int, int, int] | None = None
    """(left, top, right, bottom) of the crop, in pixels of the resized picture."""
    latent_shape: tuple[int, ...] | None = None
    """(C, h, w), or (T, C, h, w) of a clip."""
    frame_rate: str | None = None
    """Frames per second of a clip, as a fraction such as 30000/1001."""
    time_base: str | None = None
    """Seconds per tick of a clip's frame times, as a fraction such as 1/15360."""
    notes: tuple[str, ...] = ()
    """What a policy did to this picture: orientation, colour, alpha, animation."""
    sha256: str | None = None
    """Hexadecimal digest of the input's bytes."""
    field: str | None = None
    """Of a sample in a tar, the field of the member that was taken."""

    __reduce__ = by_fields


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a sample in a tar."""

    field: str
    """What follows the sample's key and a dot, as it is in the tar: jpg, txt, seg.png."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """The files of one key in a tar, in their order there; or why they are refused."""

    key: str
    """Without the dot that ends it; folders and dots inside it are kept."""
    members: tuple[Member, ...]
    problem: str | None = None
    """Why there is nothing to encode, in plain words; then there are no members."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A preprocessed picture and the row that it belongs to."""

    row: Row
    pixels: torch.Tensor = field(repr=False)
    """uint8 [3, H, W], sRGB; or the bytes of a file that a device is to decode, uint8 [n]."""
