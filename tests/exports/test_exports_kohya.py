"""The files of sd-scripts: those of its own writer, byte for byte, and its letterbox arithmetic."""

from __future__ import annotations

import io
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from goldens import golden, sample, setting
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.exports.kohya import FORMAT, arrays_of, fitted, merge

SETS = {"sd": "sd", "sdxl": "sdxl", "sd3_no_upscale": "sd3", "flux": "flux"}


def written(meta, inputs, arch):
    """The files that we write from the same inputs, resolutions one after the other."""
    files: dict[str, bytes] = {}
    for row in meta["samples"]:
        one = sample(
            inputs[f"{row['input']}.latent"],
            str(PurePosixPath(row["image"]).with_suffix("")),
            mirrored=inputs.get(f"{row['input']}.latent_flip"),
            original_size=tuple(row["image_size"]),
        )
        for path, data in FORMAT.write([one], 0, setting(FORMAT, arch)).files:
            files[path] = merge(files[path], data) if path in files else data
    return files


@pytest.mark.shared
@pytest.mark.parametrize("name", SETS)
def test_the_trainers_own_files(shared, name):
    meta, inputs, files = golden(shared, f"kohya/{name}")
    ours = written(meta, inputs, SETS[name])
    assert ours.keys() == files.keys()
    for path, data in files.items():
        theirs = arrays_of(data)
        # Masks are written on request alone: the trainer would mask the loss with them.
        kept = {key: array for key, array in theirs.items() if "alpha_mask" not in key}
        mine = arrays_of(ours[path])
        assert [*mine] == [*kept]
        for key, array in kept.items():
            assert mine[key].dtype == array.dtype
            np.testing.assert_array_equal(mine[key], array)
        if len(kept) == len(theirs):
            assert ours[path] == data


@pytest.mark.parametrize(
    "size, bucket, expected",
    [
        ((1500, 1000), (1024, 1024), (0, 170, 1024, 852.6666666666666)),
        ((200, 150), (128, 128), (0, 16, 128, 112)),
        ((96, 210), (64, 192), (0, 26, 64, 166)),
        ((100, 100), (64, 64), (0, 0, 64, 64)),
    ],
)
def test_the_letterbox(size, bucket, expected):
    assert fitted(size, bucket) == pytest.approx(expected)


@settings(deadline=None)
@given(*[st.integers(8, 4000)] * 4)
def test_the_letterbox_is_inside_of_the_bucket(width, height, bucket_width, bucket_height):
    left, top, right, bottom = fitted((width, height), (bucket_width, bucket_height))
    assert left >= 0 and top >= 0
    assert right <= bucket_width + 1e-6 and bottom <= bucket_height + 1e-6
    assert (right - left) / (bottom - top) == pytest.approx(width / height)


def test_keys_of_each_suffix():
    latent = torch.zeros(16, 8, 12)
    keys = {}
    for arch in ("sd", "sdxl", "sd3", "flux", "lumina"):
        one = sample(latent, "a/b", original_size=(20000, 96), mirrored=latent)
        ((path, data),) = FORMAT.write([one], 0, setting(FORMAT, arch)).files
        assert path == f"a/b_20000x0096_{arch}.npz"
        keys[arch] = [*arrays_of(data)]
    plain = ["latents", "original_size", "crop_ltrb", "latents_flipped"]
    assert keys["sd"] == keys["sdxl"] == plain
    assert keys["sd3"] == keys["flux"] == keys["lumina"] == [f"{key}_8x12" for key in plain]


def test_what_is_there_already_stays():
    old, new = io.BytesIO(), io.BytesIO()
    np.savez(old, latents_8x8=np.ones(3), alpha_mask_8x8=np.ones(2))
    np.savez(new, latents_4x4=np.zeros(3), latents_8x8=np.zeros(3))
    both = merge(old.getvalue(), new.getvalue())
    assert [*arrays_of(both)] == ["latents_8x8", "alpha_mask_8x8", "latents_4x4"]
    assert arrays_of(both)["latents_8x8"].tolist() == [0, 0, 0]
    assert merge(both, new.getvalue()) == both
    with pytest.raises(ValueError, match="no archive of arrays"):
        merge(b"PK\x03\x04", new.getvalue())
