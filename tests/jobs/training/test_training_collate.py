"""Batches of items: what is stacked, what is listed, and what is refused."""

from __future__ import annotations

import pytest
import torch

from latentcli import collate
from latentcli.core.errors import UsageError


def item(key: str, width: int = 3, **more: object) -> dict[str, object]:
    return {"key": key, "latent": torch.full((4, 2, width), 1.0), "caption": f"of {key}", **more}


def test_tensors_are_stacked_and_texts_listed():
    fields = [{"score": 1}, {"caption": "x", "tags": ["a", "b"]}]
    batch = collate([item("a", fields=fields[0]), item("b", fields=fields[1])])
    assert batch["latent"].shape == (2, 4, 2, 3)
    assert (batch["key"], batch["caption"]) == (["a", "b"], ["of a", "of b"])
    assert batch["fields"] == fields
    assert torch.equal(
        collate([item("a", label=3), item("b", label=4)])["label"], torch.tensor([3, 4])
    )


def test_sizes_that_differ_are_told():
    with pytest.raises(UsageError) as told:
        collate([item("a"), item("b"), item("deep/c", 5)])
    for words in ("'a' has [4, 2, 3]", "'deep/c' has [4, 2, 5]", "BucketBatchSampler", "--size"):
        assert words in str(told.value)


def test_items_that_differ_are_told():
    with pytest.raises(UsageError, match="have class_token: 'a' and 'b'"):
        collate([item("a"), item("b", class_token=torch.zeros(3))])
    with pytest.raises(UsageError, match="no items"):
        collate([])
