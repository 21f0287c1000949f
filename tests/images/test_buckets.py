"""Bucket tables and picks are those of the written-out formulas, for pictures of any shape."""

from __future__ import annotations

import json
import math
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket_formulas import (
    Size,
    area_table,
    musubi_pick,
    musubi_table,
    outcome,
    sd_scripts_pick,
    sd_scripts_shrink,
    sd_scripts_table,
)
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from latentcli.core.errors import StoreError, UsageError
from latentcli.images.buckets import (
    BUCKET_RULES,
    Buckets,
    described_buckets,
    make_buckets,
    read_buckets,
)

SIDE = st.one_of(st.integers(1, 20_000), st.integers(200, 2_100))
SIZES = st.tuples(SIDE, SIDE)
AREAS = st.sampled_from(
    [(256, 256), (512, 512), (500, 500), (960, 544), (1024, 1024), (1328, 1328)]
)
STEPS = st.sampled_from([16, 32, 64])
NO_TABLE = ("ai-toolkit", "simpletuner", "simpletuner-pixel")
MANY = settings(max_examples=400, deadline=None)


@MANY
@given(size=SIZES, reso=AREAS, step=STEPS)
@example(size=(1, 20_000), reso=(1024, 1024), step=64)
@example(size=(20_000, 1), reso=(512, 512), step=64)
@example(size=(1_920, 1_080), reso=(1024, 1024), step=64)
def test_kohya_is_sd_scripts(size: Size, reso: Size, step: int) -> None:
    buckets = make_buckets("kohya", reso, step, 16)
    high = -(-max(1024, *reso) // step) * step
    table = sd_scripts_table(reso, 256, high, step)
    assert list(buckets.table) == table
    assert outcome(buckets, size) == sd_scripts_pick(size, table)


@MANY
@given(size=SIZES, reso=AREAS, step=STEPS)
@example(size=(20_000, 60), reso=(1024, 1024), step=64)
@example(size=(1, 20_000), reso=(256, 256), step=16)
@example(size=(1_920, 1_080), reso=(1024, 1024), step=64)
def test_kohya_without_enlarging_is_sd_scripts(size: Size, reso: Size, step: int) -> None:
    buckets = make_buckets("kohya", reso, step, 16, no_upscale=True)
    try:
        expected = sd_scripts_shrink(size, reso[0] * reso[1], step)
    except ZeroDivisionError:
        expected = (0, 0), (0, 0)
    result = outcome(buckets, size)
    assert result == (None if min(expected[0]) == 0 else expected)


@MANY
@given(size=SIZES, reso=AREAS, step=STEPS, no_upscale=st.booleans())
@example(size=(1, 20_000), reso=(960, 544), step=16, no_upscale=True)
@example(size=(20_000, 1), reso=(960, 544), step=16, no_upscale=False)
def test_musubi_is_musubi_tuner(size: Size, reso: Size, step: int, no_upscale: bool) -> None:
    buckets = make_buckets("musubi", reso, step, 16, no_upscale)
    assert list(buckets.table) == musubi_table(reso, step)
    result = outcome(buckets, size)
    if no_upscale and min(size) < step and size[0] * size[1] <= reso[0] * reso[1]:
        assert result is None
    else:
        assert result == musubi_pick(size, reso, step, no_upscale)


@MANY
@given(size=SIZES, reso=AREAS, step=STEPS)
@example(size=(1, 20_000), reso=(1024, 1024), step=64)
def test_area_picks_the_nearest_ratio(size: Size, reso: Size, step: int) -> None:
    buckets = make_buckets("area", reso, step, 16)
    assert list(buckets.table) == area_table(reso, step)
    target = buckets.pick(size)
    distances = np.abs(np.log([w / h for w, h in buckets.table]) - math.log(size[0] / size[1]))
    assert distances[buckets.table.index(target)] <= distances.min() + 1e-12
    turned = buckets.pick((size[1], size[0]))
    assert turned == (target[1], target[0])


@MANY
@given(rule=st.sampled_from(BUCKET_RULES), size=SIZES, reso=AREAS, no_upscale=st.booleans())
def test_what_every_rule_keeps(rule: str, size: Size, reso: Size, no_upscale: bool) -> None:
    assume(rule not in NO_TABLE)
    buckets = make_buckets(rule, reso, 32, 16, no_upscale)
    assert all(w * h <= buckets.area for w, h in buckets.table)
    assert not any(side % 32 for pair in buckets.table for side in pair)
    result = outcome(buckets, size)
    assert no_upscale or result is not None
    assume(result is not None)
    assert result is not None
    (width, height), (w, h) = result
    assert min(width, height) >= 32 and width % 32 == height % 32 == 0
    assert w >= width and h >= height
    if not no_upscale:
        assert (width, height) in buckets.table
        assert w == width or h == height
    elif rule != "musubi":
        # musubi-tuner enlarges what is over the area but short on one side.
        assert w <= size[0] and h <= size[1]


@MANY
@given(size=SIZES)
def test_area_without_enlarging_stays_within_the_bucket(size: Size) -> None:
    plain = make_buckets("area", 512, None, 16)
    kept = make_buckets("area", 512, None, 16, no_upscale=True)
    bucket = plain.pick(size)
    fits = bucket[0] <= size[0] and bucket[1] <= size[1]
    result = outcome(kept, size)
    if min(size) < 64:
        assert result is None
    elif fits:
        assert result == (bucket, plain.resized(size, bucket))
    else:
        assert result is not None
        assert result[0] == tuple(min(b, s // 64 * 64) for b, s in zip(bucket, size, strict=True))


def test_kohya_table_by_hand() -> None:
    half = [(256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768)]
    half += [(384, 640), (448, 576)]
    expected = sorted([*half, (512, 512), *((h, w) for w, h in half)])
    assert list(make_buckets("kohya", 512, None, 16).table) == expected


def test_area_table_by_hand() -> None:
    half = [(128, 384), (128, 448), (128, 512), (192, 320)]
    expected = sorted([*half, (256, 256), *((h, w) for w, h in half)])
    assert list(make_buckets("area", 256, None, 16).table) == expected


@pytest.mark.parametrize(
    ("rule", "area", "options", "size", "target", "resized"),
    [
        # No side is over 1024: 1024 / 576 is 16:9 itself.
        ("kohya", 1024, {}, (1920, 1080), (1024, 576), (1024, 576)),
        # 1344 / 768 = 1.75 is nearer to 1.778 than 1280 / 768 and 1408 / 704 are.
        ("kohya", 1024, {"max_side": 2048}, (1920, 1080), (1344, 768), (1365, 768)),
        ("kohya", 1024, {"max_side": 2048}, (1080, 1920), (768, 1344), (768, 1365)),
        # 1365.3 x 768: a width of 1344 gives a height of 756, cut to 704; a height of 768 gives
        # a width of 1365, cut to 1344, which is nearer to 16:9.
        ("kohya", 1024, {"no_upscale": True}, (1920, 1080), (1344, 768), (1365, 768)),
        ("kohya", 1024, {"no_upscale": True}, (1000, 700), (960, 640), (1000, 700)),
        ("musubi", (960, 544), {}, (1920, 1080), (960, 544), (967, 544)),
        ("musubi", (960, 544), {"no_upscale": True}, (641, 480), (640, 480), (641, 480)),
        ("musubi", (960, 544), {"no_upscale": True}, (100, 127), (96, 112), (96, 122)),
        # 510 x 1024 is the area itself, so it is not resized.
        ("musubi", (960, 544), {"no_upscale": True}, (510, 1024), (496, 1024), (510, 1024)),
        ("kohya", (960, 544), {"no_upscale": True}, (510, 1024), (448, 1024), (510, 1024)),
        ("area", 1024, {}, (1920, 1080), (1344, 768), (1365, 768)),
        ("area", 1024, {}, (1, 20_000), (512, 2048), (512, 10_240_000)),
        ("area", 1024, {}, (3, 2), (1216, 832), (1248, 832)),
        ("area", 1024, {"no_upscale": True}, (1000, 700), (960, 640), (960, 672)),
    ],
)
def test_sizes_by_hand(
    rule: str, area: int | Size, options: dict[str, Any], size: Size, target: Size, resized: Size
) -> None:
    buckets = make_buckets(rule, area, None, 16, **options)
    assert outcome(buckets, size) == (target, resized)


def test_the_sizes_that_sdxl_was_trained_on_are_there() -> None:
    table = make_buckets("area", 1024, None, 16).table
    for w, h in [(1024, 1024), (1152, 896), (1216, 832), (1344, 768), (1536, 640), (2048, 512)]:
        assert (w, h) in table and (h, w) in table


def test_an_exact_size_keeps_its_kohya_bucket() -> None:
    # 640 x 320 and 768 x 384 are both 2:1; the table's first would win for another 2:1 picture.
    buckets = Buckets("kohya", ((640, 320), (768, 384)), 768 * 384, 64)
    assert buckets.pick((768, 384)) == (768, 384)
    assert buckets.pick((1536, 768)) == (640, 320)


@pytest.mark.parametrize(
    ("table", "size", "target"),
    [
        (((64, 64), (128, 128)), (300, 300), (128, 128)),
        (((64, 128), (128, 64)), (300, 300), (128, 64)),
        # 2 and 8 are as far from 4; the areas are equal.
        (((128, 64), (256, 32)), (400, 100), (256, 32)),
        (((32, 256), (64, 128)), (100, 400), (32, 256)),
        # Here the larger area is not the wider.
        (((192, 96), (256, 32)), (400, 100), (192, 96)),
        # Nearest by ratio: 4 is twice 2 and a quarter less than 5.
        (((64, 32), (160, 32)), (96, 32), (64, 32)),
        (((64, 32), (160, 32)), (128, 32), (160, 32)),
    ],
)
def test_ties_and_nearness(table: tuple[Size, ...], size: Size, target: Size) -> None:
    assert Buckets("file", table, 1 << 20, 32).pick(size) == target


@MANY
@given(
    table=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_the_order_is_exact(table: list[Size], size: Size) -> None:
    buckets = Buckets("file", tuple(sorted({(w * 16, h * 16) for w, h in table})), 1 << 20, 16)

    def order(bucket: Size) -> tuple[Fraction, int, int]:
        ratio = Fraction(size[0] * bucket[1], size[1] * bucket[0])
        long_side = bucket[1] if size[1] > size[0] else bucket[0]
        return max(ratio, 1 / ratio), -bucket[0] * bucket[1], -long_side

    assert buckets.pick(size) == min(buckets.table, key=order)


@pytest.mark.parametrize("rule", BUCKET_RULES)
def test_buckets_travel_to_processes_and_specs(rule: str) -> None:
    reso = (960, 544) if rule != "simpletuner-pixel" else (512, 512)
    buckets = make_buckets(rule, reso, None, 16, no_upscale=rule not in NO_TABLE)
    assert pickle.loads(pickle.dumps(buckets)) == buckets
    told = json.loads(json.dumps(buckets.described()))
    assert told == buckets.described()
    assert set(told) == {"rule", "table", "area", "step", "no_upscale", "min_side", "max_side"}
    assert told["area"] == reso[0] * reso[1]
    assert told["table"] == [list(size) for size in buckets.table]
    assert bool(told["table"]) == (rule not in NO_TABLE)
    assert described_buckets(told) == buckets


@pytest.mark.parametrize(
    "change", [{"rule": "later"}, {"table": []}, {"step": 48}, {"new": 1}, {"table": None}]
)
def test_a_spec_with_strange_buckets_is_refused(change: dict[str, object]) -> None:
    told = {**make_buckets("area", 256, None, 16).described(), **change}
    with pytest.raises(StoreError, match="cannot read"):
        described_buckets(told)


@pytest.mark.parametrize(
    ("rule", "divisor", "step"),
    [
        ("area", 16, 64),
        ("area", 48, 192),
        ("area", 128, 128),
        ("kohya", 32, 64),
        ("musubi", 16, 16),
        ("musubi", 8, 16),
        ("ai-toolkit", 8, 16),
        ("simpletuner", 16, 64),
    ],
)
def test_default_steps(rule: str, divisor: int, step: int) -> None:
    assert make_buckets(rule, 1024, None, divisor).step == step


@pytest.mark.parametrize(
    ("rule", "step", "divisor", "better"),
    [
        ("musubi", None, 32, 32),
        ("ai-toolkit", None, 32, 32),
        ("kohya", None, 128, 128),
        ("area", 48, 32, 96),
        ("area", 0, 16, 16),
        ("kohya", -8, 16, 16),
    ],
)
def test_a_step_that_the_model_cannot_take_is_refused_with_a_better(
    rule: str, step: int | None, divisor: int, better: int
) -> None:
    with pytest.raises(UsageError, match=f"multiples of {divisor}: try --bucket-step {better}$"):
        make_buckets(rule, 1024, step, divisor)
    assert make_buckets(rule, 1024, better, divisor).step == better


@pytest.mark.parametrize(
    ("rule", "area", "sides", "words"),
    [
        ("sdxl", 1024, {}, "'sdxl'; allowed are area, kohya, musubi, ai-toolkit"),
        ("area", 63, {}, "63x63; with steps of 64 the rule area needs 64x64"),
        ("kohya", (0, 512), {}, "0x512; with steps of 64"),
        ("musubi", 31, {}, "31x31; with steps of 16 the rule musubi needs 32x32"),
        ("musubi", 512, {"max_side": 1024}, "musubi has no least or largest side"),
        ("ai-toolkit", 15, {}, "15x15; with steps of 16 the rule ai-toolkit needs 16x16"),
        ("ai-toolkit", 512, {"min_side": 64}, "ai-toolkit has no least or largest side"),
        ("simpletuner", 512, {"max_side": 1024}, "simpletuner has no least or largest side"),
        (
            "ai-toolkit",
            512,
            {"no_upscale": True},
            "to whole bucket steps, and no further; leave out --no-",
        ),
        (
            "simpletuner",
            512,
            {"no_upscale": True},
            "always enlarges small pictures; leave out --no-upscale",
        ),
        ("simpletuner-pixel", (512, 256), {}, "one number that is a multiple of 64; it is 512x256"),
        ("simpletuner-pixel", 500, {}, "a multiple of 64; it is 500x500"),
        ("kohya", 512, {"min_side": 513}, "least bucket side is 513; allowed is 1 to 512"),
        ("kohya", 512, {"min_side": 0}, "least bucket side is 0; allowed is 1 to 512"),
        ("kohya", 512, {"max_side": 511}, "largest bucket side is 511; allowed is 512"),
        ("area", 100, {"min_side": 90, "max_side": 110}, "sides from 90 to 110"),
    ],
)
def test_what_does_not_fit_is_refused(
    rule: str, area: int | Size, sides: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        make_buckets(rule, area, None, 16, **sides)


@pytest.mark.parametrize(
    ("area", "sides", "limits"),
    [
        (512, {}, (256, 1024)),
        (1328, {}, (256, 1344)),
        (200, {}, (192, 1024)),
        ((2048, 64), {}, (64, 2048)),
        (512, {"min_side": 300, "max_side": 700}, (256, 704)),
    ],
)
def test_limits_of_kohya_come_to_whole_steps(
    area: int | Size, sides: dict[str, Any], limits: Size
) -> None:
    buckets = make_buckets("kohya", area, 64, 16, **sides)
    assert (buckets.min_side, buckets.max_side) == limits
    assert all(limits[0] <= side <= limits[1] for size in buckets.table for side in size)


def test_bad_buckets_are_bad_arguments() -> None:
    for rule, table, step in BAD_BUCKETS:
        with pytest.raises(ValueError, match="bucket"):
            Buckets(rule, table, 4096, step)


BAD_BUCKETS = [
    ("new", ((64, 64),), 64),
    ("area", (), 64),
    ("area", ((64, 0),), 64),
    ("ai-toolkit", ((64, 64),), 64),
]


@pytest.mark.parametrize(
    "text",
    [
        "# ours\n\n1024x768\n 768X1024  # tall\r\n512x512\n512x512",
        "\ufeff1024x768\n768x1024\n512x512\n",
        " [[1024, 768],\n [768, 1024], [512, 512]]",
    ],
)
def test_bucket_files_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "buckets.txt"
    path.write_bytes(text.encode())
    buckets = read_buckets(str(path), 32)
    assert buckets.table == ((512, 512), (768, 1024), (1024, 768))
    assert (buckets.rule, buckets.step, buckets.area) == ("file", 32, 1024 * 768)
    assert described_buckets(buckets.described()) == buckets
    assert outcome(buckets, (1600, 1200)) == ((1024, 768), (1024, 768))
    assert outcome(buckets, (100, 90)) == ((512, 512), (569, 512))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1024x768\n1024 768\n", "line 2 of .* is '1024 768'; write one WIDTHxHEIGHT"),
        ("64x0", "line 1 of .* is '64x0'"),
        ("64\n", "line 1 of .* is '64'"),
        ("1234567x64", "line 1 of"),
        ("# a\n\n64x64\n64x72\n", "line 4 of .* is 64x72; .*multiples of 32: try 64x96 or 64x64"),
        ("", "holds no bucket; write one WIDTHxHEIGHT"),
        ("# none\n", "holds no bucket"),
        ("[]", "holds no bucket"),
        ("[[64, 64], [64]]", r"item 2 of .* is \[64\]; write \[width, height\]"),
        ("[[64, 64.0]]", "item 1 of"),
        ("[[true, 64]]", r"item 1 of .* is \[true, 64\]"),
        ("[[64, -64]]", "item 1 of"),
        ('["64x64"]', 'item 1 of .* is "64x64"'),
        ("[[64, 64], [64, 40]]", "item 2 of .* is 64x40; .*try 64x64 or 64x32"),
        ("[[64, 64]", "begins like a JSON list but is not valid JSON"),
        ("[" * 100_000, "begins like a JSON list but is not valid JSON"),
    ],
)
def test_other_bucket_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "buckets.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_buckets(str(path), 32)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the bucket file .*No such file"):
        read_buckets(str(tmp_path / "none.txt"), 32)
    with pytest.raises(UsageError, match="cannot read the bucket file"):
        read_buckets(str(tmp_path), 32)
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        read_buckets(str(picture), 32)
