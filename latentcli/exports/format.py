"""Defines what an export format is: the latents that it may hold, their state, and its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

Facts = dict[str, Any]
"""What the files of some samples leave for the files of the whole; JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way of a format to hold latents: a model that its trainer trains."""

    name: str
    """What --arch calls it."""
    spaces: tuple[str, ...]
    """Latent spaces that it may hold, without their state; () is any of them."""
    state: str
    """What its trainer expects: raw, scaled or whitened; normal is the one of the last two that the
    space has."""
    tag: str = ""
    """What names it in the format: a suffix, or an architecture."""
    suits: str = ""
    """The models that are trained on it, for people."""
    channels: int | None = None
    """Latent channels that its trainer can take; None is any."""
    step: int | None = None
    """Pixels that sides are multiples of in its trainer; None where that is a setting there."""
    whole: int = 1
    """Pixels that a bucket step, where it is a setting, has to be a multiple of."""
    joins: bool = False
    """Whether its files have room for latents of several sizes, so that a second store may join."""


class Moments(NamedTuple):
    """What describes a Gaussian of raw latents; each [C, h, w] float32."""

    mean: Tensor
    std: Tensor
    """Of the logarithm clamped as KL autoencoders clamp it."""
    logvar: Tensor
    """Logarithm of the variance, as the store has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSample:
    """One sample, converted to the state that the format wants."""

    key: str
    name: str
    """Path of the picture below its source, with forward slashes and without its last suffix."""
    filename: str = ""
    """What the picture's file is called, with its suffix."""
    index: int
    """Its place among all samples of the export, from 0."""
    latent: Tensor
    """[C, h, w] float32, on the CPU."""
    mirrored: Tensor | None = None
    """The latent of the mirrored picture, where the store has it."""
    moments: Moments | None = None
    """Of the raw latent, of a store of moments."""
    mirrored_moments: Moments | None = None
    original_size: tuple[int, int] = (0, 0)
    """(W, H) of the picture, upright."""
    resized_size: tuple[int, int] = (0, 0)
    """(W, H) before the crop."""
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)
    """(left, top, right, bottom) in pixels of the resized picture."""
    caption: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    label: int | None = None
    picture: str = ""
    """Where the picture is; "" where it is in a tar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """How the pictures were brought to size, as a trainer's own settings say it."""

    rule: str = ""
    """The bucket rule; "" where all pictures have one size."""
    size: tuple[int, int]
    """(W, H) in pixels: that of all pictures, or one of the area that buckets fill."""
    step: int = 1
    """Pixels of a bucket step."""
    min_side: int | None = None
    max_side: int | None = None
    no_upscale: bool = False

    @property
    def side(self) -> int | None:
        """The side of a square size; None where it is none."""
        return self.size[0] if self.size[0] == self.size[1] else None

    @property
    def resolution(self) -> str:
        """The size as trainers take it: one number of a square, else [W, H]."""
        return str(self.side or list(self.size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is the same for all samples of an export."""

    variant: Variant
    space: str
    """The store's latent space, without the state."""
    state: str
    """That the latents are in: raw, scaled or whitened."""
    downscale: int
    """Pixels per latent cell along each side."""
    channels: int
    shape: tuple[int, int] | None = None
    """(h, w) of all latents, where they have one size."""
    count: int = 0
    """Samples of the export."""
    labels: tuple[str, ...] = ()
    """Names of the classes, where labels are the names of folders."""
    labelled: bool = False
    """Whether samples have classes; single ones may lack theirs."""
    dtype: str = "float32"
    """Of the latents in files of a format that leaves it open."""
    mirrored: bool = False
    """Whether samples have latents of mirrored pictures."""
    bytes_column: str = ""
    """Column to which latents go as bare bytes, of a format with columns."""
    forced: bool = False
    """Whether the latents are of another space than the format is for."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Per channel, mean and deviation of raw latents over the data set, where they are known."""
    sizing: Sizing | None = None
    """None where each picture has a size of its own."""
    folder: str = ""
    """Of the export; absolute."""
    root: str = ""
    """The folder of pictures that names are relative to; "" where it is not known."""

    def notes(self) -> dict[str, str]:
        """What to say in the metadata of a file whose latents are not of the format's space."""
        return {"latentcli_forced": f"{self.space}#{self.state}"} if self.forced else {}


class File(NamedTuple):
    """A file of an export."""

    path: str
    """Below the export's folder, with forward slashes."""
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Group:
    """The files of some samples in a row."""

    files: Sequence[File]
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """A format, and the functions that make its files."""

    name: str
    """What --to calls it."""
    summary: str
    """Whose it is and what is written, in one sentence."""
    variants: tuple[Variant, ...]
    write: Callable[[Sequence[ExportSample], int, Setting], Group]
    """The files of some samples in a row; the number is that of the group, from 0."""
    finish: Callable[[Sequence[Facts], Setting], Sequence[File]] = lambda facts, setting: ()
    """The files of the whole, from what all groups left; written last."""
    path: Callable[[str], str] | None = None
    """What tells the files of a sample from those of others, from its name; two samples of the same
    path are refused. None where samples do not give files their names, or always different ones."""
    merge: Callable[[bytes, bytes], bytes] | None = None
    """A file that is there already, and the new one, to one of both; ValueError where the first is
    damaged. None where the new one takes the other's place."""
    group: int | None = None
    """Samples of a file that holds several; None where each has files of its own."""
    group_bytes: int | None = None
    """Bytes of float32 latents that such a file is made of at most, where nobody says how many
    samples; None where only their number counts."""
    needs: frozenset[str] = frozenset()
    """Of moments, labels, one_size, square, files (pictures that are files), text (embeddings of
    captions, which no store has): what the format cannot do without."""
    fields: bool = True
    """Whether its files have anything of captions and other fields, classes apart."""
    flips: bool = True
    """Whether its files have room for latents of mirrored pictures."""
    dtypes: tuple[str, ...] = ("float32",)
    """That latents may be stored in, the usual one first."""
    rule: str = ""
    """The bucket rule by which its trainer computes sizes again, or what such rules begin with
    before a dash; "" where it trusts the files."""
    unbucketed: bool = False
    """Whether its trainer takes one size for all instead."""
    square: bool = False
    """Whether that one size has to be a square."""
    pictures: str = ""
    """Path of the folder that the trainer wants the pictures in, below the export's; "" is none."""
    flat: bool = False
    """Whether the trainer looks for pictures in that folder alone, and not in folders of it."""
    hides: Callable[[str, Setting], str] = lambda name, setting: ""
    """Path of a file that the trainer would take in place of ours, for a name; "" is none."""
    problem: Callable[[Setting], str | None] = lambda setting: None
    """Why the trainer would not find the files; None where it would."""
    mistaken: Callable[[Sequence[str], Sequence[str]], Mapping[str, str]] = lambda have, lack: {}
    """Of the names that have a latent and those that lack one: the latter that the trainer takes
    for another, and which."""
    has_bytes_column: bool = False
    """Whether it may have a column of bare bytes."""
    check: Callable[[Setting], None] = lambda setting: None
    """Raises a UsageError where a setting, or a library that is not there, forbids an export."""
    place: Callable[[ExportSample], str] | None = None
    """Path of a sample's picture in that folder, without its suffix; None where it is the sample's
    name, and the caption lies beside."""
    alone: bool = False
    """Whether its trainer takes all files of the folder, so that there may be no others."""
    lazy: bool = False
    """Whether `write` goes through the samples once, in their order: they are then read while it
    does, and not held."""
    advice: Callable[[Setting], Sequence[str]] = lambda setting: ()
    """What a person has to set in the trainer, and what is still missing; a line each."""
    closing: Callable[[Sequence[Facts], Setting], Sequence[str]] = lambda facts, setting: ()
    """More of that, which is known from what all groups left."""
