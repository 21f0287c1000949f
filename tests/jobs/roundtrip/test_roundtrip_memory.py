"""A roundtrip whose device runs out of memory: no figure is lost or counted twice."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
import torch
from encodekit import LINEAR, pictures
from harness.fake_gpu import Call, fake_gpu
from torch import Tensor

from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.compare import Comparison
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.roundtrip.models import load_compared_models
from latentcli.jobs.roundtrip.rows import RowSpool
from latentcli.jobs.roundtrip.stream import Name, Roundtrip, batch_of, take_pictures
from latentcli.jobs.runtime.failures import Failures
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.metrics.measures import MEASURES

JOB = RoundtripJob(sources=("x",), models=(LINEAR,), device="cpu", workers=0, batch_size=8)
FIGURES = ("images", "failed", "models")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = pictures(tmp_path_factory.mktemp("pictures") / "in", ((64, 48),) * 11)
    return replace(JOB, sources=(str(folder),))


def pixels_of(call: Call) -> bool:
    """Whether a call brings a batch of pictures to the device: those alone are pinned."""
    return call.what == "to device" and call.pinned


@pytest.mark.parametrize("what", ["the copy", "a measure"])
def test_pictures_are_tried_alone_wherever_memory_ran_out(job, monkeypatch, what):
    expected = run_roundtrip(job)
    denied = 0

    def allow(call: Call) -> None:
        nonlocal denied
        wanted = pixels_of(call) if what == "the copy" else call.what == "set"  # of SSIM alone
        if wanted and not denied:
            denied += 1
            raise torch.OutOfMemoryError("CUDA out of memory")

    with fake_gpu(monkeypatch) as gpu:
        gpu.allow = allow
        found = run_roundtrip(replace(job, device="cuda:0", dtype="fp32"))
    assert denied == 1 and (found["images"], found["failed"]) == (11, 0)
    psnr, ssim = (found["models"][0][name]["mean"] for name in ("psnr", "ssim"))
    assert psnr == pytest.approx(expected["models"][0]["psnr"]["mean"], abs=1e-4)
    assert ssim == pytest.approx(expected["models"][0]["ssim"]["mean"], abs=1e-6)
    assert {s["items"] for s in found["stages"].values() if s} >= {11}


class Means(torch.nn.Module):
    """A network of three features, which has no memory for more than `most` pictures."""

    num_features = 3

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise RuntimeError("CUDA error: out of memory")
        return images.float().mean((2, 3))


@pytest.mark.parametrize("fails", ["add_real", "add_fake"])
def test_sets_count_no_picture_twice(tmp_path, fails):
    rfid = pytest.importorskip("latentcli.metrics.perceptual").FrechetInception
    pytest.importorskip("torchmetrics")
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (5, 3, 32, 48), dtype=torch.uint8, generator=chance)
    found = {}
    for most in (5, 1):
        of_set = rfid(Means(5), torch.device("cpu"), 1)
        (of_set._real if fails == "add_real" else of_set._fakes[0]).inception.most = most
        models = load_compared_models(JOB)
        comparison = Comparison(JOB, models, [MEASURES["psnr"]], Meter("roundtrip", 5))
        with closing(RowSpool(tmp_path / f"{most}.jsonl")) as rows:
            failures = Failures("skip", None, 5, "")
            run = Roundtrip(comparison, [of_set], rows, None, StopRequest(""), failures)
            named = [Name(i, str(i), "x") for i in range(5)]
            assert take_pictures(run, batch_of(run, named, list(pixels))) == []
            assert rows.count == 5 and len(run.model_figures[0].figures["psnr"]) == 5
        found[most] = of_set.value(0).value
        assert int(of_set._real.real_features_num_samples) == 5
        stages = comparison.meter.report()
        assert {stages[name]["items"] for name in ("encode", "decode", "metrics")} <= {5, 10}
    assert found[1] == pytest.approx(found[5], rel=1e-4)
