from __future__ import annotations

import pytest
import torch

from latentcli.latents.pack import pack, unpack


def test_there_and_back():
    mean, logsnr = torch.randn(2, 3, 4, 5, 6).unbind()
    tensors, bad = pack(["x/a", "b", "c"], {"mean": mean, "logsnr": logsnr})
    assert bad == {}
    assert len(tensors) == 6
    for i, key in enumerate(["x/a", "b", "c"]):
        parts = unpack(tensors, key)
        assert list(parts) == ["mean", "logsnr"]
        assert torch.equal(parts["mean"], mean[i].bfloat16())
        assert torch.equal(parts["logsnr"], logsnr[i].bfloat16())


def test_a_sample_does_not_keep_its_batch():
    batch = torch.randn(8, 4, 2, 2).bfloat16().permute(0, 1, 3, 2)
    tensors, _ = pack([str(i) for i in range(8)], {"latent": batch})
    for tensor in tensors.values():
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == 4 * 2 * 2 * 2
    batch.zero_()
    assert tensors["0/latent"].any()


def test_dtype():
    values = torch.randn(1, 2, 2, 2)
    tensors, _ = pack(["a"], {"latent": values}, "fp32")
    assert torch.equal(tensors["a/latent"], values[0])


def test_values_that_are_not_finite_are_reported_by_key():
    values = torch.zeros(4, 2, 3, 3)
    values[1, 0, 0, :2] = float("nan")
    values[2, 1, 2, 2] = float("-inf")
    values[3, 0, 0, 0] = 1e6
    tensors, bad = pack(list("abcd"), {"latent": values})
    assert list(tensors) == ["a/latent", "d/latent"]
    assert bad == {
        "b": "2 of 18 values of the latent are not finite in bfloat16",
        "c": "1 of 18 values of the latent are not finite in bfloat16",
    }
    assert pack(list("abcd"), {"latent": values}, "fp16").bad["d"].endswith("in float16")
    tensors, bad = pack(list("abcd"), {"mean": torch.zeros_like(values), "logsnr": values})
    assert sorted(tensors) == ["a/logsnr", "a/mean", "d/logsnr", "d/mean"]


def test_keys_and_samples_go_together():
    with pytest.raises(ValueError, match="2 samples, there are 1 keys"):
        pack(["a"], {"latent": torch.zeros(2, 1, 1, 1)})
    with pytest.raises(ValueError, match="twice"):
        pack(["a", "a"], {"latent": torch.zeros(2, 1, 1, 1)})


def test_unpack_tells_keys_within_keys_apart():
    tensors, _ = pack(["a", "a/latent"], {"latent": torch.rand(2, 1, 1, 1)})
    assert unpack(tensors, "a") == {"latent": tensors["a/latent"]}
    with pytest.raises(ValueError, match="no tensor of key 'a/'"):
        unpack(tensors, "a/")
