"""Reads sizes of pictures as people write them: 256, or 512x384."""

from __future__ import annotations

import re

from latentcli.core.errors import UsageError

SIZE = re.compile(r"([1-9][0-9]{0,5})(?:[xX]([1-9][0-9]{0,5}))?")


def pixel_size(text: str, option: str) -> tuple[int, int]:
    """(W, H): "256" is (256, 256) and "512x256" is (512, 256). UsageError names the option."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{option} is {text!r}; write one side like 256, or WIDTHxHEIGHT like 512x256"
        )
    width, height = match.groups()
    return int(width), int(height or width)
