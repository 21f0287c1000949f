"""Recordings on a GPU that torch is made to have: one launch, new inputs, and where none can be."""

from __future__ import annotations

import logging

import pytest
import torch
from encodekit import LINEAR
from harness.fake_gpu import Call, fake_gpu

from latentcli.jobs.inference.accelerator import Cpu, Cuda
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import decode_batch, load_engine, with_code
from latentcli.jobs.inference.recording import SMALL, can_record, recorded
from latentcli.jobs.settings.model import DecodeSettings

KEYS = ["a", "b", "c"]


@pytest.fixture
def gpu(monkeypatch):
    with fake_gpu(monkeypatch) as gpu:
        yield gpu


@pytest.fixture(autouse=True)
def never_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("It was compiled."))


def latents(seed: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 8, 2, 3, generator=torch.Generator().manual_seed(seed))


def test_small_batches_alone_are_recorded(gpu):
    assert can_record(Cuda(0), SMALL) and not can_record(Cuda(0), SMALL + 1)
    assert not can_record(Cpu(), 1)


@pytest.mark.parametrize("steps", [1, 3])
def test_decode_is_recorded_once_and_replayed(gpu, model, steps):
    settings = DecodeSettings(steps=steps, sampler="dpmpp_2m", pdg=True)
    plain = load_engine(model, device="cuda:0", dtype="fp32")
    coded = with_code(plain, "decode", {(48, 32): 2})
    pictures = []
    for number, (seed, keys) in enumerate(((0, KEYS[:2]), (1, KEYS[1:]), (0, KEYS[:2]))):
        found = decode_batch(coded, latents(seed), keys, settings)
        assert torch.equal(found, decode_batch(plain, latents(seed), keys, settings))
        # The first call compares its replay with the model's own work.
        assert (gpu.count("capture"), gpu.count("replay")) == (1, 2 + number)
        pictures.append(found)
    assert torch.equal(pictures[0], pictures[2]) and not torch.equal(pictures[0], pictures[1])


def test_a_replay_is_all_that_the_host_asks_for(gpu, model):
    plain = load_engine(model, device="cuda:0", dtype="fp32")
    coded = with_code(plain, "decode", {(48, 32): 2})
    decode_batch(coded, latents(0), KEYS[:2], DecodeSettings())
    before = len(gpu.work())
    decode_batch(coded, latents(1), KEYS[:2], DecodeSettings())
    # Latents and noise in, the picture out, and its rounding to 8 bits.
    assert len(gpu.work()) - before < 12
    before = len(gpu.work())
    decode_batch(plain, latents(1), KEYS[:2], DecodeSettings())
    assert len(gpu.work()) - before > 100


def test_encode_is_recorded_and_a_batch_that_is_not_full_is_not(gpu):
    plain = load_engine(LINEAR, device="cuda:0", dtype="fp32")
    coded = with_code(plain, "encode", {(48, 32): 2})
    draw = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (3, 3, 32, 48), dtype=torch.uint8, generator=draw)
    for part in (batch[:2], batch[1:], batch[:1], batch):
        keys = KEYS[: len(part)]
        for state in ("whitened", "raw"):
            found, right = (
                encode_batch(engine, part, keys, state)["latent"] for engine in (coded, plain)
            )
            assert torch.equal(found, right)
    # Of the two ways to encode, one each.
    assert gpu.count("capture") == 2


def test_results_are_not_the_next_ones(gpu, model):
    """What a job still holds of a batch stays as it is when the next one is replayed."""
    engine = load_engine(model, device="cuda:0", dtype="fp32")
    with torch.inference_mode():
        inputs = [latents(seed).to("cuda:0") for seed in (0, 1)]
        code = recorded(lambda x: (x * 2,), (inputs[0],), engine.accelerator)
        first, second = (code(x)[0] for x in inputs)
    assert torch.equal(first.values, latents(0) * 2) and torch.equal(second.values, latents(1) * 2)


def test_work_that_cannot_be_recorded_is_done_as_it_is(gpu, model, monkeypatch, caplog):
    def waits(call, given, accelerator):
        def asking(*given: object) -> object:
            results = call(*given)
            results[0].tolist()
            return results

        return recorded(asking, given, accelerator)

    monkeypatch.setattr("latentcli.jobs.inference.compiled_model.recorded", waits)
    plain = load_engine(model, device="cuda:0", dtype="fp32")
    coded = with_code(plain, "decode", {(48, 32): 2})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = decode_batch(coded, latents(0), KEYS[:2], DecodeSettings())
            assert torch.equal(found, decode_batch(plain, latents(0), KEYS[:2], DecodeSettings()))
    assert [record.message for record in caplog.records] == [
        "The network's decode of 48x32, batch 2 could not be recorded, and runs without a"
        " recording: CUDA error: operation not permitted when stream is capturing"
    ]
    assert not gpu.count("replay")


def test_short_memory_while_recording_is_short_memory(gpu, model):
    """It is no reason to do without from then on: the batch is halved, and others fit again."""
    engine = with_code(load_engine(model, device="cuda:0", dtype="fp32"), "decode", {(48, 32): 2})

    def allow(call: Call) -> None:
        if gpu.count("capture") == 1 and call.allocates:
            raise torch.OutOfMemoryError("CUDA out of memory")

    gpu.allow = allow
    with pytest.raises(torch.OutOfMemoryError):
        decode_batch(engine, latents(0), KEYS[:2], DecodeSettings())
    gpu.allow = lambda call: None
    decode_batch(engine, latents(0), KEYS[:2], DecodeSettings())
    assert (gpu.count("capture"), gpu.count("replay")) == (2, 2)
