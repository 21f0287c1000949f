"""Loads the packages that extras bring, when the first file comes that needs one."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from latentcli.core.errors import SampleError
from latentcli.images.formats import EXTRAS


def load_extra(extra: str, name: str) -> ModuleType:
    """The module of a key of EXTRAS; SampleError that says how to get it to read a `name` file."""
    try:
        return import_module(EXTRAS[extra])
    except ImportError as error:
        raise SampleError(
            "decode_image",
            f"{name} pictures are read with {EXTRAS[extra]}, which is not installed ({error}):"
            f" pip install 'latentcli[{extra}]'",
        ) from error
