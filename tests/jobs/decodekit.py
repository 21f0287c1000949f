"""What the tests of --decode-on gpu share: files that a device decodes, and files that it does not.

nvImageCodec decodes JPEG files on a CPU too, with a library of its own, so the whole way runs
without a card where it is installed: a CPU is said to have its decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from harness.picture_files import P3_D50, SRGB_D50, rgb_profile, save, scene
from PIL import Image

from latentcli.jobs.inference.accelerator import Cpu

WIDTH, HEIGHT = 118, 87


def jpeg(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> bytes:
    image = Image.fromarray(scene(*size)).convert(mode)
    return save(image, "JPEG", **{"quality": 90} | options)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(exif=exif.tobytes())


def named_as_usual(data: bytes) -> bytes:
    """A file whose colours are red, green and blue by Adobe's marker alone, and not by their names.

    Names stand in the frame and before the scan, each before a byte or two of its own.
    """
    for start, step in ((data.index(b"\xff\xc0") + 10, 3), (data.index(b"\xff\xda") + 5, 2)):
        names = slice(start, start + 3 * step, step)
        changed = bytearray(data)
        assert changed[names] == b"RGB"
        changed[names] = b"\1\2\3"
        data = bytes(changed)
    return data


PLAIN: Mapping[str, bytes] = {
    "usual": jpeg(),
    "full-colour": jpeg(subsampling=0),
    "progressive": jpeg(progressive=True),
    "grey": jpeg("L"),
    "restarts": jpeg(restart_marker_rows=1),
    "upright": turned(1),
    "srgb": jpeg(icc_profile=rgb_profile(SRGB_D50, "sRGB")),
    "no-end": jpeg()[:-2],
    "junk-behind": jpeg() + b"junk" * 9,
}
"""What a device decodes."""
OTHERS: Mapping[str, bytes] = {
    "half-across": jpeg(subsampling=1),
    "turned": turned(6),
    "inks": jpeg("CMYK"),
    "wide": jpeg(icc_profile=rgb_profile(P3_D50, "P3")),
    "broken-profile": jpeg(icc_profile=b"no profile"),
    "rgb": jpeg(keep_rgb=True),
    "rgb-by-marker": named_as_usual(jpeg(keep_rgb=True)),
    "several": save(
        Image.fromarray(scene(WIDTH, HEIGHT)),
        "MPO",
        save_all=True,
        append_images=[Image.fromarray(scene(WIDTH, HEIGHT))],
    ),
    "png": save(Image.fromarray(scene(WIDTH, HEIGHT)), "PNG"),
}
"""What it does not."""
BAD: Mapping[str, bytes] = {
    "cut": jpeg()[:-400],
    "cut-scans": jpeg(progressive=True)[:-900],
    "head-only": jpeg()[:300],
    "no-picture": b"\xff\xd8\xff\xe0 and words",
    "tiny": jpeg(size=(5, 5)),
}
"""What nobody decodes, or is too small."""


def folder_of(folder: Path, *kinds: Mapping[str, bytes]) -> Path:
    """A file for each, all of them .jpg by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        for name, data in kind.items():
            (folder / f"{name}.jpg").write_bytes(data)
    return folder


def use_cpu_as_device(monkeypatch: pytest.MonkeyPatch, backend: str = "CPU_ONLY") -> None:
    """From now on a CPU decodes JPEG files by this part of nvImageCodec."""
    if find_spec("nvidia") is None or find_spec("nvidia.nvimgcodec") is None:
        pytest.skip("nvImageCodec is not installed")
    monkeypatch.setattr(Cpu, "jpeg_backends", (backend,))
