"""float32 means float32 on a GPU too, for those who load a model from Python."""

from __future__ import annotations

import pytest
import torch
from harness.fake_gpu import Call, fake_gpu

import latentcli


@pytest.fixture
def trainer():
    """Settings of a process that trains with TF32."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield backends
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


def test_no_product_is_of_tf32_and_the_trainers_setting_comes_back(monkeypatch, trainer):
    seen: list[tuple[str, bool, bool]] = []

    def note(call: Call) -> None:
        if call.what in ("conv2d", "linear", "matmul"):
            seen.append((call.what, *(backend.allow_tf32 for backend in trainer)))

    images = torch.rand(1, 3, 32, 32) * 2 - 1
    with fake_gpu(monkeypatch) as gpu:
        gpu.allow = note
        model = latentcli.load_model("fcdm_nano", device="cuda:0")
        with torch.inference_mode():
            latents = model.encode(images)
            assert {what for what, *_ in seen} == {"conv2d"}
            model.encode_posterior(images)
            model.decode(latents)
            model.decode_frames(latents)
    assert {what for what, *_ in seen} == {"conv2d", "linear"}
    assert not any(allowed for _, *both in seen for allowed in both)
    assert all(backend.allow_tf32 for backend in trainer)
    with fake_gpu(monkeypatch), pytest.raises(ValueError, match="multiple"):
        model.encode(images[..., :31])
    assert all(backend.allow_tf32 for backend in trainer)
