"""Sizes of memory as people write them."""

from __future__ import annotations

import pytest

from latentcli.core.byte_size import byte_size, byte_words
from latentcli.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * 2**30),
        ("500 MB", 500_000_000),
        ("1.5g", 1_500_000_000),
        ("2gi", 2 * 2**30),
        ("7kb", 7000),
        ("123", 123),
        ("9B", 9),
    ],
)
def test_sizes(text, size):
    assert byte_size(text, "--max-memory") == size


@pytest.mark.parametrize("text", ["", "0", "GiB", "-1GB", "4 apples", "4iB", "0.1B", "١GB"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match=r"--max-memory is .*; give a size such as 4GiB"):
        byte_size(text, "--max-memory")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**40, "5.0 TiB")]
)
def test_sizes_in_words(size, text):
    assert byte_words(size) == text
