"""ComfyUI's .latent files: the one of its own writer, and the marker that its reader needs."""

from __future__ import annotations

import pytest
import torch
from goldens import golden, headed, sample, setting
from safetensors.torch import load

from latentcli.exports.comfyui import FORMAT, MARKER


def as_loaded(data):
    """As its LoadLatent node reads."""
    tensors = load(data)
    factor = 1.0 if MARKER in tensors else 1 / 0.18215
    return tensors["latent_tensor"].float() * factor


@pytest.mark.shared
def test_the_programs_own_file(shared):
    meta, _, files = golden(shared, "comfyui")
    theirs = headed(files[meta["file"]])
    latent = theirs[1]["latent_tensor"][0]
    one = sample(latent, "somewhere/ComfyUI_00001_")
    ((path, data),) = FORMAT.write([one], 0, setting(FORMAT, "flux1")).files
    assert path == meta["file"]
    metadata, tensors = headed(data)
    assert metadata == theirs[0] == meta["metadata"]
    found = [[key, str(tensors[key].dtype), list(tensors[key].shape)] for key in sorted(tensors)]
    assert found == meta["keys"]
    assert torch.equal(tensors["latent_tensor"], theirs[1]["latent_tensor"])
    assert torch.equal(as_loaded(data), as_loaded(files[meta["file"]]))
    assert not torch.equal(as_loaded(files["no_marker.latent"]), as_loaded(data))


def test_what_its_reader_makes_of_it():
    latent = torch.full((4, 2, 3), 2.5)
    for dtype in FORMAT.dtypes:
        one = sample(latent, "a/b")
        ((path, data),) = FORMAT.write([one], 0, setting(FORMAT, "sdxl", dtype=dtype)).files
        assert path == "b.latent"
        assert torch.equal(as_loaded(data), latent[None])
    forced = setting(FORMAT, "sdxl", forced=True, space="svd", state="raw")
    ((_, data),) = FORMAT.write([sample(latent, "a")], 0, forced).files
    assert headed(data)[0]["latentcli_forced"] == "svd#raw"
