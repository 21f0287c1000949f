"""Resizing by products of matrices gives what the libraries give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latentcli.images.preprocess import PreprocessSpec, geometry, preprocess, resizes_alike
from latentcli.images.products import BLOCK, FILTERS, resize_crop

SIDES = st.integers(16, 3 * BLOCK)
TARGETS = st.tuples(*[st.integers(1, 12).map(lambda cells: 16 * cells)] * 2)


def picture(width: int, height: int, seed: int) -> torch.Tensor:
    """uint8 [H, W, 3]: hard edges for the one half, noise for the other."""
    chance = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=chance)
    blocks = torch.where(
        noise[::5, ::7].repeat_interleave(5, 0).repeat_interleave(7, 1) > 99, 255, 0
    )
    left = torch.arange(width)[:, None] < width // 2
    return torch.where(left, 255 * blocks[:height, :width].to(torch.uint8), noise)


@settings(max_examples=60)
@given(
    size=st.tuples(SIDES, SIDES),
    target=TARGETS,
    filter=st.sampled_from(FILTERS),
    seed=st.integers(0, 9),
)
def test_it_is_preprocess_within_two_levels(size, target, filter, seed):
    whole, spec = picture(*size, seed), PreprocessSpec(target, 16, filter)
    expected = preprocess(whole.numpy().copy(), spec)
    if not resizes_alike(size, spec):
        return
    pixels = resize_crop(whole.permute(2, 0, 1), *geometry(size, spec), filter)
    difference = (pixels.int() - expected.pixels.int()).abs()
    assert pixels.dtype == torch.uint8 and pixels.shape == expected.pixels.shape
    assert difference.max() <= 2
    assert difference.float().mean() < 0.05


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("resized", [(40, 30), (130, 91), (300, 211), (513, 360)])
def test_it_is_pillow_within_a_level(filter, resized):
    whole = picture(200, 140, 1)
    image = Image.fromarray(whole.numpy())
    expected = np.asarray(image.resize(resized, Image.Resampling[filter.upper()]))
    pixels = resize_crop(whole.permute(2, 0, 1), resized, (0, 0, *resized), filter)
    difference = np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - expected)
    assert difference.max() <= 1


@pytest.mark.parametrize("begin", [0, 3, BLOCK])
def test_a_crop_is_a_part_of_the_whole(begin):
    whole, resized = picture(300, 280, 2).permute(2, 0, 1), (450, 420)
    everything = resize_crop(whole, resized, (0, 0, *resized), "lanczos")
    crop = (begin, begin + 1, begin + 200, begin + 180)
    part = resize_crop(whole, resized, crop, "lanczos")
    assert (part.int() - everything[:, crop[1] : crop[3], crop[0] : crop[2]].int()).abs().max() <= 1


def test_without_a_resize_nothing_changes():
    whole = picture(64, 48, 3).permute(2, 0, 1)
    assert torch.equal(resize_crop(whole, (64, 48), (8, 0, 56, 48), "lanczos"), whole[:, :, 8:56])


def test_what_is_mostly_cut_off_is_not_resized_whole():
    spec = PreprocessSpec((512, 512), 16)
    assert resizes_alike((1024, 768), spec)
    assert not resizes_alike((4000, 100), spec)
    assert not resizes_alike((1024, 768), PreprocessSpec((512, 512), 16, "box"))
