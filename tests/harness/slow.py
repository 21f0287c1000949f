"""Leaves single cases of a test to `scripts/test.sh --slow`."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """A case of a parametrized test that takes long, and whose like is tested without it."""
    return pytest.param(*values, marks=pytest.mark.slow)
