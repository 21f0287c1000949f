"""Imports the libraries that read exports, where they are installed; scripts/check_exports.sh does.

Tests that need one are skipped without it: what is read then is read by readers that are written
from what is known of the formats.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest


def consumer(name: str) -> ModuleType:
    """A library, or the test is skipped."""
    return pytest.importorskip(name, exc_type=ImportError)


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
    spec = find_spec_of_package("streaming")
    if spec is None:
        pytest.skip("mosaicml-streaming is not installed")
    for package in ("streaming", "streaming.base"):
        module = ModuleType(package)
        module.__path__ = [str(spec.joinpath(*package.split(".")[1:]))]
        sys.modules[package] = module
    return import_module(name)


def find_spec_of_package(name: str) -> Path | None:
    """The folder of a package that is not imported."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None
