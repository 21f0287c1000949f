"""Preset files: every shipped one reads, and every mistake in one is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from latentcli.core.errors import UsageError
from latentcli.core.types import LatentSpec
from latentcli.models import presets

GOOD = """
family = "fcdm"
summary = "a test"
licence = "none"
card = "here"

[config]
model_dim = 32

[weights]
repo = "org/name"

[latents]
space = "org/name"
channels = 8
downscale = 16
size_divisor = 32
"""


def write(folder: Path, text: str, name: str = "toy.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_presets_read() -> None:
    found = {name: presets.load_preset(name) for name in presets.preset_names()}
    published = {"semdisdiffae", "semdisdiffae_p32_v2", "full_capacitor", "capacitor_decoder"}
    assert published | {"fcdm_nano"} <= set(found)
    for name, preset in found.items():
        assert preset.name == name
        assert preset.image_range == (-1.0, 1.0)
        assert 10 < preset.psnr_floor < 25
        assert preset.size_divisor % preset.downscale == 0
        assert preset.parameters


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("semdisdiffae", LatentSpec(128, 16, 16, "data-archetype/semdisdiffae")),
        ("semdisdiffae_p32_v2", LatentSpec(384, 32, 32, "data-archetype/semdisdiffae_p32_v2")),
        ("full_capacitor", LatentSpec(128, 16, 32, "data-archetype/full_capacitor")),
        ("capacitor_decoder", LatentSpec(128, 16, 16, "flux2")),
    ],
)
def test_latents_of_the_published_models(name: str, spec: LatentSpec) -> None:
    assert presets.load_preset(name).spec == spec
    assert presets.load_preset(name).can_encode == (name != "capacitor_decoder")


SPACES = {
    "flux2#whitened": {"flux2", "flux2_small_decoder", "taef2", "capacitor_decoder"},
    "sdxl#scaled": {"sdxl", "taesdxl", "tae192", "effvit_sdxl"},
    "svd#scaled": {"svd", "tae192_svd", "effvit_svd", "tae_temporal"},
    "sd1#scaled": {"taesd"},
    "sd3#scaled": {"taesd3"},
    "flux1#scaled": {"taef1"},
}
"""Latent spaces that other people's models share; all other presets have one of their own."""


def test_whose_latents_are_whose() -> None:
    found: dict[str, set[str]] = {}
    for name in presets.preset_names():
        preset = presets.load_preset(name)
        found.setdefault(preset.spec.space_id(preset.state), set()).add(name)
    own = {space: names for space, names in found.items() if space not in SPACES}
    assert {space: found[space] for space in SPACES} == SPACES
    assert all(len(names) == 1 and space.endswith("#whitened") for space, names in own.items())


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys; from latentcli.models.presets import load_preset, preset_names;"
        "[load_preset(n) for n in preset_names()]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_path_works_as_a_preset(tmp_path: Path) -> None:
    preset = presets.load_preset(write(tmp_path, GOOD))
    assert (preset.name, preset.repo, preset.revision) == ("toy", "org/name", "main")
    assert preset.spec == LatentSpec(8, 16, 32, "org/name")
    assert presets.load_preset(str(tmp_path / "toy.toml")) == preset


def test_an_absent_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.toml does not exist"):
        presets.load_preset(tmp_path / "nothing.toml")


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        presets.load_preset("full_capasitor")
    message = str(caught.value)
    assert "Did you mean full_capacitor?" in message
    assert all(name in message for name in presets.preset_names())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("flux_2", " Did you mean flux2?"),
        ("Taef2", " Did you mean taef2?"),
        ("taesd33", " Did you mean taesd3?"),
        ("taef9", ""),
        ("flux3", ""),
        ("dinac_ae_d3", ""),
        ("flux1", " For its latents there is taef1."),
        ("FLUX.1-dev", " For its latents there is taef1."),
        ("flux", " For its latents there is flux2, flux2_small_decoder, taef1 or taef2."),
        ("sdxl-vae", " For its latents there is sdxl or taesdxl."),
        ("sd-vae", " For its latents there is taesd."),
        ("sd", " For its latents there is taesd."),
        ("sd3.5", " For its latents there is taesd3."),
        ("nothing-like-it", ""),
    ],
)
def test_another_model_is_no_mistyped_one(name: str, hint: str) -> None:
    told = str(presets.unknown_preset(name))
    assert told.startswith(f"There is no model named {name!r}.{hint} Presets are: ")


def test_no_preset_is_listed_as_a_model_that_is_none() -> None:
    names = {re.sub(r"[-_. ]", "", name) for name in presets.preset_names()}
    assert not names & {name for names in presets.WELL_KNOWN.values() for name in names.split()}
    spaces = {presets.load_preset(name).space for name in presets.preset_names()}
    assert set(presets.WELL_KNOWN) <= spaces


@pytest.mark.parametrize("repo", ["data-archetype/full_capacitor", "Data-Archetype/Full_Capacitor"])
def test_the_preset_of_a_repository(repo: str) -> None:
    preset = presets.preset_of_repo(repo)
    assert preset is not None
    assert preset.name == "full_capacitor"


def test_a_repository_without_a_preset() -> None:
    assert presets.preset_of_repo("someone/something") is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("summary =", "sumary =", "unknown key 'sumary'. Did you mean summary? Allowed are: fam"),
        ("channels =", "chanels =", "unknown key 'chanels' in [latents]. Did you mean channels?"),
        ("repo =", "repos =", "unknown key 'repos' in [weights]. Did you mean repo?"),
        ("[weights]", "[wieghts]", "unknown key 'wieghts'. Did you mean weights?"),
        ('family = "fcdm"', "", "the key family is missing"),
        ("channels = 8", "", "the key latents.channels is missing; it must be a positive whole"),
        ("channels = 8", "channels = 8.5", "latents.channels is 8.5, it must be a positive whole"),
        ("channels = 8", "channels = true", "latents.channels is True"),
        ("channels = 8", "channels = 0", "latents.channels is 0"),
        ('"none"', "3", "licence is 3, it must be a text"),
        ('repo = "org/name"', 'repo = "name"', "weights.repo is 'name', it must be org/name"),
        ('repo = "org/name"', "", "[weights] needs repo or bundled"),
        ("[latents]", '[images]\nrange = "0..1"\n[latents]', "images.range is '0..1'"),
        ("[latents]", "[images]\nrange = [0, 1]\n[latents]", "[0, 1], it must be [-1, 1]"),
        ("[latents]", 'sha256 = "abc"\n[latents]', "weights.sha256 is 'abc', it must be 64"),
        ("[latents]", 'file = "../x.safetensors"\n[latents]', "without a folder"),
        ("[latents]", "[capabilities]\ncan_encode = 1\n[latents]", "it must be true or false"),
        ("[config]\nmodel_dim = 32", "config = 3", "config is 3, it must be a table"),
        ('"here"', '"here"\nimages = 3', "images is 3, it must be a table [images]"),
        ("size_divisor = 32", "size_divisor = 24", "[latents] size divisor 24 is not a multiple"),
        ("[latents]", "[latents", "cannot be read"),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        presets.load_preset(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_an_installed_package_reads_the_presets_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "latentcli" / "configs" / "models"
    beside = tmp_path / "configs" / "models"
    monkeypatch.setattr(presets, "PACKAGE", tmp_path / "latentcli")
    beside.mkdir(parents=True)
    write(beside, GOOD, "checkout.toml")
    assert presets.preset_names() == ["checkout"]
    inside.mkdir(parents=True)
    write(inside, GOOD, "wheel.toml")
    assert presets.preset_names() == ["wheel"]
