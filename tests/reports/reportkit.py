"""Sample reports for the viewer's tests: real small pictures, rows and a document around them."""

from __future__ import annotations

import io
import os
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latentcli.reports.viewer import write_viewer

GAIN = 4
MEASURES = [
    {
        "name": "psnr",
        "label": "PSNR",
        "unit": "dB",
        "digits": 2,
        "higher_is_better": True,
        "protocol": "8-bit values, peak 255, all three channels together",
    },
    {
        "name": "ssim",
        "label": "SSIM",
        "unit": "",
        "digits": 4,
        "higher_is_better": True,
        "protocol": "7x7 windows on 8-bit values, mean of the channels",
    },
]
LPIPS = {
    "name": "lpips",
    "label": "LPIPS",
    "unit": "",
    "digits": 4,
    "higher_is_better": False,
    "protocol": "AlexNet, values in -1 to 1",
}
SETTINGS = {
    "size": [64, 64],
    "divisor": None,
    "steps": 1,
    "sampler": "ddim",
    "pdg": False,
    "seed": 42,
    "difference_gain": GAIN,
}


@dataclass(frozen=True)
class Report:
    """A report on the disk, and what was put into it."""

    folder: Path
    document: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def url(self) -> str:
        return (self.folder / "index.html").as_uri()


def summary(values: Sequence[float | None]) -> dict[str, float | None]:
    """The statistics of a document, with infinities as None."""
    finite = sorted(v for v in values if v is not None)
    if not finite:
        return dict.fromkeys(("mean", "std", "median", "min", "p5", "p95", "max"))
    whole = len(finite) == len(values)
    return {
        "mean": statistics.fmean(finite) if whole else None,
        "std": statistics.pstdev(finite) if whole else None,
        "median": statistics.median(finite),
        "min": finite[0],
        "p5": finite[len(finite) // 20],
        "p95": finite[(len(finite) * 19) // 20],
        "max": finite[-1] if whole else None,
    }


def make_rows(keys: Sequence[str], models: int, measures: Sequence[Any], pca: bool) -> list[Any]:
    """Rows with figures drawn at random, the same every time."""
    chance = random.Random(5)
    ranges = {"psnr": (22, 44), "ssim": (0.7, 0.99), "lpips": (0.01, 0.3)}
    return [
        {
            "index": index,
            "key": key,
            "source": f"photos/{key}.jpg",
            "width": 64,
            "height": 48,
            "figures": [
                {m["name"]: round(chance.uniform(*ranges[m["name"]]), 4) for m in measures}
                for _ in range(models)
            ],
            "pca": [pca] * models,
        }
        for index, key in enumerate(keys)
    ]


def make_document(rows: Sequence[Any], names: Sequence[str], measures: Sequence[Any]) -> Any:
    """The document of a roundtrip with these rows; the last of several models is the baseline."""
    figures = {
        (m, k): [row["figures"][m].get(k) for row in rows]
        for m in range(len(names))
        for k in (measure["name"] for measure in measures)
    }
    facts = {"geometry": "f16c128", "latent_space": "flux2", "dtype": "float32", "device": "cpu"}
    models = [
        {"model": name, "encoder": name, "decoder": name, **facts}
        | {measure["name"]: summary(figures[m, measure["name"]]) for measure in measures}
        for m, name in enumerate(names)
    ]
    last = len(names) - 1
    delta = [
        {"model": name, "against": names[last]}
        | {
            k["name"]: summary(
                [
                    a - b if a is not None and b is not None else None
                    for a, b in zip(figures[m, k["name"]], figures[last, k["name"]], strict=True)
                ]
            )
            for k in measures
        }
        for m, name in enumerate(names[:-1])
    ]
    return {
        "images": len(rows),
        "media": "images",
        "models": models,
        "baseline": names[last] if last else None,
        "delta": delta or None,
        "settings": SETTINGS,
        "measures": list(measures),
        "failed": 1,
        "failures": [{"key": "broken", "error": "broken.jpg is cut off after 12 bytes"}],
    }


def lossless(seed: int, size: tuple[int, int]) -> bytes:
    """The bytes of a picture that loses nothing."""
    return encoded(seed, "WEBP", size, lossless=True)


@cache
def encoded(seed: int, form: str, size: tuple[int, int], **how: Any) -> bytes:
    """The bytes of a picture: a slope of colours with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    slope = np.stack([x * 255 // size[0], y * 255 // size[1], (x + y + 40 * seed) % 256], axis=-1)
    noisy = np.clip(slope + rng.integers(-12, 12, slope.shape), 0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(noisy).save(data, form, **how)
    return data.getvalue()


def files_of(row: Any) -> Iterator[tuple[str, bytes]]:
    """Endings of the names of a row's files, and their bytes."""
    seed, size = row["index"] % 7, (row["width"], row["height"])
    yield "original.webp", lossless(seed, size)
    yield "thumb.webp", encoded(seed, "WEBP", size)
    for m, pca in enumerate(row["pca"]):
        yield f"{m}.webp", lossless(seed + m + 1, size)
        yield f"{m}.diff.jpg", encoded(seed + m + 2, "JPEG", size)
        if pca:
            yield f"{m}.pca.png", encoded(seed + m + 3, "PNG", (4, 3))


def write_files(folder: Path, rows: Sequence[Any]) -> None:
    """Every row's files; those of equal bytes are one file under several names."""
    first: dict[bytes, Path] = {}
    for row in rows:
        place = folder / "files" / f"{row['index'] // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        for what, data in files_of(row):
            path = place / f"{row['index']:06d}.{what}"
            if data in first:
                os.link(first[data], path)
            else:
                path.write_bytes(data)
                first[data] = path


def make_report(
    folder: Path,
    keys: Sequence[str],
    names: Sequence[str] = ("small", "large"),
    measures: Sequence[Any] = tuple(MEASURES),
    pca: bool = True,
    rows: list[Any] | None = None,
    **changes: Any,
) -> Report:
    """A whole report in a folder; `changes` are keys of the document to replace."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows(keys, len(names), measures, pca) if rows is None else rows
    document = make_document(rows, names, measures) | changes
    write_files(folder, rows)
    write_viewer(folder / "index.html", document, iter(rows))
    return Report(folder, document, rows)
