"""The sizes and crops that trainers' own bucket code computed are those that the rules compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.core.errors import SampleError
from latentcli.images.bucket_rules.simpletuner import area_size, aspect_of, pixel_size, rounded
from latentcli.images.buckets import make_buckets
from latentcli.images.preprocess import PreprocessSpec, geometry

DATA = Path(__file__).parent.parent.parent / "data" / "trainers"
MEGAPIXELS = {0.25: (500, 500), 0.5: (1000, 500), 1.0: (1000, 1000)}
"""The --area of a resolution."""
Row = dict[str, Any]


def rows_of(folder: Path, name: str) -> list[Row]:
    return json.loads((folder / f"buckets_{name}.json").read_text())["rows"]


def check_ai_toolkit(rows: list[Row]) -> None:
    for row in rows:
        size, step = tuple(row["image"]), row["divisibility"]
        buckets = make_buckets("ai-toolkit", row["resolution"], step, 8)
        resized, crop = geometry(size, PreprocessSpec(None, 8, buckets=buckets))
        x, y = row["crop_xy"]
        width, height = row["bucket"]
        assert buckets.pick(size) == (width, height), row
        assert (resized, crop) == (tuple(row["scale_to"]), (x, y, x + width, y + height)), row


def check_simpletuner(rows: list[Row]) -> int:
    """How many rows are those of pictures that the trainer makes square afterwards."""
    squared = 0
    for row in rows:
        size, step, by_area = tuple(row["image"]), row["alignment"], row["type"] == "area"
        wanted = tuple(row["target"]), tuple(row["intermediary"])
        compute = area_size if by_area else pixel_size
        resolution = row["resolution"] if by_area else int(row["resolution"])
        assert compute(resolution, step, size) == wanted, row
        assert aspect_of(size) == row["aspect_in"] and aspect_of(wanted[0]) == row["aspect"]
        if by_area:
            buckets = make_buckets("simpletuner", MEGAPIXELS[resolution], step, 8)
        else:
            buckets = make_buckets("simpletuner-pixel", resolution, step, 8)
        target = buckets.pick(size)
        resized, crop = geometry(size, PreprocessSpec(None, 8, buckets=buckets))
        if by_area and row["aspect"] == 1.0:
            squared += 1
            assert target[0] == target[1] and min(resized) >= target[0]
            continue
        assert (target, resized) == wanted, row
        # Its centre crop rounds what is left and above down.
        left, top = ((r - t) // 2 for r, t in zip(resized, target, strict=True))
        assert crop == (left, top, left + target[0], top + target[1])
    return squared


def test_some_of_ai_toolkits_sizes() -> None:
    check_ai_toolkit(rows_of(DATA, "ai_toolkit"))


def test_some_of_simpletuners_sizes() -> None:
    assert check_simpletuner(rows_of(DATA, "simpletuner")) == 1


@pytest.mark.shared
def test_all_of_ai_toolkits_sizes(shared: Path) -> None:
    rows = rows_of(shared / "golden" / "trainers", "ai_toolkit")
    assert len(rows) == 200
    check_ai_toolkit(rows)


@pytest.mark.shared
def test_all_of_simpletuners_sizes(shared: Path) -> None:
    rows = rows_of(shared / "golden" / "trainers", "simpletuner")
    assert len(rows) == 150
    assert check_simpletuner(rows) == 1


@pytest.mark.parametrize(
    ("area", "step", "size", "target", "resized"),
    [
        # A resolution of 0.5 megapixels is 704 a side, and 768 of a square.
        ((1000, 500), 32, (1000, 1000), (768, 768), (768, 768)),
        ((1000, 500), 32, (2876, 2998), (768, 768), (768, 768)),
        ((1000, 500), 32, (1500, 1000), (864, 576), (864, 576)),
        # 1000 pixels are 62.5 steps of 16, which is 62 and so 992 a side.
        ((1000, 1000), 16, (1003, 1000), (1024, 1024), (1024, 1024)),
        ((1000, 1000), 16, (2000, 1000), (1408, 704), (1408, 704)),
        # pixel_area 1024 has no such gap.
        ((1024, 1024), 64, (1000, 1000), (1024, 1024), (1024, 1024)),
        ((1024, 1024), 64, (1003, 1000), (1024, 1024), (1027, 1024)),
        ((1024, 1024), 64, (1920, 1080), (1344, 768), (1365, 768)),
        # 287,000 pixels are 535.7 a side: cut to 535 that is 33 steps, 536 would be 34.
        ((1000, 287), 16, (2000, 1000), (752, 368), (752, 376)),
        # 896 rows are 1097 columns, 55 short: by the picture's own aspect ratio 44.9 rows more,
        # and 45.1 by the rounded one.
        ((1024, 1024), 64, (2097, 1712), (1152, 896), (1152, 940)),
    ],
)
def test_simpletuner_by_hand(area, step, size, target, resized) -> None:
    buckets = make_buckets("simpletuner", area, step, 16)
    assert (buckets.pick(size), buckets.resized(size, target)) == (target, resized)


@settings(max_examples=300, deadline=None)
@given(
    rule=st.sampled_from(["ai-toolkit", "simpletuner", "simpletuner-pixel"]),
    size=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    side=st.sampled_from([256, 512, 1024]),
)
def test_rules_without_a_table(rule: str, size: tuple[int, int], side: int) -> None:
    buckets = make_buckets(rule, side, 32, 16)
    assert buckets.largest == (side, side)
    try:
        target = buckets.pick(size)
    except SampleError as error:
        assert "rounds to 0" in error.reason and size[0] / size[1] <= 0.005
        return
    resized = buckets.resized(size, target)
    assert all(t % 32 == 0 and t <= r for t, r in zip(target, resized, strict=True))
    if rule == "ai-toolkit":
        # Where only one step of a side is left, no size fits into the area.
        assert target[0] * target[1] <= side**2 or 32 in target
        assert buckets.most_pixels == side**2
    elif rule == "simpletuner-pixel":
        assert min(target) >= side and buckets.most_pixels is None


@pytest.mark.parametrize(("side", "step", "whole"), [(80, 32, 64), (112, 32, 128), (5, 32, 32)])
def test_half_steps_round_to_even(side: int, step: int, whole: int) -> None:
    assert rounded(side, step) == whole


@pytest.mark.shared
@pytest.mark.parametrize(("rule", "step"), [("kohya", "bucket_reso_steps"), ("musubi", "step")])
def test_all_sizes_of_kohyas_trainers(shared: Path, rule: str, step: str) -> None:
    found = json.loads((shared / "golden" / "trainers" / f"buckets_{rule}.json").read_text())
    made = []
    for told in found["settings"]:
        sides = (told["min_bucket_reso"], told["max_bucket_reso"]) if rule == "kohya" else ()
        no_upscale = told["bucket_no_upscale"]
        made.append(
            make_buckets(rule, tuple(told["resolution"]), told[step], 8, no_upscale, *sides)
        )
    rows = [r for r in found["rows"] if found["settings"][r["settings"]].get("enable_bucket", True)]
    for row in rows:
        size, spec = tuple(row["image"]), PreprocessSpec(None, 8, buckets=made[row["settings"]])
        if "error" in row:
            with pytest.raises(SampleError, match="less than one bucket step"):
                geometry(size, spec)
        else:
            assert geometry(size, spec) == (tuple(row["resized"]), tuple(row["crop"])), row
    assert len(rows) == {"kohya": 812, "musubi": 600}[rule]
