"""Holds a dataset whose life is lived at random, and draws what is in it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

from latentcli.core.mark import MADE_BY

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".heic": "HEIF",
    ".jpg_large": "JPEG",
    "": "PNG",
}
"""How pictures are written whose names end so."""
SUFFIXES = (".png", ".jpg", ".webp") * 3 + tuple(FORMATS)
"""Endings of new pictures, usual ones more often."""
UNUSUAL = (".jpg_large", "")
"""Of these, the ones that say nothing."""
TEXTS = (".txt", ".caption", ".json")
STORE = "own.latents"
"""Name of a store that is in its dataset's own folder."""
OTHER_STORE = "other.latents"
"""Name of a second one that is made there."""
HEADS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"II*\0", b"MM\0*")
BOX = b"ftyp"


@dataclass
class Life:
    """A dataset, its store, and what has happened to them."""

    home: Path
    chance: random.Random
    form: str
    """Format of the store's shards."""
    inside: bool
    """Whether the store is in the dataset's folder, and moves with it."""
    data: Path = field(init=False)
    made: int = 0
    """What has been made so far; numbers in names are this."""
    moves: int = 0
    copies: int = 0
    """Of the moves, those that gave all files other times."""
    decodes: int = 0
    kills: int = 0
    told: list[str] = field(default_factory=list)
    """The actions and commands so far."""

    def __post_init__(self) -> None:
        self.data = self.home / "data0"
        self.data.mkdir(parents=True)

    @property
    def store(self) -> Path:
        """Where the store is."""
        return (self.data if self.inside else self.home) / STORE

    def number(self) -> int:
        """One that nothing has yet."""
        self.made += 1
        return self.made

    def name(self, path: Path) -> str:
        """A path as it is told."""
        return str(path.relative_to(self.data))

    def paths(self) -> list[Path]:
        """All files, links and folders of the user's, and pictures that were decoded."""
        found, folders = [], [self.data]
        while folders:
            for path in sorted(folders.pop().iterdir()):
                if path.name in (STORE, OTHER_STORE):
                    continue
                found.append(path)
                if path.is_dir():
                    folders.append(path)
        return sorted(found)

    def folders(self) -> list[Path]:
        """The folders below the dataset's."""
        return [path for path in self.paths() if path.is_dir()]

    def pictures(self) -> list[Path]:
        """The files that are pictures by their names or first bytes, and are the user's."""
        return [path for path in self.paths() if is_picture(path) and not is_ours(path)]

    def decoded(self) -> list[Path]:
        """The pictures that `decode` wrote, and that lie where it wrote them."""
        return [path for path in self.paths() if is_picture(path) and is_ours(path)]

    def texts(self) -> list[Path]:
        """The files that may be captions."""
        return [path for path in self.paths() if path.suffix in TEXTS and path.is_file()]

    def picked(self) -> Path:
        """One of the pictures; no link that leads nowhere."""
        return self.chance.choice([path for path in self.pictures() if path.exists()])

    def folder(self) -> Path:
        """A folder of the dataset, perhaps a new one."""
        there = [self.data, *self.folders()]
        if self.chance.random() < 0.2 and len(there) < 6:
            made = self.chance.choice(there) / f"f{self.number()}"
            made.mkdir()
            return made
        return self.chance.choice(there)

    def draw(self, path: Path) -> None:
        """Writes a picture that no other is like."""
        size = self.chance.choice([(16, 16), (32, 16), (16, 32)])
        noise = np.random.default_rng(self.number())
        image = Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), np.uint8))
        if path.suffix == ".heic":
            pillow_heif.from_pillow(image).save(path)
        else:
            image.save(path, FORMATS[path.suffix])


def is_picture(path: Path) -> bool:
    """Whether a file is one by its name, or by its first bytes where its name does not say it.

    A link that leads nowhere is one by its name.
    """
    if path.name.startswith(".") or path.suffix not in FORMATS or path.is_dir():
        return False
    if path.suffix not in UNUSUAL:
        return True
    if not path.is_file():
        return False
    head = path.read_bytes()[:12]
    return head.startswith(HEADS) or head[4:8] == BOX


def is_ours(path: Path) -> bool:
    """Whether `decode` wrote a picture that lies where it was written."""
    marked = path.is_file() and (path.parent / ".latentcli").exists()
    return marked and MADE_BY.encode() in path.read_bytes()
