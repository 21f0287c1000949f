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

from latentcli.exports.format import Sizing
from latentcli.exports.kohya import FORMAT, arrays_of, fitted, merge, mistaken

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
    # Floor division makes -1 of what is below 0 by a last bit, in the trainer as well.
    assert left >= -1 and top >= -1
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
    # Without a size in their names, masks and mirrored latents may be of another one.
    old, new = io.BytesIO(), io.BytesIO()
    np.savez(old, latents=np.ones(3), latents_flipped=np.ones(3))
    np.savez(new, latents=np.zeros(2))
    assert merge(old.getvalue(), new.getvalue()) == new.getvalue()
    with pytest.raises(ValueError, match="not an archive of arrays"):
        merge(b"PK\x03\x04", new.getvalue())


def test_pictures_that_it_takes_for_others():
    have = ["a/cat2", "a/cat10", "b/dog", "zebra", "catfish/x"]
    lack = ["a/cat", "a/ca", "b/do", "b/cat", "dog", "zebra1", "cat", "catfish"]
    assert mistaken(have, lack) == {"a/cat": "a/cat10", "a/ca": "a/cat10", "b/do": "b/dog"}
    assert mistaken([], ["a"]) == {}


def test_older_caches_hide_ours_for_two_models():
    hidden = {one.name: FORMAT.hides("a/b", setting(FORMAT, one.name)) for one in FORMAT.variants}
    assert hidden == {"sd": "a/b.npz", "sdxl": "a/b.npz", "sd3": "", "flux": "", "lumina": ""}


def test_advice_has_the_settings():
    table = Sizing(
        rule="kohya", size=(1024, 1024), step=64, min_side=256, max_side=2048, no_upscale=False
    )
    known = {"folder": "/out", "root": "/pictures", "sizing": table, "mirrored": True}
    lines = FORMAT.advice(setting(FORMAT, "sdxl", **known))
    assert (
        'image_dir = "/pictures", caption_extension = ".txt", resolution = 1024,'
        " enable_bucket = true, bucket_reso_steps = 64, min_bucket_reso = 256,"
        " max_bucket_reso = 2048, flip_aug = true."
    ) in lines[0]
    assert "--link-images" in lines[1] and "--cache_latents_to_disk" in lines[2]
    one_size = known | {"sizing": Sizing(size=(768, 512)), "root": "/out", "mirrored": False}
    first, _ = FORMAT.advice(setting(FORMAT, "sdxl", **one_size))
    assert "resolution = [768, 512], enable_bucket = false." in first
    small = known | {"sizing": Sizing(rule="kohya", size=(8, 8), step=8, no_upscale=True)}
    assert "bucket_no_upscale = true, flip_aug" in FORMAT.advice(setting(FORMAT, "sd3", **small))[0]
