"""The loader is tested with the processes that it starts itself."""

from __future__ import annotations

import pytest


@pytest.fixture
def warm_loaders():
    """Nothing: a new interpreter for each process, as in a real job."""
