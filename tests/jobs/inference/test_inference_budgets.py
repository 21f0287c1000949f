"""What a GPU has to do for the published networks: where tensors are, launches and bytes.

Tensors have no values here, so networks of any size take neither time nor memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from harness.fake_gpu import FakeGpu, fake_gpu
from torch._subclasses.fake_tensor import FakeTensorMode

from latentcli.jobs.inference.encode_batch import encode_on_device
from latentcli.jobs.inference.engine import Engine, decode_on_device, load_engine
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.models.kernels import ops
from latentcli.models.presets import load_preset, preset_names

DEVICE = torch.device("cuda:1")
QUICK = ("fcdm_nano", "linear16", "taef2")
PRESETS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in preset_names()
]


@contextmanager
def without_values(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[tuple[Engine, FakeGpu]]:
    """A model in bfloat16 on the second of two GPUs."""
    with FakeTensorMode(allow_non_fake_inputs=True), fake_gpu(monkeypatch, count=2) as gpu:
        engine = load_engine(name, device=str(DEVICE), random_weights=True)
        ops.works(DEVICE)
        gpu.calls.clear()
        yield engine, gpu


def encode(engine: Engine, count: int, side: int, **asked: object) -> dict[str, torch.Tensor]:
    pixels = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    keys = [str(i) for i in range(count)]
    return encode_on_device(engine, pixels, keys, engine.model.spec.state, **asked)


def decode(engine: Engine, count: int, side: int) -> torch.Tensor:
    spec = engine.model.spec
    z = torch.zeros(count, spec.channels, side // spec.downscale, side // spec.downscale)
    return decode_on_device(engine, z, [str(i) for i in range(count)], DecodeSettings())


@pytest.mark.parametrize("name", PRESETS)
def test_everything_is_on_the_device(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    preset = load_preset(name)
    if preset.family == "kl":
        pytest.importorskip("diffusers")
    with without_values(monkeypatch, name) as (engine, _):
        assert (engine.dtype, engine.model.device) == ("bf16", DEVICE)
        side = max(64, engine.model.spec.size_divisor)
        if engine.model.can_encode:
            parts = encode(engine, 2, side, class_token=engine.model.predicts_class, flip=True)
            assert {(part.device, part.dtype) for part in parts.values()} == {
                (DEVICE, torch.float32)
            }
        if engine.model.can_decode:
            pictures = decode(engine, 2, side)
            assert (pictures.device, pictures.dtype) == (DEVICE, torch.uint8)
            assert pictures.shape == (2, 3, side, side)


BUDGETS = [
    ("full_capacitor", encode, 128, 256, 60, 8.0),
    ("dinac_ae_d2", encode, 128, 256, 100, 17.2),
    ("capacitor_decoder", decode, 1, 512, 136, 0.5),
]
"""Preset, what is done, pictures, their side, and at most so many launches and 10^9 bytes."""


@pytest.mark.parametrize(("name", "work", "count", "side", "launches", "gigabytes"), BUDGETS)
def test_launches_and_bytes(
    monkeypatch, name: str, work, count: int, side: int, launches: int, gigabytes: float
) -> None:
    pytest.importorskip("triton", reason="Triton has no build for this system")
    with without_values(monkeypatch, name) as (engine, gpu):
        work(engine, count, side)
    done = [call.moved for call in gpu.work() if call.moved is not None]
    # Not so few either that the counter must have missed some.
    assert 0.8 * launches < len(done) <= launches
    assert 0.8 * gigabytes < sum(done) / 1e9 <= gigabytes
