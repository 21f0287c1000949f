"""What is asked of a GPU that torch is made to have: copies that nobody waits for, whose marks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from compilekit import need_compiler
from encodekit import LINEAR, pictures
from harness.fake_gpu import fake_gpu
from jobkit import decode, encode, latents_of, pictures_of

from latentcli.jobs.decode.latents import own_latents
from latentcli.jobs.inference.accelerator import DeviceTimer
from latentcli.jobs.inference.encode_batch import encode_on_device
from latentcli.jobs.inference.engine import decode_on_device, load_engine
from latentcli.jobs.inference.noise import begin_noise
from latentcli.jobs.settings.model import DecodeSettings

KEYS = ["a", "b"]


def test_noise_and_latents_are_copied_while_the_host_goes_on(monkeypatch, model):
    pixels = torch.zeros(2, 3, 32, 48, dtype=torch.uint8)
    cpu = load_engine(model, device="cpu")
    expected = encode_on_device(cpu, pixels, KEYS, "raw", 1)["latent"]
    with fake_gpu(monkeypatch) as gpu:
        engine = load_engine(model, device="cuda:0", dtype="fp32")
        gpu.calls.clear()
        sampled = encode_on_device(engine, pixels, KEYS, "raw", 1)["latent"]
        noise = begin_noise(engine.accelerator, 0, KEYS, tuple(pixels.shape[1:])).ready()
        own = own_latents(engine, expected, "raw")
        decode_on_device(engine, own, KEYS, DecodeSettings(), noise=noise)
    copies = [call for call in gpu.calls if call.what == "to device"]
    # Pixels and noise, then latents and noise; of small tables, such as the time grid, we wait.
    assert [call.pinned for call in copies].count(True) == gpu.count("pin") == 4
    assert not gpu.count("to host")
    torch.testing.assert_close(sampled.values, expected)


def test_each_of_two_gpus_has_its_own_marks(monkeypatch):
    with fake_gpu(monkeypatch, count=2) as gpu:
        engines = [load_engine(LINEAR, device=f"cuda:{i}", dtype="fp32") for i in range(2)]
        for engine in engines:
            with DeviceTimer(engine.accelerator):
                pass
    assert [call.device for call in gpu.calls if call.what == "mark"] == [0, 0, 1, 1]


def test_the_packers_thread_is_of_the_same_gpu(monkeypatch, tmp_path: Path):
    """What launches work itself, as a compiled kernel does, asks for the thread's device."""
    folder = pictures(tmp_path / "in", ((64, 48),) * 2)
    with fake_gpu(monkeypatch, count=2) as gpu:
        encode(folder, tmp_path / "store", LINEAR, device="cuda:1", dtype="fp32")
    assert gpu.current == {"MainThread": 1, "packer_0": 1}


def test_jobs_replay_their_full_batches(monkeypatch, tmp_path: Path):
    """One recording for each way, made before the first picture; the bits are the same without."""
    pytest.importorskip("triton")
    need_compiler()
    folder = pictures(tmp_path / "in", ((64, 48),) * 8)
    with fake_gpu(monkeypatch) as gpu:
        for compile in ("on", "off"):
            store, out = tmp_path / compile, tmp_path / f"{compile}.out"
            options = {"device": "cuda:0", "dtype": "fp32", "compile": compile}
            # Units of 4, batches of 3: two are full. The first replay of each recording is compared
            # with the network, the second is of the same noise.
            expected = (1, 4) if compile == "on" else (0, 0)
            for run in (
                partial(encode, folder, store, LINEAR, size="64"),
                partial(decode, store, out),
            ):
                gpu.calls.clear()
                assert run(batch_size=3, **options)["compiled"] is (compile == "on")
                assert (gpu.count("capture"), gpu.count("replay")) == expected
    on, off = (latents_of(tmp_path / name) for name in ("on", "off"))
    assert on.keys() == off.keys() and all(torch.equal(on[key], off[key]) for key in on)
    left, right = (pictures_of(tmp_path / f"{name}.out") for name in ("on", "off"))
    assert left.keys() == right.keys() and all((left[key] == right[key]).all() for key in left)
