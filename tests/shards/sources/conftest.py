"""What the tests of sources are given: a place for files, here and in remote storage."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest


@pytest.fixture(params=["local", "remote"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder that is not there yet, or the URL of one in memory://."""
    if request.param == "local":
        yield str(tmp_path / "place")
        return
    url = f"memory://{uuid.uuid4().hex}/place"
    yield url
    if fsspec.filesystem("memory").exists(url):
        fsspec.filesystem("memory").rm(url, recursive=True)
