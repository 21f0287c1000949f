"""The folder of reference vectors, for all tests of the models."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    return shared / "golden"
