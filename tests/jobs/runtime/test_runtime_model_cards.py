"""The documents of `models` and `models show`: what presets tell, and where weights are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentcli.core.errors import UsageError
from latentcli.jobs.runtime.model_cards import list_models, model_names, show_model
from latentcli.models import pretrained
from latentcli.models.kl_config import INSTALL
from latentcli.models.presets import load_preset
from latentcli.models.registry import families

CONTRACT = [
    *("name", "family", "parameters", "latent_channels", "downscale", "size_divisor"),
    *("latent_space", "latent_state", "can_encode", "can_decode", "weights", "licence", "summary"),
    "extra",
]
MADE_UP = """
family = "fcdm"
summary = "a test"
licence = "none"
card = "here"
parameters = 1
[config]
model_dim = 32
encoder_depth = 1
decoder_depth = 3
decoder_start_blocks = 1
decoder_end_blocks = 1
bottleneck_dim = 8
adaln_low_rank_rank = 4
[weights]
file = "made_up.pth"
[latents]
space = "flux2"
channels = 8
downscale = 16
size_divisor = 48
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights but the bundled ones, and no network."""
    monkeypatch.delenv("LATENTCLI_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def python(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout


def test_the_list_keeps_its_contract() -> None:
    cards = list_models()
    assert [card["name"] for card in cards] == model_names()
    for card in cards:
        assert list(card) == CONTRACT
        assert card["weights"] in ("bundled", "cached", "hub", "missing")
        assert card["family"] in families()


def test_the_list_knows_the_published_models() -> None:
    cards = {card["name"]: card for card in list_models()}
    counts = {
        "semdisdiffae": 88_771_328,
        "capacitor_decoder": 61_933_184,
        "full_capacitor": 114_690_816,
        "semdisdiffae_p32_v2": 156_636_928,
        "dinac_ae_d2": 154_216_192,
    }
    assert {name: cards[name]["parameters"] for name in counts} == counts
    extras = [name for name in cards if cards[name]["extra"] == "diffusers"]
    assert extras == ["flux2", "flux2_small_decoder", "sdxl", "svd"]
    assert (cards["sdxl"]["latent_space"], cards["sdxl"]["latent_state"]) == ("sdxl", "scaled")
    assert cards["fcdm_nano"]["weights"] == "bundled"
    assert cards["full_capacitor"]["weights"] == "missing"


def test_the_list_needs_no_torch() -> None:
    code = (
        "import sys; from latentcli.jobs.runtime.model_cards import list_models;"
        "print(len(list_models()), *({'torch', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    assert python(code).split() == [str(len(model_names()))]


def test_the_list_is_quick() -> None:
    """Seconds of CPU, so that a busy machine does not matter."""
    code = (
        "import os; from latentcli.jobs.runtime.model_cards import list_models; list_models();"
        "t = os.times(); print(t.user + t.system)"
    )
    assert min(float(python(code)) for _ in range(3)) < 0.5


@pytest.mark.parametrize("name", model_names())
def test_every_card_is_whole(name: str) -> None:
    document = show_model(name)
    json.dumps(document, allow_nan=False)
    preset = load_preset(name)
    assert [document[key] for key in CONTRACT[:2]] == [name, preset.family]
    if document["network_note"] is None:
        assert sum(document["parameters_by_part"].values()) == document["parameters"]
        assert bool(document["moments"]) == preset.can_encode
    assert (name in document["encoded_by"]) == preset.can_encode
    assert (name in document["decoded_by"]) == preset.can_decode
    assert document["config"] == preset.config
    assert document["published"] == preset.published


def test_a_card_in_full() -> None:
    document = show_model("dinac_ae_d2")
    assert document["parameters_by_part"] == {
        "encoder": 78_018_688,
        "decoder": 61_933_184,
        "class_head": 14_264_320,
    }
    assert document["predicts_class"] is True
    assert document["is_video"] is False
    assert document["moments"] == ["mean", "logsnr"]
    assert document["geometry"] == "f16c128"
    assert document["example"] == {
        "image": [512, 512],
        "latent": [128, 32, 32],
        "bytes_in_bf16": 262_144,
    }
    assert document["image_range"] == [-1, 1]
    assert document["output_range"] is None


def test_a_decoder_of_video() -> None:
    document = show_model("tae_temporal")
    assert (document["is_video"], document["frames_per_chunk"]) == (True, 8)
    assert document["parameters_by_part"] == {"decoder": 10_897_541}
    assert document["output_range"] == [-1, 1]
    assert document["weights_source"] == {
        "repo": None,
        "subfolder": None,
        "file": "tae_temp.pth",
        "revision": None,
        "bundled": None,
        "sha256": None,
    }


def test_who_shares_a_latent_space() -> None:
    document = show_model("capacitor_decoder")
    assert {"flux2", "flux2_small_decoder", "taef2"} <= set(document["encoded_by"])
    assert {"capacitor_decoder", "flux2", "taef2"} <= set(document["decoded_by"])
    assert "full_capacitor" not in document["encoded_by"] + document["decoded_by"]


def test_a_hub_id_and_a_preset_file(tmp_path: Path) -> None:
    assert show_model("Data-Archetype/full_capacitor")["name"] == "full_capacitor"
    path = tmp_path / "made_up.toml"
    path.write_text(MADE_UP)
    document = show_model(str(path))
    assert document["name"] == "made_up"
    assert document["example"]["image"] == [528, 528], "512 is no multiple of 48"
    assert document["decoded_by"][0] == "made_up"
    assert "taef2" in document["decoded_by"]


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"named 'taef9'\. Presets are: "):
        show_model("taef9")
    with pytest.raises(UsageError, match=r"For its latents there is taesd\. Presets are: "):
        show_model("stabilityai/sd-vae-ft-mse")
    with pytest.raises(UsageError, match=r"no\.toml does not exist"):
        show_model("no.toml")


def test_where_the_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = show_model("full_capacitor")
    assert document["weights_source"]["repo"] == "data-archetype/full_capacitor"
    assert (document["weights"], document["weights_path"]) == ("missing", None)
    folder = tmp_path / "full_capacitor"
    folder.mkdir()
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path))
    document = show_model("full_capacitor")
    assert "has no model.safetensors" in document["weights_problem"]
    (folder / "model.safetensors").write_bytes(b"not read")
    document = show_model("full_capacitor")
    assert document["weights_path"] == str(folder / "model.safetensors")
    assert (document["weights"], document["weights_origin"]) == ("cached", "env")


def test_where_the_bundled_weights_are() -> None:
    document = show_model("fcdm_nano")
    bundled = pretrained.BUNDLED / "fcdm_nano" / "model.safetensors"
    assert (document["weights_origin"], document["weights_path"]) == ("bundled", str(bundled))


def test_without_diffusers_the_card_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    document = show_model("sdxl")
    assert document["parameters"] == 83_653_863
    assert document["parameters_by_part"] is None
    assert document["is_video"] is None
    assert INSTALL in document["network_note"]


def test_no_card_asks_the_network() -> None:
    code = (
        "import socket; socket.socket.connect = None\n"
        "from latentcli.jobs.runtime.model_cards import show_model;"
        "print(show_model('taef1')['weights'])"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "LATENTCLI_"))}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert ran.stdout.strip() in ("hub", "cached")
