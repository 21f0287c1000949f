"""Batch sizes that follow from the pictures, and that a store keeps."""

from __future__ import annotations

import pytest
import torch
from encodekit import LINEAR, pictures
from jobkit import encode, tree
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from latentcli.core.errors import StoreError
from latentcli.images.buckets import make_buckets
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.encode.plan import stored_batch_size, stored_spec
from latentcli.jobs.inference.accelerator import Cpu, Cuda
from latentcli.jobs.inference.batch_size import LARGEST, counted_size, default_batch_size
from latentcli.models.presets import load_preset
from latentcli.models.registry import family

SIDES = (64, 256, 512, 1024, 4096)


def test_on_a_gpu_it_follows_from_the_size_of_the_pictures():
    """The published settings; and no device is asked: there is none here, and none is faked."""
    sizes = {side: default_batch_size(Cuda, PreprocessSpec((side, side), 16)) for side in SIDES}
    assert sizes == {64: LARGEST, 256: 128, 512: 32, 1024: 8, 4096: 8}
    assert default_batch_size(Cuda, PreprocessSpec(None, 96)) == 8
    table = make_buckets("area", 256, None, 16)
    assert 120 <= default_batch_size(Cuda, PreprocessSpec(None, 16, buckets=table)) <= 136


def test_no_network_gets_more_values_than_kernels_count():
    """The widest tensor of one preset of each family, at the batch size that it gets of 64x64."""
    seen = 0

    class Widest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal seen
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and not func.is_view:  # views are of weights too
                seen = max(seen, out.numel())
            return out

    for name in ("full_capacitor", "dinac_ae", "flux2", "taef2"):
        preset = load_preset(name)
        with torch.device("meta"):
            model = family(preset.family).build(dict(preset.config), preset.spec)
        model.to_empty(device="meta")  # its tables too
        side = max(64, preset.spec.size_divisor)
        seen = 0
        with torch.no_grad(), Widest():
            model.encode_posterior(torch.zeros(1, 3, side, side, device="meta"))
        assert seen * Cuda.batch_pixels // side**2 < 2**31, name


def test_sizes_that_are_counted():
    assert counted_size(PreprocessSpec((512, 256), 16)) == (512, 256)
    assert counted_size(PreprocessSpec(None, 96)) == (1024, 1024)
    # Of larger pictures fewer go together, with as many pixels.
    assert counted_size(PreprocessSpec((4096, 2048), 16)) == (1024, 1024)
    table = make_buckets("area", 256, None, 16)
    width, height = counted_size(PreprocessSpec(None, 16, buckets=table))
    assert width * height == max(w * h for w, h in table.table)


def test_a_cpu_gets_8():
    for size in (None, (64, 64), (4096, 4096)):
        assert default_batch_size(Cpu, PreprocessSpec(size, 16)) == 8


def test_a_store_keeps_its_batch_size(tmp_path, monkeypatch):
    folder = pictures(tmp_path / "in", ((64, 48),) * 3)
    store = tmp_path / "store"
    assert encode(folder, store, LINEAR, batch_size=None)["batch_size"] == 8
    monkeypatch.setattr(Cpu, "batch_size", 32)
    pictures(tmp_path / "in", ((64, 48),) * 5)
    told = encode(folder, store, LINEAR, batch_size=None)
    assert (told["batch_size"], told["encoded"], stored_batch_size(stored_spec(store))) == (8, 2, 8)
    assert encode(folder, tmp_path / "new", LINEAR, batch_size=None)["batch_size"] == 32
    before = tree(store)
    with pytest.raises(StoreError, match="batch_size is 8 in the store and 5 now"):
        encode(folder, store, LINEAR, batch_size=5)
    assert tree(store) == before


def test_no_store_has_no_batch_size(tmp_path):
    assert stored_batch_size(stored_spec(tmp_path / "none")) is None
    (tmp_path / "manifest.json").write_text("{}")
    assert stored_batch_size(stored_spec(tmp_path)) is None


def test_plan_says_what_the_store_has(tmp_path):
    folder = pictures(tmp_path / "in", ((64, 48),) * 3)
    encode(folder, tmp_path / "store", LINEAR, batch_size=4)
    planned = encode(folder, tmp_path / "store", LINEAR, batch_size=None, dry_run=True)
    assert planned["refused"] == [] and planned["to_encode"] == 0
