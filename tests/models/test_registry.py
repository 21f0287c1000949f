"""Names to models: presets, Hub ids, folders and preset files give the right network."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from latentcli.core.errors import UsageError, WeightsError
from latentcli.core.types import LatentSpec
from latentcli.models import pretrained, registry
from latentcli.models.presets import load_preset, preset_names
from latentcli.models.registry import build_model, family, find_preset, load_model
from latentcli.models.weights import file_sha256, random_state

FCDM = family("fcdm")
TOY = """
family = "fcdm"
summary = "a test"
licence = "none"
card = "here"
[config]
model_dim = 32
encoder_depth = 1
decoder_depth = 3
decoder_start_blocks = 1
decoder_end_blocks = 1
bottleneck_dim = 8
adaln_low_rank_rank = 4
pixel_noise_std = 0.558
[weights]
repo = "org/toy"
[latents]
space = "toy-space"
channels = 8
downscale = 16
size_divisor = 32
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATENTCLI_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def save_checkpoint(folder: Path, seed: int = 1, decoder_only: bool = False, **config: Any) -> Path:
    """A folder as a Hub repository holds it: config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    state = random_state(lambda: FCDM.build(FCDM.tiny, None), seed)
    if decoder_only:
        state = {name: t for name, t in state.items() if not name.startswith("encoder.")}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**FCDM.tiny, **config}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def preset_file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(TOY)
    return path


def test_every_module_that_declares_a_family_is_known():
    """Presets name the families, so that one without a preset would never be found."""
    modules = Path(registry.__file__).parent.glob("*.py")
    declared = {path.stem for path in modules if "\nFAMILY = " in path.read_text(encoding="utf-8")}
    assert declared == set(registry.families())


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize("name", preset_names())
def test_presets_agree_with_what_they_build(name: str) -> None:
    preset = load_preset(name)
    if preset.family == "kl":
        pytest.importorskip("diffusers")
    with torch.device("meta"):
        model = family(preset.family).build(preset.config, None)
    assert model.spec.geometry == preset.spec.geometry
    assert preset.size_divisor % model.spec.size_divisor == 0
    # A checkpoint may hold an encoder that the preset does not vouch for.
    assert model.can_encode >= preset.can_encode and model.can_decode >= preset.can_decode


def test_a_folder_is_a_model(folder: Path) -> None:
    model = load_model(folder)
    sha = file_sha256(folder / "model.safetensors")
    assert model.spec == LatentSpec(8, 16, 16, f"local-{sha[:12]}")
    config = json.loads((folder / "config.json").read_text())
    assert asdict(model.info) == {
        "name": str(folder),
        "family": "fcdm",
        "origin": "folder",
        "preset_name": None,
        "repo": None,
        "revision": None,
        "weights_path": str(folder / "model.safetensors"),
        "weights_sha256": sha,
        "psnr_floor": None,
        "config": config,
    }
    assert model.encode(images()).shape == (2, 8, 2, 4)


def test_the_same_weights_by_every_name(folder: Path, preset_file: Path, tmp_path: Path) -> None:
    commit = "0" * 40
    snapshot = tmp_path / "hub" / "models--org--toy" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path / "hub" / "models--org--toy" / "refs").mkdir()
    (tmp_path / "hub" / "models--org--toy" / "refs" / "main").write_text(commit)

    models = [
        load_model("org/toy"),
        load_model(preset_file),
        load_model(preset_file, revision=commit),
        load_model(preset_file, weights=snapshot),
        load_model(str(snapshot)),
    ]
    assert [m.info.psnr_floor for m in models] == [None, 18.0, 18.0, 18.0, None]
    wanted = models[0].encode(images())
    assert all(torch.equal(model.encode(images()), wanted) for model in models)
    assert [m.info.origin for m in models] == ["cached", "cached", "cached", "flag", "folder"]
    assert [m.info.preset_name for m in models] == [None, "toy", "toy", "toy", None]
    assert [m.info.revision for m in models] == [commit] * 3 + [None] * 2
    sha = file_sha256(snapshot / "model.safetensors")
    spaces = [f"local-{sha[:12]}", "toy-space", "toy-space", "toy-space", f"local-{sha[:12]}"]
    assert [m.spec.space for m in models] == spaces
    assert [m.spec.size_divisor for m in models] == [16, 32, 32, 32, 16]


def test_dtype_and_its_names(folder: Path) -> None:
    assert load_model(folder, dtype="bf16").dtype == torch.bfloat16
    assert load_model(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert load_model(folder, dtype="fp32").dtype == torch.float32
    for bad in ("fp16", torch.float16):
        with pytest.raises(UsageError, match="allowed are fp32, bf16"):
            load_model(folder, dtype=bad)


def test_weights_of_another_file_for_a_folder(folder: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", seed=2) / "model.safetensors"
    lone = other.rename(tmp_path / "lone.safetensors")
    model = load_model(folder, weights=lone)
    assert (model.info.origin, model.info.weights_path) == ("flag", str(lone))
    with pytest.raises(UsageError, match="is a folder and has no revisions"):
        load_model(folder, revision="main")


def test_names_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="Did you mean semdisdiffae"):
        load_model("semdisdifae")
    for name in ("./semdisdiffae", "a/b/c", "/nowhere", ""):
        with pytest.raises(UsageError, match="There is no model named"):
            load_model(name)
    with pytest.raises(WeightsError, match="org/absent were not found"):
        load_model("org/absent")


def test_presets_by_name_and_by_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("full_capacitor", "data-archetype/full_capacitor"):
        preset = find_preset(name)
        assert preset is not None
        assert preset.name == "full_capacitor"
    (tmp_path / "full_capacitor").mkdir()
    (tmp_path / "data-archetype" / "full_capacitor").mkdir(parents=True)
    assert find_preset("full_capacitor") is not None, "a preset's name comes before a folder"
    assert find_preset("./full_capacitor") is None
    assert find_preset("data-archetype/full_capacitor") is None


def test_a_folder_that_tells_no_family(folder: Path) -> None:
    (folder / "config.json").write_text('{"sample_size": 32}')
    with pytest.raises(
        WeightsError, match=r"does not match any family that latentcli knows \(dinac, .*fcdm"
    ):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no config\.json.* name a preset"):
        load_model(folder)


def test_unknown_config_keys_of_a_folder_are_refused(tmp_path: Path) -> None:
    strange = save_checkpoint(tmp_path / "strange", bottleneck_patchify_mode="patch_2x2")
    with pytest.raises(WeightsError, match="bottleneck_patchify_mode"):
        load_model(strange)


def test_unknown_config_keys_beside_a_preset_are_reported(
    preset_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strange = save_checkpoint(tmp_path / "strange", flux2_note=1, pixel_noise_std=0.25)
    model = load_model(preset_file, weights=strange)
    assert "flux2_note" in caplog.text
    assert model.config.pixel_noise_std == 0.25, "the checkpoint's own config knows better"


def test_null_keys_beside_a_preset_say_nothing(
    preset_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_model(preset_file, weights=save_checkpoint(tmp_path / "null", shift_factor=None))
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "like", "file", "told"),
    [
        (
            "taesd",
            "taesd",
            "taesdxl_decoder.pth",
            "as the weights of taesdxl are, and is loaded as",
        ),
        ("taesdxl", "taesd", "taesd_decoder.pth", "sd1 latents are not sdxl latents"),
        ("taesd", "taesd", "taesd_decoder.pth", ""),
        ("taesd", "taesd", "my.pth", ""),
        ("effvit_sdxl", "effvit_svd", "ex_svd_effvit.pth", "svd latents are not sdxl latents"),
        ("effvit_svd", "effvit_svd", "ex_svd_effvit.pth", ""),
    ],
)
def test_a_file_that_is_named_as_another_presets_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, like: str, file: str, told: str
) -> None:
    preset = load_preset(like)
    model = family(preset.family).build(preset.config, None)
    torch.save(model.state_dict(), tmp_path / file)
    load_model(name, weights=tmp_path / file)
    assert (told in caplog.text) if told else not caplog.records


@pytest.mark.parametrize("name", ["effvit_sdxl", "tae_temporal"])
def test_a_config_of_other_latents_beside_a_decoder_is_refused(tmp_path: Path, name: str) -> None:
    preset = load_preset(name)
    torch.save({"a": torch.zeros(1)}, tmp_path / preset.file)
    (tmp_path / "config.json").write_text('{"scaling_factor": 0.5}')
    with pytest.raises(WeightsError, match=r"says scaling_factor = 0\.5, but preset"):
        load_model(name, weights=tmp_path)


@pytest.mark.parametrize("name", ["taesd", "full_capacitor", "tae192"])
def test_a_config_of_another_familys_class_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "some.pth")
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL", "act_fn": "silu"}')
    with pytest.raises(WeightsError, match=f"is that of an AutoencoderKL, but preset {name} is of"):
        load_model(name, weights=tmp_path)
    assert not caplog.records


def test_a_checkpoint_of_another_geometry_is_refused(preset_file: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", bottleneck_dim=16)
    with pytest.raises(WeightsError, match="describes an f16c16 model, but preset toy is f16c8"):
        load_model(preset_file, weights=other)


def test_a_decoder_alone(preset_file: Path, tmp_path: Path) -> None:
    decoder = save_checkpoint(tmp_path / "decoder", decoder_only=True)
    assert not load_model(decoder).can_encode
    with pytest.raises(WeightsError, match="holds only a decoder, but preset toy has an encoder"):
        load_model(preset_file, weights=decoder)


def test_a_known_digest_is_checked_unless_the_file_was_named(
    preset_file: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "env"))
    (tmp_path / "env").mkdir()
    folder.rename(tmp_path / "env" / "toy")
    assert load_model(preset_file).info.origin == "env"
    preset_file.write_text(TOY.replace("[weights]", f'[weights]\nsha256 = "{"0" * 64}"'))
    with pytest.raises(WeightsError, match="is not the file that preset toy names"):
        load_model(preset_file)
    assert load_model(preset_file, weights=tmp_path / "env" / "toy").info.origin == "flag"


def test_random_weights_are_seeded_and_sane(preset_file: Path) -> None:
    model = load_model(preset_file, random_weights=True)
    assert (model.info.origin, model.info.preset_name) == ("random", "toy")
    assert model.spec.space == "toy-space"
    latents = model.encode(images())
    noise = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(3))
    decoded = model.decode(latents, 32, 64, noise=noise)
    for tensor in (latents, decoded):
        assert tensor.isfinite().all()
        assert 0.05 < tensor.std() < 20
    again = build_model(preset_file, seed=0)
    other = build_model(preset_file, seed=1)
    assert torch.equal(again.encode(images()), latents)
    assert not torch.equal(other.encode(images()), latents)


def test_random_weights_of_a_folder_and_of_a_hub_id(folder: Path) -> None:
    assert build_model(folder, dtype="bf16").dtype == torch.bfloat16
    with pytest.raises(UsageError, match="cannot have random weights"):
        build_model("org/toy")


def test_an_unknown_family(preset_file: Path) -> None:
    preset_file.write_text(TOY.replace('"fcdm"', '"fcmd"'))
    with pytest.raises(UsageError, match="Did you mean fcdm"):
        build_model(preset_file)


def test_the_bundled_preset_matches_its_files() -> None:
    preset = load_preset("fcdm_nano")
    bundled = pretrained.BUNDLED / "fcdm_nano"
    if not (bundled / "model.safetensors").is_file():
        pytest.skip("the bundled weights are not in this checkout yet")
    assert json.loads((bundled / "config.json").read_text()) == preset.config
    assert preset.sha256 == file_sha256(bundled / "model.safetensors")
    model = load_model("fcdm_nano")
    assert (model.info.origin, model.spec) == ("bundled", preset.spec)


@pytest.mark.parametrize("name", ["sdxl", "black-forest-labs/FLUX.2-dev"])
def test_an_extra_that_is_missing_is_told_before_weights_are_looked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UsageError, match="diffusers, which is not installed: pip install"):
        load_model(name)
