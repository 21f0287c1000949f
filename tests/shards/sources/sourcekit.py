"""What the tests of sources share: trees of files here and in memory://, and scans of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec

from latentcli.images.formats import picture_by_bytes
from latentcli.shards.sources.expand import expand_source
from latentcli.shards.sources.scan import Scan

PICTURES = frozenset({".jpg", ".png"})
JPEG = b"\xff\xd8\xff\xe0" + b"x" * 20
PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 20
HEIC = b"\0\0\0\x18ftypheic" + b"x" * 20


def scan(**options: Any) -> Scan:
    """One that takes JPEG and PNG, by name or by first bytes, and knows of HEIC."""
    settings = {"told": picture_by_bytes, "unread": {".heic": "get a decoder"}} | options
    return Scan(PICTURES, **settings)


def put(root: str | Path, files: Mapping[str, bytes]) -> str:
    """Writes files below a folder or URL, which is returned."""
    for name, data in files.items():
        if "://" in str(root):
            fsspec.filesystem("memory").pipe(f"{root}/{name}", data)
        else:
            path = Path(root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return str(root)


def found(source: object, using: Scan | None = None) -> tuple[list[str], dict[str, int]]:
    """Names of the files that a source gives, below its anchor, and what it leaves out."""
    using = using or scan()
    given = expand_source(str(source), using)
    assert given.anchor is not None
    skip = len(given.anchor) + 1
    return sorted(path[skip:] for path in given.files.paths), using.left_out.to_json()
