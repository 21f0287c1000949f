"""Devices and dtypes that are picked, and batches that do not depend on their company."""

from __future__ import annotations

import time

import pytest
import torch

from latentcli.core.errors import UsageError
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.inference.accelerator import Cpu, DeviceTimer
from latentcli.jobs.inference.encode_batch import encode_batch, encode_on_device
from latentcli.jobs.inference.engine import (
    decode_batch,
    inference_config,
    load_engine,
)
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.models.fast.form import FORMS
from latentcli.models.fcdm_network import FCDMDecoder, FCDMEncoder
from latentcli.models.registry import load_model

LEVELS = 1
"""Levels of 255 by which a decoded picture may differ with batch size and threads.

Measured on the toy model and on fcdm_nano: this, in 4 of 100,000 values.
"""


@pytest.fixture(scope="module")
def engine(model):
    return load_engine(model, device="cpu")


def test_parts_of_each_state(engine):
    pixels = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    keys = ["a", "b"]
    whitened = encode_batch(engine, pixels, keys, "whitened")["latent"]
    raw = encode_batch(engine, pixels, keys, "raw")["latent"]
    moments = encode_batch(engine, pixels, keys, "moments")
    assert whitened.shape == raw.shape == moments["mean"].shape == (2, 8, 2, 3)
    assert set(moments) == {"mean", "logsnr"}
    assert all(x.dtype == torch.float32 for x in (whitened, raw, *moments.values()))
    torch.testing.assert_close(engine.model.whiten(raw), whitened)
    sample = encode_batch(engine, pixels, keys, "raw", 1)["latent"]
    alone = encode_batch(engine, pixels[1:], keys[1:], "raw", 1)["latent"]
    torch.testing.assert_close(sample[1:], alone, rtol=1e-4, atol=1e-5)
    sigma = (1 - torch.sigmoid(moments["logsnr"])).sqrt()
    spread = ((sample - raw) / sigma).std()
    assert 0.7 < spread < 1.3


@pytest.mark.parametrize("threads", [1, 2])
def test_a_picture_does_not_depend_on_its_company(engine, threads):
    latents = torch.randn(5, 8, 2, 3, generator=torch.Generator().manual_seed(0))
    keys = [f"k{i}" for i in range(5)]
    settings = DecodeSettings(steps=3, seed=7)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = decode_batch(engine, latents, keys, settings)
    finally:
        torch.set_num_threads(before)
    for i in range(5):
        alone = decode_batch(engine, latents[i : i + 1], keys[i : i + 1], settings)
        assert (alone[0].int() - together[i].int()).abs().max() <= LEVELS
    other = decode_batch(engine, latents, keys, DecodeSettings(steps=3, seed=8))
    assert not torch.equal(other, together)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_latent_has_the_same_bits_on_any_number_of_threads_and_in_any_batch(model, dtype):
    engine = load_engine(model, device="cpu", dtype=dtype)
    draw = torch.Generator().manual_seed(0)
    # So large that each is a piece of its own.
    pixels = torch.randint(0, 256, (5, 3, 192, 384), dtype=torch.uint8, generator=draw)
    keys, found = [f"k{i}" for i in range(5)], []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(encode_batch(engine, pixels, keys, "whitened")["latent"])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[1], found[0]) and torch.equal(found[2], found[0])
    part = encode_batch(engine, pixels[3:], keys[3:], "whitened")["latent"]
    assert torch.equal(part, found[0][3:])


def test_an_engine_runs_the_fast_form(engine):
    plain = load_model(engine.info.name)
    assert {type(plain.encoder), type(plain.decoder)} == {FCDMEncoder, FCDMDecoder}
    assert type(engine.model.encoder) is FORMS[FCDMEncoder]
    assert type(engine.model.decoder) is FORMS[FCDMDecoder]


def test_a_wrong_decode_option_is_a_usage_error():
    with pytest.raises(UsageError):
        inference_config(DecodeJob(steps=0))
    with pytest.raises(UsageError):
        inference_config(DecodeJob(sampler="euler"))


def test_parts_of_mirrored_pictures(engine):
    pixels = torch.randint(0, 256, (3, 3, 32, 48), dtype=torch.uint8)
    keys = ["a", "b", "c"]
    for state, sample in (("whitened", None), ("raw", None), ("moments", None)):
        parts = encode_batch(engine, pixels, keys, state, sample, flip=True)
        other = encode_batch(engine, pixels.flip(-1), keys, state, sample)
        assert set(parts) == {*other, *(f"{part}_flip" for part in other)}
        for part, values in other.items():
            assert torch.equal(parts[f"{part}_flip"], values)
    # The noise of the mirrored picture is that of a key of its own.
    both = encode_batch(engine, pixels, keys, "raw", 5, flip=True)
    alone = encode_batch(engine, pixels.flip(-1), [f"{k}/flip" for k in keys], "raw", 5)
    assert torch.equal(both["latent_flip"], alone["latent"])


def test_parts_may_be_used_outside_of_inference(engine):
    """Another thread packs them, and inference mode is a thread's own."""
    from concurrent.futures import ThreadPoolExecutor

    from latentcli.latents.pack import pack

    pixels = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    parts = encode_on_device(engine, pixels, ["a", "b"], "whitened")
    with ThreadPoolExecutor(1) as pool:
        tensors = pool.submit(pack, ["a", "b"], parts).result().tensors
    expected = encode_batch(engine, pixels, ["a", "b"], "whitened")["latent"].bfloat16()
    assert torch.equal(torch.stack(list(tensors.values())), expected)


def test_a_timer_measures_its_block():
    begin = time.perf_counter()
    with DeviceTimer(Cpu()) as timer:
        time.sleep(0.02)
    end = time.perf_counter()
    time.sleep(0.05)
    assert 0.02 <= timer.seconds() <= end - begin
