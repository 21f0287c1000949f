"""Sizes of pictures as people write them."""

from __future__ import annotations

import pytest

from latentcli.core.errors import UsageError
from latentcli.core.pixel_size import pixel_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("256", (256, 256)), ("512x256", (512, 256)), (" 64X32 ", (64, 32))],
)
def test_sizes_are_read(text: str, size: tuple[int, int]) -> None:
    assert pixel_size(text, "--size") == size


@pytest.mark.parametrize(
    "text", ["", "0", "x", "12x", "x12", "-5", "12x0", "1.5", "a", "1x2x3", "1e3"]
)
def test_other_text_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match=r"--area is .*WIDTHxHEIGHT"):
        pixel_size(text, "--area")
