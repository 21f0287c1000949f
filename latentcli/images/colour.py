"""Converts a loaded picture of any mode and colours to 8-bit sRGB."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from latentcli.images.colour_space import (
    HDR,
    Colours,
    ColourSpace,
    changes_nothing,
    convert,
    from_cicp,
)
from latentcli.images.icc_matrix import space_of_profile
from latentcli.images.rgb import Rgb, image_of, mode_of
from latentcli.images.wide import Wide, narrowed

ALPHAS: dict[str, tuple[int, int, int] | None] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "drop": None,
}
"""What is put behind transparent pixels; None shows the colours that are stored under them."""

_BROKEN = (OSError, TypeError, ValueError, ImageCms.PyCMSError)
"""What a broken profile makes the colour engine raise."""
_MODE_OF_PROFILE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def split_alpha(image: Rgb) -> tuple[Rgb, Image.Image | None]:
    """Colours in mode L, RGB, CMYK or LAB, and alpha in mode L where any pixel is transparent."""
    if not isinstance(image, Image.Image):
        return image, None
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema()[0] == 255:
            alpha = None
    keep = image.mode in ("L", "RGB", "CMYK", "LAB")
    return image if keep else image.convert("L" if grey else "RGB"), alpha


def to_eight_bits(wide: Wide, told: Colours, notes: list[str]) -> tuple[Image.Image, Colours]:
    """The picture in 8 bits, and what is still to be converted of its colours.

    Where numbers say what those are, or a profile that is no more than numbers, they are converted
    before bits are dropped. SampleError for HDR.
    """
    notes.append(wide.note)
    space = told if isinstance(told, ColourSpace) else None
    if isinstance(told, bytes) and told:
        space = _space_within(told, is_grey=wide.values.ndim == 2 or wide.values.shape[2] == 2)
    if space is None:
        return narrowed(wide, None), told
    return narrowed(wide, None if _is_srgb(space, notes) else space), None


def _space_within(profile: bytes, is_grey: bool) -> ColourSpace | None:
    """What a profile says in numbers, if it is one for such a picture."""
    try:
        name, mode, _ = _profile_transform(profile)
    except _BROKEN:
        return None
    space = space_of_profile(profile)
    if space is None or not (mode == "RGB" or (mode == "L" and is_grey)):
        return None
    return replace(space, name=f"colour profile {name}")


def _is_srgb(space: ColourSpace, notes: list[str]) -> bool:
    """Whether a space is sRGB in all but name; else a note says that it is converted."""
    if space.curve == "BT.709":
        notes.append("the curve of BT.709 read as that of sRGB")
    if changes_nothing(space):
        return True
    notes.append(f"{space.name} to sRGB")
    return False


def to_srgb(colour: Rgb, told: Colours, notes: list[str]) -> Rgb:
    """Mode L, RGB, CMYK or LAB to RGB in sRGB, by a profile or by a space told by numbers.

    RGB that is sRGB as it is comes back as it came. SampleError for HDR.
    """
    mode = mode_of(colour)
    if mode == "LAB":
        notes.append("Lab to sRGB")
        return _apply(colour, _lab_transform())
    if isinstance(told, ColourSpace) and mode in ("L", "RGB"):
        if not _is_srgb(told, notes):
            colour = Image.fromarray(convert(np.asarray(colour), told))
    elif isinstance(told, bytes) and told:
        try:
            return _through_profile(colour, told, notes)
        except _BROKEN:
            notes.append("colour profile ignored: it is broken")
    if mode == "CMYK":
        notes.append("CMYK to RGB without a profile")
    return colour if mode == "RGB" else image_of(colour).convert("RGB")


def _through_profile(colour: Rgb, profile: bytes, notes: list[str]) -> Rgb:
    name, mode, transform = _profile_transform(profile)
    if mode == "RGB" and mode_of(colour) == "L":
        colour = image_of(colour).convert("RGB")
    if mode != mode_of(colour):
        notes.append(f"colour profile {name} ignored: it is not for a {mode_of(colour)} picture")
        return to_srgb(colour, None, notes)
    if transform is None:
        return image_of(colour).convert("RGB") if mode == "L" else colour
    notes.append(f"colour profile {name} to sRGB")
    if mode == "L":
        levels = _apply(Image.frombytes("L", (256, 1), bytes(range(256))), transform)
        return image_of(colour).point(list(levels.getchannel("G").tobytes())).convert("RGB")
    return _apply(colour, transform)


@lru_cache(maxsize=16)
def _profile_transform(
    profile: bytes,
) -> tuple[str, str | None, ImageCms.ImageCmsTransform | None]:
    """(name, Pillow mode, transform to sRGB); no transform where it would change nothing.

    Photographs of one collection mostly share a few profiles, and a transform is costly to build.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    _refuse_hdr(profile)
    words = ImageCms.getProfileDescription(source).split()
    name = "".join(c for c in " ".join(words) if c.isprintable())[:60] or "without a name"
    mode = _MODE_OF_PROFILE.get(source.profile.xcolor_space.strip())
    if mode is None:
        return name, None, None
    transform = _transform(source, mode)
    return name, mode, None if _is_identity(transform, mode) else transform


def _refuse_hdr(profile: bytes) -> None:
    """SampleError where the profile's own tag says that its curve is one of HDR."""
    count = int.from_bytes(profile[128:132], "big")
    for at in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        if profile[at : at + 4] == b"cicp":
            start = int.from_bytes(profile[at + 4 : at + 8], "big")
            codes = profile[start + 8 : start + 10]
            if len(codes) == 2 and codes[1] in HDR:
                from_cicp(codes[0], codes[1])


def is_linear(profile: bytes) -> bool:
    """Whether equal steps of a profile's values are, more or less, equal steps of light."""
    try:
        _, mode, transform = _profile_transform(profile)
    except _BROKEN:
        return False
    if transform is None or mode not in ("L", "RGB"):
        return False
    darkest = _apply(Image.new(mode, (1, 1), 1 if mode == "L" else (1, 1, 1)), transform)
    return bool(np.asarray(darkest).min() > 6)


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def _transform(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE  # else its coarse table misses dark greys by 10 levels
    target = ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.buildTransform(source, target, mode, "RGB", intent, flags)


def _apply(colour: Rgb, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    result = ImageCms.applyTransform(image_of(colour), transform)
    assert result is not None  # it is None only where the change is made in place
    return result


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether no colour of a grid moves by more than one level: most profiles are just sRGB."""
    if mode == "CMYK":
        return False
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * len(mode)), axis=-1).reshape(1, -1, len(mode))
    before = Image.fromarray(grid[..., 0] if mode == "L" else grid)
    after = _apply(before, transform)
    return bool((np.abs(np.asarray(after).astype(int) - grid) <= 1).all())


def put_on(rgb: Rgb, alpha: Image.Image | None, policy: str, notes: list[str]) -> Rgb:
    """The picture on the policy's colour, where it has transparent pixels."""
    if alpha is None:
        return rgb
    behind = ALPHAS[policy]
    notes.append(f"alpha on {policy}" if behind else "alpha dropped")
    if behind is None:
        return rgb
    return Image.composite(image_of(rgb), Image.new("RGB", alpha.size, behind), alpha)
