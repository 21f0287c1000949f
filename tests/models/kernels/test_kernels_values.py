"""Every kernel in Triton's interpreter against float64, on small cases of odd sizes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from kernelkit import ODD, expected, interpreted, interpreter

pytest.importorskip("triton", reason="Triton has no build for this system")

LIMITS = {torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
"""Largest difference, in units of the largest value. The interpreter cuts to bfloat16, where a GPU
rounds."""
HALVES = {
    "norms": torch.bfloat16,
    "heads": torch.bfloat16,
    "depthwise, not scaled": torch.bfloat16,
    # The interpreter multiplies bfloat16 as if it were whole numbers.
    "gelu and squares": torch.float16,
    "residual, not gated": torch.float16,
}
"""Cases that are also run in half the precision."""
RUNS = [*((case, torch.float32) for case in ODD), *HALVES.items()]


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    with interpreter() as process:
        yield process


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_a_kernel_computes_what_the_reference_says(
    process: ProcessPoolExecutor, case: str, dtype: torch.dtype
) -> None:
    got = process.submit(interpreted, case, dtype).result()
    for result, want in zip(got, expected(case, dtype), strict=True):
        assert result.shape == want.shape
        if want.numel():
            worst = (result.double() - want).abs().max()
            assert worst <= LIMITS[dtype] * want.abs().max()


def test_a_kernel_gives_the_same_bits_again(process: ProcessPoolExecutor) -> None:
    runs = [process.submit(interpreted, "gelu and squares", torch.float16) for _ in range(2)]
    for first, second in zip(*(run.result() for run in runs), strict=True):
        assert torch.equal(first, second)
