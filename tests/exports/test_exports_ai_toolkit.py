"""The files of ai-toolkit: those of its own writer, and the hash in their names."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
import torch
from goldens import golden, headed, sample, setting

from latentcli.exports.ai_toolkit import FORMAT, VARIANTS, digest
from latentcli.exports.format import Sizing

SETS = {"flux2": "flux2", "sdxl_flip": "sdxl"}


@pytest.mark.shared
@pytest.mark.parametrize("name", SETS)
def test_the_trainers_own_files(shared, name):
    meta, inputs, files = golden(shared, f"ai_toolkit/{name}")
    groups: dict[str, dict[bool, dict]] = {}
    for row in meta["samples"]:
        groups.setdefault(row["image"], {})[row["flip_x"]] = row
    ours = {}
    for image, flips in groups.items():
        row = flips[False]
        (left, top, width, height), path = row["crop_xywh"], PurePosixPath(image)
        mirrored = flips.get(True)
        one = sample(
            inputs[row["input"]],
            str(path.with_suffix("")),
            filename=path.name,
            mirrored=None if mirrored is None else inputs[mirrored["input"]].float(),
            resized_size=tuple(row["scale_to"]),
            crop=(left, top, left + width, top + height),
        )
        dtype = row["keys"][0][1].removeprefix("torch.")
        for file in FORMAT.write([one], 0, setting(FORMAT, SETS[name], dtype=dtype)).files:
            ours[file.path] = headed(file.data)
    assert ours.keys() == files.keys()
    for row in meta["samples"]:
        metadata, tensors = ours[row["file"]]
        theirs = headed(files[row["file"]])
        assert metadata == row["metadata"] == theirs[0]
        assert tensors.keys() == theirs[1].keys() == {"latent"}
        assert tensors["latent"].dtype == theirs[1]["latent"].dtype
        assert torch.equal(tensors["latent"], theirs[1]["latent"])


def plain(**more):
    known = {
        "filename": "cat.png",
        "scale_to_width": 150,
        "scale_to_height": 112,
        "crop_x": 3,
        "crop_y": 0,
        "crop_width": 144,
        "crop_height": 112,
        "latent_space_version": "flux2",
        "latent_version": 1,
    }
    return known | more


@pytest.mark.parametrize(
    "about, expected",
    [
        (plain(), "mzoamXfiJ7q6EzThD-baqQ"),
        (plain(latent_space_version="sdxl"), "2ZPdDTI5lwwl2pfu1W5UGw"),
        (plain(latent_space_version="sdxl", flip_x=True), "7Bqk3y7NvafABu-qq_7zvA"),
    ],
)
def test_the_hash(about, expected):
    assert digest(about) == expected
    assert digest(dict(reversed(about.items()))) == expected


def test_letters_beyond_ascii_are_escaped_before_the_hash():
    escaped = digest(plain(filename="caf\u00e9.png"))
    assert escaped != digest(plain(filename="cafe.png")) and len(escaped) == 22
    assert "=" not in escaped and "/" not in escaped and "+" not in escaped


def test_mirrored_latents_are_samples_of_their_own():
    latent = torch.zeros(4, 2, 2)
    one = sample(latent, "a/b.c", filename="b.c.jpeg", mirrored=latent + 1)
    first, second = FORMAT.write([one], 0, setting(FORMAT, "sdxl")).files
    assert first.path.startswith("a/_latent_cache/b.c_") and second.path != first.path
    assert "flip_x" not in headed(first.data)[0] and headed(second.data)[0]["flip_x"] == "true"
    assert headed(second.data)[1]["latent"].eq(1).all()


def test_every_model_has_the_name_that_the_trainer_hashes():
    tags = {one.name: one.tag for one in VARIANTS}
    assert tags["flux"] == "flux1"
    assert all(tag == name for name, tag in tags.items() if name != "flux")


def test_advice_and_what_it_cannot_take():
    sizing = Sizing(rule="ai-toolkit", size=(1024, 1024), step=16)
    known = {"folder": "/out", "root": "/pictures", "sizing": sizing, "mirrored": True}
    lines = FORMAT.advice(setting(FORMAT, "sdxl", **known))
    assert "folder_path: /pictures, resolution: 1024, cache_latents_to_disk: true" in lines[0]
    assert "flip_x: true" in lines[0] and "--link-images" in lines[1]
    beside = FORMAT.advice(setting(FORMAT, "sdxl", folder="/pictures", root="/pictures"))
    assert not any("--link-images" in line for line in beside)
    assert FORMAT.problem(setting(FORMAT, "sdxl", **known)) is None
    wide = known | {"sizing": Sizing(rule="ai-toolkit", size=(768, 680), step=16)}
    assert "not a square" in FORMAT.problem(setting(FORMAT, "sdxl", **wide))
