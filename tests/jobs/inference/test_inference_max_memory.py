"""Jobs under --max-memory: large pictures in parts, whatever the threads, or a clear reason."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from encodekit import LINEAR, pictures
from jobkit import decode, encode, failures_of, latents_of, pictures_of
from safetensors.torch import save_file

from latentcli.core.errors import UsageError
from latentcli.jobs.inference.engine import load_engine
from latentcli.jobs.inference.max_memory import mib
from latentcli.models.tiny import FAMILY, TinyAutoencoder
from latentcli.models.weights import random_state

AMPLE = 10**12
SIZES = ((640, 512), (96, 64), (96, 64))
"""Of the inputs, the first takes more than a picture of 512x512."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    config = {**FAMILY.tiny, "pool": False}
    (folder / "config.json").write_text(json.dumps(config))
    state = random_state(lambda: FAMILY.build(config, None), 0)
    save_file(state, folder / "model.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "in", SIZES)


def least(model: str) -> int:
    """Bytes that suffice for a picture of 512x512."""
    rooms = load_engine(model, device="cpu", max_memory=AMPLE).rooms.values()
    weights = AMPLE - min(room.limit for room in rooms)
    return weights + max(room.whole for room in rooms) * 512**2


@pytest.mark.slow
def test_large_pictures_are_computed_in_parts(folder, tiny, tmp_path):
    limit = str(least(tiny))
    encode(folder, tmp_path / "whole", tiny)
    threads = torch.get_num_threads()
    stores = tmp_path / "one", tmp_path / "two"
    try:
        for number, store in enumerate(stores, 1):
            torch.set_num_threads(number)
            told = encode(folder, store, tiny, max_memory=limit)
            assert (told["encoded"], told["failed"]) == (3, 0)
    finally:
        torch.set_num_threads(threads)
    whole, one, two = (latents_of(s) for s in (tmp_path / "whole", *stores))
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name, latent in whole.items():
        torch.testing.assert_close(one[name].float(), latent.float(), rtol=0.01, atol=0.01)
    spec = json.loads((stores[0] / "manifest.json").read_text())["spec"]
    assert spec["encode"]["max_memory"] == int(limit)
    assert encode(folder, stores[0], tiny, max_memory=limit)["encoded"] == 0
    for out, options in (("a", {}), ("b", {"max_memory": limit})):
        told = decode(stores[0], tmp_path / out, model=tiny, **options)
        assert (told["decoded"], told["failed"]) == (3, 0)
    plain, parts = pictures_of(tmp_path / "a"), pictures_of(tmp_path / "b")
    assert plain.keys() == parts.keys()
    for name, pixels in plain.items():
        assert np.abs(pixels.astype(int) - parts[name]).max() <= 1


def test_a_model_that_is_only_whole_says_why(folder, tmp_path):
    told = encode(folder, tmp_path / "store", LINEAR, max_memory=str(least(LINEAR)))
    assert (told["encoded"], told["failed"]) == (2, 1)
    (row,) = failures_of(tmp_path / "store").values()
    assert "a picture of 640x512 takes" in row["error"]
    assert "in parts: it takes little more than the picture itself" in row["error"]


def test_a_device_with_less_free_is_told_from_the_limit(folder, tiny, tmp_path, monkeypatch):
    """The picture is above the limit whole, and was being computed in parts, which are below it."""
    encode_tiny = TinyAutoencoder.encode

    def limited(self: TinyAutoencoder, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] == 640:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode_tiny(self, images)

    monkeypatch.setattr(TinyAutoencoder, "encode", limited)
    told = encode(folder, tmp_path / "store", tiny, max_memory=str(least(tiny)))
    assert (told["encoded"], told["failed"]) == (2, 1)
    (row,) = failures_of(tmp_path / "store").values()
    words = r"ran out of memory on a picture of 640x512: it has less free than the \d+ MiB that"
    assert re.search(words, row["error"]) and "takes" not in row["error"]


def test_too_little_is_refused_before_anything_is_read(folder, tiny, tmp_path):
    with pytest.raises(UsageError, match="the weights alone are"):
        encode(folder, tmp_path / "store", tiny, max_memory="1KB")
    needed = least(tiny)
    with pytest.raises(UsageError, match=f"needs {mib(needed)} for a picture of 512x512"):
        encode(folder, tmp_path / "store", tiny, max_memory=str(needed - 1))
    assert not (tmp_path / "store").exists()
