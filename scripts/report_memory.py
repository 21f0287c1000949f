"""Measures the memory of `roundtrip --report` on few and many pictures, and the page's speed.

The pictures are crops of 256x256 of the photographs that lie inside scikit-image. The page is
opened from the disk by a headless Chromium and scrolled to its end. Exit code 1 where the memory of
the many exceeds --limit times that of the few, or the page takes longer than --seconds.

    python scripts/report_memory.py --many 5000
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skimage
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.measure import Used, measure

SIDE = 256
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Opened:
    """A page in a browser."""

    seconds: float
    """Until the first thumbnails of the list were drawn."""
    scrolled: float
    """Seconds from the first picture to the last."""
    told: str
    """What the page says of the length of its list."""
    errors: list[str]


def crops(folder: Path, count: int) -> Path:
    """A folder of JPEGs, the same ones every time."""
    draw = random.Random(0)
    data = Path(skimage.__file__).parent / "data"
    sources = [Image.open(data / name).convert("RGB") for name in PHOTOGRAPHS]
    for i in range(count):
        source = draw.choice(sources)
        left, top = (draw.randrange(side - SIDE + 1) for side in source.size)
        picture = source.crop((left, top, left + SIDE, top + SIDE))
        path = folder / f"{i // 1000:02d}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=92)
    return folder


def roundtrip(pictures: Path, report: Path, model: str, workers: int) -> Used:
    """The job, in processes of its own."""
    words = ["roundtrip", str(pictures), "--model", model, "--report", str(report), "--json"]
    return measure([sys.executable, "-m", "latentcli", *words, "--workers", str(workers)])


def open_page(page: Path, count: int) -> Opened:
    """The page of `count` pictures in a Chromium that has not seen it before."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise SystemExit("report_memory.py: no Chromium was found; install one")
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, chromium_sandbox=False, args=["--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        begin = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="load")
        wait_drawn(tab, 0)
        opened = time.perf_counter()
        scroll_to(tab, count - 1)
        scrolled = time.perf_counter()
        told = tab.locator("#count").inner_text()
        browser.close()
    return Opened(opened - begin, scrolled - opened, told, errors)


def scroll_to(tab: Any, index: int) -> None:
    """Scrolls down page by page, as a person with the End key does, until a picture is drawn."""
    while not tab.locator(thumbnail(index)).count():
        tab.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
        tab.wait_for_timeout(20)
    wait_drawn(tab, index)


def wait_drawn(tab: Any, index: int) -> None:
    """Waits until a picture's thumbnail is loaded."""
    image = tab.locator(thumbnail(index))
    image.wait_for()
    while not image.evaluate("image => image.complete && image.naturalWidth > 0"):
        tab.wait_for_timeout(5)


def thumbnail(index: int) -> str:
    """The selector of a picture in the list."""
    return f'#grid img[src$="{index:06d}.thumb.webp"]'


def main(argv: Sequence[str] | None = None) -> int:
    """The measurement; its exit code."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--few", type=int, default=500)
    options.add_argument("--many", type=int, default=5000)
    options.add_argument("--model", default="fcdm_nano")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--limit", type=float, default=1.1)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--keep", type=Path, help="folder for the pictures and the reports")
    chosen = options.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        root = chosen.keep or Path(temporary)
        used = {}
        for name in ("few", "many"):
            count = getattr(chosen, name)
            pictures = crops(root / name, count)
            used[name] = roundtrip(pictures, root / f"{name}.report", chosen.model, chosen.workers)
            print(
                f"{count:,} pictures: {used[name].seconds:.0f} s, {used[name].main:.1f} MiB main,"
                f" {used[name].tree:.1f} MiB all processes",
                flush=True,
            )
        page = open_page(root / "many.report" / "index.html", chosen.many)
    ratio = used["many"].tree / used["few"].tree
    print(f"memory ratio {ratio:.3f} (limit {chosen.limit})")
    print(
        f"page ({page.told}): opened in {page.seconds:.2f} s (limit"
        f" {chosen.seconds:g}), scrolled to its end in {page.scrolled:.2f} s,"
        f" {len(page.errors)} errors"
    )
    good = ratio <= chosen.limit and page.seconds <= chosen.seconds and not page.errors
    return 0 if good and f"{chosen.many:,}" in page.told else 1


if __name__ == "__main__":
    raise SystemExit(main())
