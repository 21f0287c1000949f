"""Defines what a reader of one format gives, and reads what Pillow alone reads rightly."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile

from latentcli.core.errors import SampleError
from latentcli.images.colour_space import Colours
from latentcli.images.reduction import Reduction
from latentcli.images.rgb import Values
from latentcli.images.wide import Wide, as_wide

Pixels = Image.Image | Wide

SIDEWAYS = (5, 6, 7, 8)
"""Turns by which width and height change places."""
_ORIENTATION, _INTEROP, _EXIF, _COLOUR_SPACE = 0x0112, 0xA005, 0x8769, 0xA001


@dataclass(frozen=True, slots=True)
class Loaded:
    """The first frame of a file as it is stored."""

    pixels: Pixels | Values
    """Of an image the mode tells the channels; an array is RGB."""
    colours: Colours = None
    turn: int = 1
    """The number by which EXIF names the turn that makes it upright."""
    whole: tuple[int, int] | None = None
    """(W, H) before its turn of the picture that the pixels are a reduction of, if they are."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file whose header was read."""

    format: str
    """As a sentence names it."""
    size: tuple[int, int]
    """(W, H) of the frame that will be loaded, before or after its turn."""
    load: Callable[[list[str]], Loaded]
    """Decodes all pixels; appends to the list what was chosen or left undone."""
    load_reduced: Callable[[list[str], Reduction], Loaded] | None = None
    """The same, in as few pixels as a reduction allows; where the format has a quick way to."""
    is_plain: Callable[[], bool] = lambda: False
    """Whether the header says that any decoder gives the same sRGB pixels, upright, as `load`."""


def open_with_pillow(data: bytes, plugin: str) -> ImageFile.ImageFile:
    """The file opened by one plugin of Pillow; SampleError where its header is damaged."""
    factory, _ = Image.OPEN[plugin]
    try:
        # Image.open would apply Pillow's own size limit and print its warning.
        opened = factory(io.BytesIO(data), "")
    except Exception as error:  # a damaged header makes Pillow raise almost any kind
        raise SampleError("decode_image", damage(plugin, error)) from error
    assert isinstance(opened, ImageFile.ImageFile)
    return opened


def read_plain(data: bytes, plugin: str) -> Stored:
    """A format of which Pillow reads the pixels and tells all there is to tell."""
    opened = open_with_pillow(data, plugin)

    def load(notes: list[str]) -> Loaded:
        note_frames(opened, notes)
        opened.load()
        return Loaded(pixels_of(opened), opened.info.get("icc_profile"), turn_of(opened))

    return Stored(plugin, opened.size, load)


def note_frames(opened: ImageFile.ImageFile, notes: list[str]) -> None:
    """Says that the first frame is taken, where there are more."""
    if getattr(opened, "is_animated", False):
        notes.append("first of several frames")


def pixels_of(opened: ImageFile.ImageFile) -> Pixels:
    """What was loaded: 8 bits a channel as it is, and grey of more bits as 16."""
    if opened.mode[0] not in "IF":
        return opened
    grey = as_wide(np.asarray(opened))
    return Wide(grey.values, grey.note, opened.info.get("transparency"))


def turn_of(opened: Image.Image) -> int:
    """The orientation that EXIF states; 1, which is upright, where it states none."""
    try:
        value = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF says nothing about the picture, and Pillow raises many kinds
        return 1
    return value if isinstance(value, int) else 1


def is_adobe_rgb(opened: Image.Image) -> bool:
    """Whether a camera says in EXIF that its colours are Adobe RGB, by rule R03 of DCF."""
    try:
        exif = opened.getexif()
        stated = exif.get_ifd(_EXIF).get(_COLOUR_SPACE)
        return stated == 2 or (stated == 0xFFFF and exif.get_ifd(_INTEROP).get(1) == "R03")
    except Exception:  # as above
        return False


def damage(name: str, error: Exception) -> str:
    """The reason of a failed row, from what a decoder raised."""
    if isinstance(error, Image.DecompressionBombError):
        return f"{name} picture is larger than Pillow decodes: {error}"
    said = error.args[0] if error.args else ""
    words = (said.decode(errors="replace") if isinstance(said, bytes) else str(error)).split()
    # Pillow quotes bytes of the file.
    plain = "".join(c if c.isprintable() else "?" for c in " ".join(words))
    text = plain or type(error).__name__
    cut = any(word in text.lower() for word in ("truncated", "premature end", "0xd9 instead"))
    state = "cut short" if cut else "damaged or of an unsupported kind"
    return f"{name} file is {state} ({text})"
