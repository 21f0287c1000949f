"""Converts a loaded picture of any mode and colour profile to 8-bit sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

ALPHAS: dict[str, tuple[int, int, int] | None] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "drop": None,
}
"""What is put behind transparent pixels; None shows the colours that are stored under them."""

_MODE_OF_PROFILE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours in mode L, RGB, CMYK or LAB, and alpha in mode L where any pixel is transparent."""
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema()[0] == 255:
            alpha = None
    keep = image.mode in ("L", "RGB", "CMYK", "LAB")
    return image if keep else image.convert("L" if grey else "RGB"), alpha


def to_srgb(colour: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Mode L, RGB, CMYK or LAB to RGB in sRGB."""
    if colour.mode == "LAB":
        notes.append("Lab to sRGB")
        return _apply(colour, _lab_transform())
    if profile:
        try:
            return _through_profile(colour, profile, notes)
        except (OSError, TypeError, ValueError, ImageCms.PyCMSError):
            notes.append("colour profile ignored: it is broken")
    if colour.mode == "CMYK":
        notes.append("CMYK to RGB without a profile")
    return colour if colour.mode == "RGB" else colour.convert("RGB")


def _through_profile(colour: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    name, mode, transform = _profile_transform(profile)
    if mode == "RGB" and colour.mode == "L":
        colour = colour.convert("RGB")
    if mode != colour.mode:
        notes.append(f"colour profile {name} ignored: it is not for a {colour.mode} picture")
        return to_srgb(colour, None, notes)
    if transform is None:
        return colour.convert("RGB") if mode == "L" else colour
    notes.append(f"colour profile {name} to sRGB")
    if mode == "L":
        levels = _apply(Image.frombytes("L", (256, 1), bytes(range(256))), transform)
        return colour.point(list(levels.getchannel("G").tobytes())).convert("RGB")
    return _apply(colour, transform)


@lru_cache(maxsize=16)
def _profile_transform(
    profile: bytes,
) -> tuple[str, str | None, ImageCms.ImageCmsTransform | None]:
    """(name, Pillow mode, transform to sRGB); no transform where it would change nothing.

    Photographs of one collection mostly share a few profiles, and a transform is costly to build.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    words = ImageCms.getProfileDescription(source).split()
    name = "".join(c for c in " ".join(words) if c.isprintable())[:60] or "without a name"
    mode = _MODE_OF_PROFILE.get(source.profile.xcolor_space.strip())
    if mode is None:
        return name, None, None
    transform = _transform(source, mode)
    return name, mode, None if _is_identity(transform, mode) else transform


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


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    result = ImageCms.applyTransform(image, transform)
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


def put_on(
    rgb: Image.Image, alpha: Image.Image | None, policy: str, notes: list[str]
) -> Image.Image:
    """The picture on the policy's colour, where it has transparent pixels."""
    if alpha is None:
        return rgb
    behind = ALPHAS[policy]
    notes.append(f"alpha on {policy}" if behind else "alpha dropped")
    return Image.composite(rgb, Image.new("RGB", rgb.size, behind), alpha) if behind else rgb
