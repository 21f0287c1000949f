"""What only a GPU shows: bfloat16 on CUDA against float32 on the CPU, and a job end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentcli.jobs.config import DecodeSettings, EncodeJob
from latentcli.jobs.encode import run_encode
from latentcli.jobs.engine import decode_batch, encode_batch, load_engine
from latentcli.jobs.store import open_store
from latentcli.metrics.psnr import psnr

pytestmark = pytest.mark.cuda
PSNR_OF_BF16 = 35.0
"""dB between pictures decoded in bfloat16 on the GPU and in float32 on the CPU, at the least."""


def test_bf16_on_cuda_decodes_the_same_picture(cuda: str, photographs: Path) -> None:
    pixels = torch.stack([torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) // 4 + 96] * 2)
    keys = ["a", "b"]
    pictures = []
    for device, dtype in (("cpu", "fp32"), (cuda, "bf16")):
        engine = load_engine("fcdm_nano", device=device, dtype=dtype)
        latent = encode_batch(engine, pixels, keys, "whitened")["latent"]
        pictures.append(decode_batch(engine, latent, keys, DecodeSettings()))
    assert psnr(*pictures).min() > PSNR_OF_BF16


def test_encode_on_cuda(cuda: str, photographs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    job = EncodeJob(sources=(str(photographs),), output=str(store), device=cuda, workers=0)
    document = run_encode(job)
    assert document["dtype"] == "bf16"
    assert document["failed"] == 0
    on_cpu = run_encode(
        EncodeJob(
            sources=(str(photographs),), output=str(tmp_path / "cpu"), device="cpu", workers=0
        )
    )
    assert on_cpu["encoded"] == document["encoded"]
    cpu, gpu = open_store(tmp_path / "cpu"), open_store(store)
    for key in cpu:
        difference = (cpu[key].float() - gpu[key].float()).square().mean().sqrt()
        assert difference < 0.05 * cpu[key].float().square().mean().sqrt()
