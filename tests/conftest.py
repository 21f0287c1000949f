"""Fixtures that every test may use: shared data beside the checkout, a GPU, small real photographs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("LATENTCLI_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and photographs; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED.name}/ folder beside the checkout")
    return SHARED


@pytest.fixture
def cuda() -> str:
    """The CUDA device; without one the test is skipped, or fails where CUDA is required."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if os.environ.get("LATENTCLI_REQUIRE_CUDA") == "1":
        pytest.fail("LATENTCLI_REQUIRE_CUDA=1, but torch sees no CUDA device")
    pytest.skip("no CUDA device")
