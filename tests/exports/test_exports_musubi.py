"""The files of musubi-tuner: those of its own writer, and the grammar of names and keys."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest
import torch
from goldens import golden, headed, sample, setting
from hypothesis import given
from hypothesis import strategies as st

from latentcli.exports.format import Sizing
from latentcli.exports.musubi import ARCHITECTURES, FORMAT, SCRIPTS, VARIANTS

SETS = {"flux2_dev": "flux2_dev", "flux2_klein_4b": "flux2_klein_4b", "z_image": "z_image"}


def written(latent, name, arch, size, **more):
    """The path and the (metadata, tensors) of one file."""
    one = sample(latent, name, original_size=size)
    ((path, data),) = FORMAT.write([one], 0, setting(FORMAT, arch, **more)).files
    return path, headed(data)


@pytest.mark.shared
@pytest.mark.parametrize("name", SETS)
def test_the_trainers_own_files(shared, name):
    meta, inputs, files = golden(shared, f"musubi/{name}")
    caches = {path: data for path, data in files.items() if not path.endswith("_te.safetensors")}
    ours = {}
    for row in meta["samples"]:
        latent = inputs[row["input"]]
        path, found = written(
            latent,
            str(PurePosixPath(row["image"]).with_suffix("")),
            SETS[name],
            tuple(row["image_size"]),
            dtype=row["keys"][0][1].removeprefix("torch."),
        )
        ours[path] = found
        metadata, tensors = found
        assert [[key, str(t.dtype), list(t.shape)] for key, t in tensors.items()] == row["keys"]
        assert metadata == row["metadata"]
    assert ours.keys() == caches.keys()
    for path, data in caches.items():
        metadata, tensors = headed(data)
        assert ours[path][0] == metadata
        assert ours[path][1].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert torch.equal(ours[path][1][key], tensor)


@pytest.mark.parametrize(
    "arch, shape, tail, key",
    [
        ("flux2_dev", (128, 4, 6), "f2d", "latents_4x6_float32"),
        ("flux2_klein_4b", (128, 4, 6), "f2k4b", "latents_4x6_float32"),
        ("flux2_klein_9b", (128, 4, 6), "f2k9b", "latents_4x6_float32"),
        ("z_image", (16, 8, 12), "zi", "latents_1x8x12_float32"),
    ],
)
def test_names_and_keys(arch, shape, tail, key):
    path, (metadata, tensors) = written(torch.ones(shape), "deep/er/a.b_c", arch, (96, 12345))
    assert path == f"a.b_c_0096x12345_{tail}.safetensors"
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {key: shape}
    assert metadata == {
        "architecture": ARCHITECTURES[tail],
        "width": "96",
        "height": "12345",
        "format_version": "1.0.1",
    }


@given(
    st.from_regex(r"[a-z0-9_x .]{1,12}", fullmatch=True).filter(
        lambda s: s.strip("."),
    ),
    st.integers(1, 30000),
    st.integers(1, 30000),
)
def test_the_reader_takes_names_apart(stem, width, height):
    """Its last token but one is the size, and all before it is the key of the sample."""
    path, _ = written(torch.zeros(16, 2, 2), f"folder/{stem}", "z_image", (width, height))
    *key, size, arch = path.removesuffix(".safetensors").split("_")
    assert "_".join(key) == stem and arch == "zi"
    assert [int(n) for n in re.fullmatch(r"(\d+)x(\d+)", size).groups()] == [width, height]


def test_dtypes_and_what_was_forced():
    more = {"dtype": "bfloat16", "forced": True, "space": "lab/other", "state": "whitened"}
    _, (metadata, tensors) = written(torch.ones(128, 2, 2), "a", "flux2_dev", (32, 32), **more)
    assert tensors["latents_2x2_bfloat16"].dtype == torch.bfloat16
    assert metadata["latentcli_forced"] == "lab/other#whitened"


def test_advice_has_the_settings_and_the_missing_caches():
    for one in VARIANTS:
        sizing = Sizing(rule="musubi", size=(768, 680), step=16, no_upscale=True)
        known = {"folder": "/out", "root": "/pictures", "sizing": sizing}
        data_set, missing, dont = FORMAT.advice(setting(FORMAT, one.name, **known))
        for words in (
            'image_directory = "/pictures"',
            'cache_directory = "/out"',
            "resolution = [768, 680], enable_bucket = true, bucket_no_upscale = true",
        ):
            assert words in data_set
        script = SCRIPTS[one.tag][0]
        assert f"{script}_cache_text_encoder_outputs.py" in missing and "skipped" in missing
        assert f"{script}_cache_latents.py" in dont and "--keep_cache" in dont
    plain = FORMAT.advice(setting(FORMAT, "z_image", sizing=Sizing(size=(512, 512))))
    assert "resolution = [512, 512], enable_bucket = false" in plain[0]


def test_a_folder_that_its_search_cannot_see():
    assert FORMAT.problem(setting(FORMAT, "z_image", folder="/data/set")) is None
    assert "wildcard character" in FORMAT.problem(setting(FORMAT, "z_image", folder="/data/[set]"))
