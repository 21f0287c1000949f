"""Pictures of any size come to the target's size, centred and without distortion."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.picture_files import save, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latentcli.core.errors import SampleError, UsageError
from latentcli.images import preprocess as module
from latentcli.images.buckets import BUCKET_RULES, make_buckets
from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.preprocess import (
    FILTERS,
    PreprocessSpec,
    preprocess,
    reduction,
)

LEVELS = 2
"""Most that a pixel may differ from Pillow's resize of the whole picture."""
SIDES = st.integers(1, 400)
CELLS = st.integers(1, 12)


def unfused(image: Image.Image, spec: PreprocessSpec) -> np.ndarray:
    """The same by whole resize and then crop."""
    assert spec.size is not None
    (w, h), (width, height) = image.size, spec.size
    scale = max(width / w, height / h)
    resized = (max(width, int(w * scale + 0.5)), max(height, int(h * scale + 0.5)))
    left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
    whole = image.resize(resized, FILTERS[spec.filter])
    return np.asarray(whole)[top : top + height, left : left + width]


@settings(max_examples=150, deadline=None)
@given(w=SIDES, h=SIDES, cells=st.tuples(CELLS, CELLS), divisor=st.sampled_from([1, 8, 16, 32]))
def test_geometry_with_a_size(w: int, h: int, cells: tuple[int, int], divisor: int) -> None:
    width, height = cells[0] * divisor, cells[1] * divisor
    prepared = preprocess(
        Image.new("RGB", (w, h), (10, 200, 30)), PreprocessSpec((width, height), divisor)
    )
    (rw, rh), (left, top, right, bottom) = prepared.resized_size, prepared.crop
    assert prepared.pixels.shape == (3, height, width)
    assert prepared.pixels.dtype == torch.uint8
    assert prepared.pixels.is_contiguous()
    assert rw >= width and rh >= height and (rw == width or rh == height)
    # The aspect ratio is kept to half a pixel, unless the target needs more.
    assert abs(rw * h - w * rh) <= max(w, h) * 0.5 + 1e-9
    assert (left, top) == ((rw - width) // 2, (rh - height) // 2)
    assert (right - left, bottom - top) == (width, height)
    assert prepared.pixels.flatten(1).unique(dim=1).squeeze(1).tolist() == [10, 200, 30]


@settings(max_examples=100, deadline=None)
@given(w=SIDES, h=SIDES, divisor=st.sampled_from([1, 8, 16, 32]))
def test_geometry_without_a_size(w: int, h: int, divisor: int) -> None:
    image = Image.fromarray(np.indices((h, w)).sum(axis=0).astype(np.uint8)[..., None].repeat(3, 2))
    spec = PreprocessSpec(None, divisor)
    if min(w, h) < divisor:
        with pytest.raises(SampleError, match=f"picture is {w}x{h}.*{divisor} pixels") as caught:
            preprocess(image, spec)
        assert caught.value.stage == "preprocess"
        return
    prepared = preprocess(image, spec)
    left, top, right, bottom = prepared.crop
    assert prepared.resized_size == (w, h)
    assert (right - left, bottom - top) == (w - w % divisor, h - h % divisor)
    assert (left, top) == (w % divisor // 2, h % divisor // 2)
    expected = np.asarray(image)[top:bottom, left:right].transpose(2, 0, 1)
    assert np.array_equal(prepared.pixels.numpy(), expected)


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(
    "size", [(300, 200), (200, 300), (256, 256), (90, 70), (64, 500), (128, 96)]
)
def test_equals_resize_then_crop(filter: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(scene(*size))
    spec = PreprocessSpec((128, 96), 32, filter)
    result = preprocess(image, spec).pixels.numpy().transpose(1, 2, 0).astype(int)
    assert np.abs(result - unfused(image, spec)).max() <= LEVELS


@pytest.mark.parametrize("filter", ["lanczos", "bicubic", "bilinear"])
def test_torch_and_pillow_agree(filter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(scene(301, 200))
    spec = PreprocessSpec((128, 96), 32, filter)
    fast = preprocess(image, spec).pixels.int()
    monkeypatch.setattr(module, "_IN_TORCH", ())
    module._in_torch.cache_clear()
    slow = preprocess(image, spec).pixels.int()
    module._in_torch.cache_clear()
    assert (fast - slow).abs().max() <= LEVELS
    assert (fast != slow).float().mean() < 0.02


@settings(max_examples=60, deadline=None)
@given(rule=st.sampled_from(BUCKET_RULES), w=SIDES, h=SIDES, no_upscale=st.booleans())
def test_geometry_with_buckets(rule: str, w: int, h: int, no_upscale: bool) -> None:
    sides = (64, 256) if rule in ("area", "kohya") else ()
    by_table = rule in ("area", "kohya", "musubi")
    buckets = make_buckets(rule, 128, 16, 16, no_upscale and by_table, *sides)
    spec = PreprocessSpec(None, 16, buckets=buckets)
    image = Image.new("RGB", (w, h), (10, 200, 30))
    try:
        target = buckets.pick(image.size)
    except SampleError:
        assert no_upscale or rule.startswith("simpletuner")
        with pytest.raises(
            SampleError, match=f"picture is {w}x{h}.*(16 pixels|rounds to 0)"
        ) as caught:
            preprocess(image, spec)
        assert caught.value.stage == "preprocess"
        return
    prepared = preprocess(image, spec)
    (rw, rh), (left, top, right, bottom) = prepared.resized_size, prepared.crop
    assert prepared.pixels.shape == (3, target[1], target[0])
    assert prepared.resized_size == buckets.resized(image.size, target)
    assert rw >= target[0] and rh >= target[1]
    assert (left, top) == ((rw - target[0]) // 2, (rh - target[1]) // 2)
    assert (right - left, bottom - top) == target
    assert prepared.pixels.flatten(1).unique(dim=1).squeeze(1).tolist() == [10, 200, 30]


def test_a_bucket_of_the_same_resize_gives_the_same_pixels() -> None:
    image = Image.fromarray(scene(300, 200))
    buckets = make_buckets("area", 128, 32, 32)
    by_bucket = preprocess(image, PreprocessSpec(None, 32, buckets=buckets))
    by_size = preprocess(image, PreprocessSpec(buckets.pick(image.size), 32))
    assert (by_bucket.resized_size, by_bucket.crop) == (by_size.resized_size, by_size.crop)
    assert torch.equal(by_bucket.pixels, by_size.pixels)


def test_a_picture_that_is_not_enlarged_is_only_cropped() -> None:
    buckets = make_buckets("kohya", 256, 64, 32, no_upscale=True)
    prepared = preprocess(
        Image.fromarray(scene(200, 150)), PreprocessSpec(None, 32, buckets=buckets)
    )
    assert (prepared.resized_size, prepared.crop) == ((200, 150), (4, 11, 196, 139))
    expected = scene(200, 150)[11:139, 4:196]
    assert np.array_equal(prepared.pixels.numpy().transpose(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("size", "target", "resized", "crop"),
    [
        # 250 * 96 / 167 is 143.71.
        ((250, 167), (128, 96), (144, 96), (8, 0, 136, 96)),
        ((33, 77), (64, 64), (64, 149), (0, 42, 64, 106)),
        # Halves go up: 75 * 32 / 64 is 37.5.
        ((75, 64), (32, 32), (38, 32), (3, 0, 35, 32)),
    ],
)
def test_the_rounding_of_a_size_stays(
    size: tuple[int, int],
    target: tuple[int, int],
    resized: tuple[int, int],
    crop: tuple[int, int, int, int],
) -> None:
    prepared = preprocess(Image.new("RGB", size), PreprocessSpec(target, 32))
    assert (prepared.resized_size, prepared.crop) == (resized, crop)


def test_size_and_buckets_exclude_each_other() -> None:
    buckets = make_buckets("musubi", 256, 16, 16)
    with pytest.raises(ValueError, match="one size or buckets"):
        PreprocessSpec((64, 64), 16, buckets=buckets)
    with pytest.raises(UsageError, match=r"multiples of 32: try --bucket-step 32$"):
        PreprocessSpec(None, 32, buckets=buckets)


def test_a_picture_of_the_right_size_is_untouched() -> None:
    prepared = preprocess(Image.fromarray(scene(96, 64)), PreprocessSpec((96, 64), 32))
    assert np.array_equal(prepared.pixels.numpy().transpose(1, 2, 0), scene(96, 64))


def test_shrinking_antialiases() -> None:
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = Image.fromarray(board[..., None].repeat(3, axis=2))
    inside = preprocess(image, PreprocessSpec((64, 64), 32)).pixels[:, 4:-4, 4:-4]
    assert inside.min() >= 126
    assert inside.max() <= 129


def test_a_very_long_picture_needs_little_memory() -> None:
    # Resized as a whole it would be 25,600,000 x 256 pixels.
    prepared = preprocess(Image.new("RGB", (100_000, 1), (9, 9, 9)), PreprocessSpec((256, 256), 32))
    assert prepared.resized_size == (25_600_000, 256)
    assert (prepared.pixels == 9).all()


@pytest.mark.parametrize(
    ("size", "hint"),
    [
        ((250, 250), "try 256x256 or 224x224"),
        ((512, 250), "try 512x256 or 512x224"),
        ((20, 20), "try 32x32"),
        ((0, 64), "try 32x64"),
    ],
)
def test_sizes_off_the_divisor_are_refused_with_the_nearest(
    size: tuple[int, int], hint: str
) -> None:
    with pytest.raises(UsageError, match=f"size is {size[0]}x{size[1]}.*multiples of 32: {hint}$"):
        PreprocessSpec(size, 32)


def test_filters_are_checked() -> None:
    with pytest.raises(UsageError, match="'nearest'; allowed are lanczos, bicubic, bilinear, box"):
        PreprocessSpec(None, 32, "nearest")


def decibels(data: bytes, spec: PreprocessSpec) -> float:
    """PSNR of a picture that is reduced while it is decoded, against the whole one resized."""
    whole = decode_image(data, DecodePolicy())
    small = decode_image(data, DecodePolicy(), partial(reduction, spec=spec))
    assert max(small.rgb.shape) < max(whole.rgb.shape)
    found, expected = (
        preprocess(picture.rgb, spec, picture.original_size) for picture in (small, whole)
    )
    assert (found.resized_size, found.crop) == (expected.resized_size, expected.crop)
    assert found.pixels.is_contiguous()
    error = (found.pixels.float() - expected.pixels.float()).square().mean().item()
    return 10 * float(np.log10(255**2 / error))


@pytest.mark.parametrize("filter", ["lanczos", "bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (96, 16), (16, 64)])
@pytest.mark.parametrize("sides", [(512, 512), (515, 519), (509, 517)])
def test_a_reduced_picture_lies_where_the_whole_one_does(
    filter: str, size: tuple[int, int], sides: tuple[int, int]
) -> None:
    """Half a pixel aside, the stripes would differ by tens of levels; thin crops go by Pillow."""
    across, down = np.mgrid[0 : sides[1], 0 : sides[0]][::-1] / 12
    stripes = np.stack([np.sin(across), np.sin(down), np.sin(across + down)], axis=-1)
    data = save(Image.fromarray((127.5 + 100 * stripes).astype(np.uint8)), "JPEG", quality=95)
    assert decibels(data, PreprocessSpec(size, 16, filter, reducing_gaps=(2, 3, 3))) > 45


@pytest.mark.shared
@pytest.mark.parametrize(
    "spec",
    [
        PreprocessSpec((128, 128), 16, reducing_gaps=(2, 3, 3)),
        PreprocessSpec((64, 64), 16, "bilinear", reducing_gaps=(2, 3, 3)),
        PreprocessSpec((32, 32), 16, "bicubic", reducing_gaps=(2, 3, 3)),
        PreprocessSpec(None, 16, "lanczos", make_buckets("area", 128, 16, 16), (2, 3, 3)),
    ],
    ids=["a half", "a half of enough", "a quarter", "buckets"],
)
def test_reduced_photographs_are_45_decibels_from_whole_ones(
    shared: Path, spec: PreprocessSpec
) -> None:
    photographs = sorted((shared / "images" / "kodak").glob("*.png"))[::3]
    files = [save(Image.open(path).convert("RGB"), "JPEG", quality=90) for path in photographs]
    assert np.mean([decibels(data, spec) for data in files]) > 45
