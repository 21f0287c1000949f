"""A CPU's peak memory against modules whose peak is known by hand."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn

from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.bench.models import bench_engine
from latentcli.jobs.inference.memory import highest, own_bytes, peak_bytes
from latentcli.models.fast.fcdm import FastBlock

MIB = 2**20
SIDE = 512
SLACK = 64 * 1024
"""Small blocks that torch makes beside the tensors."""


class Steps(nn.Module):
    """[SIDE, SIDE] float32 is 1 MiB; at most 1 + 2 MiB live at once, at the repeat."""

    def forward(self, x: Tensor) -> Tensor:
        a = x + 1
        b = a * 2
        del a
        c = b.repeat(2, 1)
        del b
        return c[:SIDE].clone()


class Keeps(nn.Module):
    """Holds all five products of 1 MiB until their sum is made."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x * index for index in range(5)]).sum(0)


@pytest.mark.parametrize(
    ("module", "mib"),
    [
        (Steps(), 3),
        (Keeps(), 10),  # five, and their copy in the stack
        (nn.Identity(), 0),
        (nn.Conv2d(1, 16, 1, bias=False).to(torch.float64), 32),  # nothing of oneDNN's
    ],
)
@torch.inference_mode()
def test_by_hand(module, mib):
    x = torch.rand(SIDE, SIDE)
    if isinstance(module, nn.Conv2d):
        x = x.double()[None, None]
    output, peak = peak_bytes(lambda: module(x))
    assert torch.equal(output, module(x))
    assert mib * MIB <= peak <= mib * MIB + SLACK


@torch.inference_mode()
def test_what_came_before_and_goes_after_does_not_count():
    x = torch.rand(SIDE, SIDE)
    first = peak_bytes(lambda: Steps()(x))[1]
    held = [torch.rand(4 * SIDE, SIDE) for _ in range(4)]
    peaks = []
    for _ in range(3):
        peaks.append(peak_bytes(lambda: Steps()(x))[1])
        del held[0]
        gc.collect()
    assert all(abs(peak - first) <= SLACK for peak in peaks)


def test_the_profiler_says_nothing(capfd):
    peak_bytes(lambda: torch.ones(3))
    print("after", flush=True)
    assert capfd.readouterr() == ("after\n", "")


def test_an_error_ends_the_profiler():
    def broken() -> Tensor:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            peak_bytes(broken)
    assert peak_bytes(lambda: torch.ones(MIB))[1] >= 4 * MIB


def test_highest():
    assert highest([]) == highest([-5]) == 0
    assert highest([3, -2, 4, -5, 1]) == 5


def test_own_bytes_are_weights_and_inputs(model):
    engine = bench_engine(BenchJob(models=(model,), device="cpu"), model)
    weights = sum(t.nbytes for t in engine.model.state_dict().values())
    # The taps of a depthwise convolution once more, as a kernel reads them.
    taps = sum(m.taps.nbytes for m in engine.model.modules() if isinstance(m, FastBlock))
    assert taps > 0
    assert own_bytes(engine.model, [torch.zeros(5), torch.zeros(3)]) == weights + taps + 32
