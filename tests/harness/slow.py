"""Leaves single cases of a test to `scripts/test.sh --slow`."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """A case of a parametrized test that takes long, and whose like is tested without it."""
    # As a decorator it would put a case in the place of the test, which pytest then never finds.
    if any(getattr(value, "__name__", "").startswith("test_") for value in values):
        raise TypeError("slow() is for one case of a test; mark a whole test @pytest.mark.slow")
    return pytest.param(*values, marks=pytest.mark.slow)
