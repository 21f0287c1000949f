"""By how much a picture may be made smaller while it is decoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.images.preprocess import PreprocessSpec, reduction
from latentcli.images.reduction import FACTORS, factor_of, largest_factor, reduced_size

SIDES = st.integers(1, 5000)
GAPS = st.tuples(*[st.integers(1, 4)] * 3)


@given(w=SIDES, h=SIDES, rw=SIDES, rh=SIDES, gaps=GAPS)
def test_enough_pixels_remain_and_no_larger_factor_would_leave_them(
    w: int, h: int, rw: int, rh: int, gaps: tuple[int, ...]
) -> None:
    needed = dict(zip(FACTORS[1:], gaps, strict=True))

    def leaves_enough(factor: int) -> bool:
        return w >= rw * factor * needed[factor] and h >= rh * factor * needed[factor]

    found = largest_factor((w, h), (rw, rh), gaps)
    assert found == 1 or leaves_enough(found)
    assert not any(leaves_enough(factor) for factor in FACTORS if factor > found)


@given(w=st.integers(8, 5000), h=st.integers(8, 5000), factor=st.sampled_from(FACTORS))
def test_a_factor_is_told_by_the_sizes(w: int, h: int, factor: int) -> None:
    reduced = reduced_size((w, h), factor)
    assert factor_of(reduced, (w, h)) == factor
    assert all(0 <= r * factor - s < factor for r, s in zip(reduced, (w, h), strict=True))


def test_sizes_that_no_reduction_gives_are_refused() -> None:
    with pytest.raises(ValueError, match="not a reduction"):
        factor_of((40, 40), (100, 100))


@pytest.mark.parametrize(
    ("size", "target", "gaps", "expected"),
    [
        ((1024, 1024), (256, 256), (2, 3, 3), 2),
        ((1023, 1024), (256, 256), (2, 3, 3), 1),
        ((3072, 4096), (256, 256), (2, 3, 3), 4),
        ((8000, 6000), (64, 64), (2, 3, 3), 8),
        ((512, 512), (256, 256), (2, 3, 3), 1),
        ((64, 64), (256, 256), (2, 3, 3), 1),
        ((3072, 4096), (256, 256), None, 1),
        ((3072, 4096), None, (2, 3, 3), 1),
        ((10, 3000), None, (2, 3, 3), 1),
    ],
)
def test_a_job_reduces_by(size, target, gaps, expected) -> None:
    assert reduction(size, PreprocessSpec(target, 16, reducing_gaps=gaps)) == expected
