"""Makes a toy model, toy pictures and toy tars, the same bytes every time."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

SIZES = ((64, 48), (48, 64), (64, 64), (80, 48))


def toy_model(folder: Path, seed: int = 0) -> Path:
    """A folder of config.json and model.safetensors: the FCDM family's toy size, seeded weights."""
    from safetensors.torch import save_file

    from latentcli.models.fcdm import FAMILY
    from latentcli.models.weights import random_state

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(FAMILY.tiny)))
    state = random_state(lambda: FAMILY.build(FAMILY.tiny, None), seed)
    save_file(state, folder / "model.safetensors")
    return folder


def toy_pictures(
    folder: Path, count: int, sizes: Sequence[tuple[int, int]] = SIZES, bad_every: int = 0
) -> Path:
    """Small JPEGs of these sizes in turn, in folders of a thousand; some of them are cut short."""
    for i in range(count):
        path = folder / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = toy_picture(i, sizes)
        bad = bad_every and i % bad_every == bad_every - 1
        path.write_bytes(data[:300] if bad else data)
    return folder


def toy_picture(number: int, sizes: Sequence[tuple[int, int]] = SIZES) -> bytes:
    """A small JPEG, another one for each number."""
    import numpy as np
    from PIL import Image

    width, height = sizes[number % len(sizes)]
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = [
        np.sin(x * (1 + number % 7) + number),
        np.cos(y + number / 3),
        np.sin(x + y * (number % 5)),
    ]
    pixels = np.round(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def toy_tars(folder: Path, count: int, samples: int, bad_every: int = 0) -> str:
    """Tars of samples with a picture and a caption; the sources as `encode` takes them.

    Some pictures are cut short, and where there are any, so is the last tar.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:06d}.tar"
        with tarfile.open(path, "w") as tar:
            for i in range(number * samples, (number + 1) * samples):
                bad = bad_every and i % bad_every == bad_every - 1
                members = {"jpg": toy_picture(i)[: 300 if bad else None], "txt": b"number %d" % i}
                for suffix, data in members.items():
                    member = tarfile.TarInfo(f"part.{number}/{i:06d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    if bad_every:
        whole = path.read_bytes().rstrip(b"\0")
        path.write_bytes(whole[: len(whole) * 3 // 4])
    return str(folder / f"{{{0:06d}..{count - 1:06d}}}.tar")
