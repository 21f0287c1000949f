"""The files of SimpleTuner: those of its own writer, its hash of names, and its settings."""

from __future__ import annotations

import io
import json
from pathlib import PurePosixPath

import pytest
import torch
from goldens import golden, sample, setting

from latentcli.exports.format import Sizing
from latentcli.exports.simpletuner import CACHE, FORMAT, cache_name

ARCHES = {"flux2": "flux2", "sdxl": "sdxl"}


def read(data):
    """As its reader does."""
    return torch.load(io.BytesIO(data), weights_only=True)


@pytest.mark.shared
@pytest.mark.parametrize("name", ARCHES)
def test_the_trainers_own_files(shared, name):
    meta, inputs, files = golden(shared, f"simpletuner/{name}")
    ours = {}
    for row in meta["samples"]:
        latent = inputs[row["input"]]
        one = sample(latent, str(PurePosixPath(row["image"]).with_suffix("")))
        dtype = row["dtype"].removeprefix("torch.")
        ((path, data),) = FORMAT.write([one], 0, setting(FORMAT, name, dtype=dtype)).files
        assert path == f"{CACHE}/{row['file']}"
        ours[path.removeprefix(f"{CACHE}/")] = data
    assert ours.keys() == files.keys()
    for path, data in files.items():
        theirs, mine = read(data), read(ours[path])
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
        if torch.__version__.startswith("2.13.0"):
            assert ours[path] == data


def test_the_hash_is_of_the_stem_alone():
    digest = "77af778b51abd4a3c51c5ddd97204a9c3ae614ebccb75a606c3b6865aed6744e"
    assert cache_name("cat") == f"vae/{digest}.pt"
    assert cache_name("a/b/cat") == f"vae/a/b/{digest}.pt"
    # Of "猫", in UTF-8.
    assert cache_name("猫").startswith("vae/a810bf84")


def test_a_file_holds_one_tensor_and_no_more():
    """A view would bring all of its shard along."""
    shard = torch.zeros(64, 4, 8, 8)
    one = sample(shard[3], "a")
    ((_, data),) = FORMAT.write([one], 0, setting(FORMAT, "sdxl", dtype="float32")).files
    assert len(data) < 4 * 8 * 8 * 4 + 4000
    assert read(data).shape == (4, 8, 8)
    ((_, data),) = FORMAT.write([one], 0, setting(FORMAT, "sdxl", dtype="bfloat16")).files
    assert read(data).dtype == torch.bfloat16 == getattr(torch, FORMAT.dtypes[0])


def rows(arch, sizing):
    """The entry of its file of data sets, and the line on the alignment."""
    known = {"folder": "/out", "root": "/pictures", "sizing": sizing}
    first, second, _ = FORMAT.advice(setting(FORMAT, arch, **known))
    return json.loads(first.partition(": ")[2]), second


@pytest.mark.parametrize(
    "arch, sizing, expected, align",
    [
        ("sdxl", Sizing(size=(1024, 1024)), (1024, "pixel", "square"), 64),
        ("sdxl", Sizing(size=(1000, 1000)), (1000, "pixel", "square"), 8),
        ("flux2", Sizing(size=(1024, 1024)), (1024, "pixel", "square"), 16),
        (
            "sdxl",
            Sizing(rule="simpletuner", size=(1024, 1024), step=64),
            (1024, "pixel_area", "preserve"),
            64,
        ),
        (
            "sdxl",
            Sizing(rule="simpletuner", size=(800, 625), step=32),
            (0.5, "area", "preserve"),
            32,
        ),
        (
            "sdxl",
            Sizing(rule="simpletuner-pixel", size=(768, 768), step=64),
            (768, "pixel", "preserve"),
            64,
        ),
    ],
)
def test_the_settings_of_its_data_set(arch, sizing, expected, align):
    row, second = rows(arch, sizing)
    assert (row["resolution"], row["resolution_type"], row["crop_aspect"]) == expected
    assert row["crop"] is True and row["crop_style"] == "center"
    assert row["cache_dir_vae"] == "/out/vae" and row["instance_data_dir"] == "/pictures"
    assert f"--aspect_bucket_alignment={align}." in second
