"""Imports the libraries that read exports and stores, where they are installed.

Tests that need one are skipped without it; scripts/check_exports.sh installs them all. What is read
otherwise is read by readers that are written from what is known of the formats.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest


def consumer(name: str) -> ModuleType:
    """A library; without it the test is skipped, or fails where all are required."""
    if find_spec(name) is None:
        missing(name)
    return import_module(name)


def missing(name: str) -> NoReturn:
    """Ends a test whose library is not there."""
    if os.environ.get("LATENTCLI_REQUIRE_CONSUMERS") == "1":
        pytest.fail(f"LATENTCLI_REQUIRE_CONSUMERS=1, but {name} is not installed")
    pytest.skip(f"{name} is not installed")


def mosaic(name: str) -> ModuleType:
    """A module of mosaicml-streaming, such as streaming.base.local.

    Its packages import all that they have, among it torchvision and transformers, which no reader
    needs: where these are not there, packages are passed over, and their modules imported alone.
    """
    try:
        return import_module(name)
    except (ImportError, RuntimeError):
        for known in [known for known in sys.modules if known.partition(".")[0] == "streaming"]:
            del sys.modules[known]
    spec = find_spec("streaming")
    if spec is None or spec.origin is None:
        missing("mosaicml-streaming")
    for package in ("streaming", "streaming.base"):
        module = ModuleType(package)
        module.__path__ = [str(Path(spec.origin).parent.joinpath(*package.split(".")[1:]))]
        sys.modules[package] = module
    return import_module(name)
