"""What decode asks of a GPU that torch is made to have: nobody of the main thread waits for it."""

from __future__ import annotations

import numpy as np
from harness.fake_gpu import fake_gpu
from jobkit import decode, pictures_of

LEVELS = 1
"""Of 255, by which a picture may differ on another device; see test_decode_job."""


def test_the_main_thread_goes_on(mixed_store, tmp_path, monkeypatch):
    shard, options = mixed_store / "shards" / "000000.safetensors", {"batch_size": 1}
    decode(shard, tmp_path / "cpu", **options)
    with fake_gpu(monkeypatch) as gpu:
        found = decode(shard, tmp_path / "gpu", device="cuda:0", dtype="fp32", **options)
    assert found["decoded"] == found["stages"]["decode"]["items"] == 4
    back = [call for call in gpu.calls if call.what == "to host"]
    assert len(back) == 4 and all(call.pinned for call in back)
    waited = [call.thread for call in gpu.calls if call.what == "wait"]
    assert len(waited) == 4 and "main" not in waited
    # What is pinned is a latent and its noise; that of the second batch before the first begins.
    assert gpu.count("pin") == 8
    begun = next(i for i, call in enumerate(gpu.calls) if call.what == "mark")
    assert sum(call.what == "pin" for call in gpu.calls[:begun]) == 2
    left, right = pictures_of(tmp_path / "cpu"), pictures_of(tmp_path / "gpu")
    assert left.keys() == right.keys()
    assert all(np.abs(p.astype(int) - right[k]).max() <= LEVELS for k, p in left.items())
