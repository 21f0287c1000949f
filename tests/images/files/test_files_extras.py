"""The packages of extras are loaded when a file needs one, and named where one is missing."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401 - Pillow writes JPEG XL by it
import pytest
from harness.picture_files import save, scene
from harness.tiff_files import camera_raw
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.formats import EXTRAS, format_of, picture_by_bytes

ROOT = Path(__file__).resolve().parents[3]


def heic() -> bytes:
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB", (96, 64), scene().tobytes()).save(file)
    return file.getvalue()


FILES = {
    "heif": heic(),
    "jxl": save(Image.fromarray(scene()), "JXL", effort=1),
    "raw": camera_raw(np.full((32, 32), 9000, np.uint16)),
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_without_the_extra_the_reason_names_it(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_image(FILES[extra], DecodePolicy()).image.mode == "RGB"
    monkeypatch.setitem(sys.modules, EXTRAS[extra], None)
    with pytest.raises(SampleError) as caught:
        decode_image(FILES[extra], DecodePolicy())
    assert caught.value.stage == "decode_image"
    assert f"pip install 'latentcli[{extra}]'" in caught.value.reason
    suffix = picture_by_bytes(FILES[extra])
    assert suffix is not None
    row = format_of(suffix)
    assert row is not None
    assert row.reader == extra
    assert caught.value.reason.startswith(f"{row.name} pictures are read with {EXTRAS[extra]}")
    assert not row.is_read


def test_a_package_is_loaded_by_its_files_alone(tmp_path: Path) -> None:
    files = {"plain": save(Image.fromarray(scene()), "PNG"), **FILES}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys, pathlib; from latentcli.images.files.open_picture import open_picture\n"
        "for path in sys.argv[1:]:\n"
        "    open_picture(pathlib.Path(path).read_bytes()).load([])\n"
        f"    print(*({set(EXTRAS.values())} & sys.modules.keys()))"
    )
    paths = [str(tmp_path / name) for name in files]
    ran = subprocess.run(
        [sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = [set(line.split()) for line in ran.stdout.splitlines()]
    assert loaded == [set(list(EXTRAS.values())[:count]) for count in range(4)]


def test_known_pictures_that_are_never_read_are_named() -> None:
    for data, name in ((b"8BPS\x00\x01" + bytes(40), "Photoshop"), (b"<svg/>", "SVG")):
        with pytest.raises(
            SampleError, match=f"{name} pictures are not supported; convert it to PNG"
        ):
            decode_image(data, DecodePolicy())
