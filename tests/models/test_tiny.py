"""The TAESD family: the reference's numbers and names, both spellings of files, halves, ranges."""

from __future__ import annotations

import json
from pathlib import Path

import paritykit
import pytest
import torch
from safetensors.torch import save_file

from latentcli.core.errors import WeightsError
from latentcli.models.base import Autoencoder
from latentcli.models.presets import load_preset
from latentcli.models.registry import load_model
from latentcli.models.tiny import FAMILY

REFERENCES = {
    "autoencoder_tiny_taesd4": "taesdxl",
    "autoencoder_tiny_taesd16": "taesd3",
    "autoencoder_tiny_tae192": "tae192",
}
"""Reference numbers to a preset of the same network."""
PRESETS = ("taesd", "taesdxl", "taesd3", "taef1", "taef2", "tae192", "tae192_svd")
RAW = {
    "taesd": (0.18215, 0.0),
    "taesdxl": (0.13025, 0.0),
    "taesd3": (1.5305, 0.0609),
    "taef1": (0.3611, 0.1159),
    "tae192": (0.13025, 0.0),
    "tae192_svd": (0.18215, 0.0),
}
"""Preset to (scale, shift): the diffusion model sees (raw - shift) * scale."""


def built(name: str, **changes: object) -> Autoencoder:
    preset = load_preset(name)
    return FAMILY.build({**preset.config, **changes}, preset.spec)


def weights(name: str = "taesd", seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded weights under diffusers' names."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return built(name).state_dict()


def pth_names(state: dict[str, torch.Tensor], half: str) -> dict[str, torch.Tensor]:
    """A half under the names of its .pth file, whose decoder counts from 1."""
    renamed = {}
    for name, tensor in state.items():
        part, _, layer, rest = name.split(".", 3)
        if part == half:
            renamed[f"{int(layer) + (half == 'decoder')}.{rest}"] = tensor
    return renamed


@pytest.mark.parametrize("name", REFERENCES)
@torch.inference_mode()
def test_the_reference_numbers(shared: Path, name: str) -> None:
    model = paritykit.load(built(REFERENCES[name]), FAMILY, paritykit.seeded_state(shared, name))
    found = paritykit.arrays(shared, name)
    paritykit.close(model.encode(found["image"]), found["latents"])
    paritykit.close(model.decode(found["latent_in"]), found["decoded"])


@pytest.mark.parametrize("name", REFERENCES)
def test_names_and_shapes_are_the_published_ones(shared: Path, name: str) -> None:
    expected = paritykit.manifest(shared, name)
    model = built(REFERENCES[name])
    assert {key: tuple(t.shape) for key, t in model.state_dict().items()} == expected
    assert len(expected) == 134


def test_parameter_counts() -> None:
    halves = {
        name: [
            sum(p.numel() for p in half.parameters())
            for half in (built(name).encoder, built(name).decoder)
        ]
        for name in PRESETS
    }
    assert halves["taesd"] == halves["taesdxl"] == [1_222_532, 1_222_531]
    assert halves["taesd3"] == halves["taef1"] == [1_229_456, 1_229_443]
    assert halves["taef2"] == [1_338_528, 1_338_499]
    assert halves["tae192"] == halves["tae192_svd"] == [1_222_532, 10_966_659]


@pytest.mark.parametrize("name", RAW)
def test_scaled_latents_are_those_that_the_diffusion_model_sees(name: str) -> None:
    scale, shift = RAW[name]
    model, preset = built(name), load_preset(name)
    raw = torch.randn(1, preset.channels, 2, 3)
    torch.testing.assert_close(model.whiten(raw), (raw - shift) * scale)
    assert model.spec.state == preset.state == "scaled"


@torch.inference_mode()
def test_encode_is_the_networks_own_output_and_raw_is_the_large_vaes() -> None:
    model = built("taesd3").eval()
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    latents = model.encode(images)
    assert torch.equal(latents, model.encoder((images + 1) / 2))
    raw = model.encode_posterior(images).mode()
    torch.testing.assert_close(raw, latents / 1.5305 + 0.0609)


@torch.inference_mode()
def test_output_range_is_a_setting_of_the_checkpoint() -> None:
    usual, other = built("tae192").eval(), built("tae192", output_range=[0, 1]).eval()
    other.load_state_dict(usual.state_dict())
    latents = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(other.decode(latents), usual.decode(latents) * 2 - 1)


def test_both_spellings_and_a_pair_of_files_give_one_model(tmp_path: Path) -> None:
    state = weights()
    save_file(state, tmp_path / "whole.safetensors")
    pair = tmp_path / "pair"
    pair.mkdir()
    for half in ("encoder", "decoder"):
        torch.save(pth_names(state, half), pair / f"taesd_{half}.pth")
    for path in (tmp_path / "whole.safetensors", pair):
        model = load_model("taesd", weights=path)
        assert (model.can_encode, model.can_decode) == (True, True)
        found = model.state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_a_checkpoint_is_half_a_model(tmp_path: Path, half: str) -> None:
    state = weights()
    torch.save(pth_names(state, half), tmp_path / "any_name.pth")
    model = load_model("taesd", weights=tmp_path / "any_name.pth")
    assert (model.can_encode, model.can_decode) == (half == "encoder", half == "decoder")
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    calls = {
        "encoder": lambda: model.decode(torch.zeros(1, 4, 1, 1)),
        "decoder": lambda: model.encode(torch.zeros(1, 3, 8, 8)),
    }
    with pytest.raises(WeightsError, match=f"This model has only an? {half}: "):
        calls[half]()


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_half_under_diffusers_names_without_its_prefix(tmp_path: Path, half: str) -> None:
    state = weights()
    bare = {n.removeprefix(f"{half}."): t for n, t in state.items() if n.startswith(half)}
    assert "layers.0.weight" in bare
    torch.save(bare, tmp_path / "half.bin")
    model = load_model("taesd", weights=tmp_path / "half.bin")
    assert (model.can_encode, model.can_decode) == (half == "encoder", half == "decoder")
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@torch.inference_mode()
def test_in_bfloat16_the_latents_are_clamped_before_they_are_rounded(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "whole.safetensors")
    model = load_model("taesd", weights=tmp_path / "whole.safetensors", dtype="bf16")
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    model.decode(latents)
    assert torch.equal(seen[0], (3 * torch.tanh(latents / 3)).bfloat16())


def test_published_names_map_one_to_one_both_ways() -> None:
    state = weights()
    halves = {half: pth_names(state, half) for half in ("encoder", "decoder")}
    assert [len(part) for part in halves.values()] == [67, 67]
    pair = {f"{half}.{name}": t for half, part in halves.items() for name, t in part.items()}
    model = built("taesd")
    for published in (state, pair, *halves.values()):
        ours = FAMILY.adapt(published, model)
        assert len(ours) == len(published) and ours.keys() <= state.keys()
        assert all(ours[name] is state[name] for name in ours)
    assert FAMILY.adapt(pair, model).keys() == state.keys()


def test_names_that_are_no_layers_stay_as_they_are() -> None:
    strangers = {name: torch.zeros(1) for name in ("decoder.0.weight", "conv_in.weight", "bias")}
    assert FAMILY.adapt(strangers, built("taesd")).keys() == strangers.keys()


@torch.inference_mode()
def test_an_encoder_that_is_not_to_be_used_is_refused(tmp_path: Path) -> None:
    torch.save(weights("tae192"), tmp_path / "ex_v6.pth")
    model = load_model("tae192", weights=tmp_path)
    assert model.encoder is not None
    with pytest.raises(WeightsError, match="has only a decoder"):
        model.encode(torch.zeros(1, 3, 8, 8))


def test_the_stock_encoder_of_tae192_may_be_missing(tmp_path: Path) -> None:
    state = weights("tae192")
    decoder = {name: t for name, t in state.items() if name.startswith("decoder.")}
    for part in (state, decoder):
        torch.save(part, tmp_path / "ex_v6.pth")
        model = load_model("tae192", weights=tmp_path)
        assert (model.can_encode, model.can_decode) == (False, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("decoder.layers.2.conv.0.weight"), "1 missing: decoder.layers.2.conv.0.w"),
        (lambda s: s.update(stray=torch.zeros(1)), "1 extra: stray"),
        (
            lambda s: s.update({"encoder.layers.0.weight": torch.zeros(64, 4, 3, 3)}),
            r"encoder.layers.0.weight \(expected \[64, 3, 3, 3\], found \[64, 4, 3, 3\]\)",
        ),
    ],
)
def test_misfits_are_named(tmp_path: Path, change, words: str) -> None:
    state = weights()
    change(state)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=words):
        load_model("taesd", weights=tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("half", "lost", "told"),
    [
        ("encoder", "0.weight", "1 missing: encoder.layers.0.weight"),
        ("decoder", "1.weight", "1 missing: decoder.layers.0.weight"),
    ],
)
def test_a_half_that_lost_a_tensor_is_still_known_for_what_it_is(tmp_path, half, lost, told):
    part = pth_names(weights(), half)
    del part[lost]
    torch.save(part, tmp_path / "x.pth")
    with pytest.raises(WeightsError) as caught:
        load_model("taesd", weights=tmp_path / "x.pth")
    assert told in str(caught.value) and "extra" not in str(caught.value)


def test_a_file_of_neither_half_is_compared_with_the_whole_network(tmp_path: Path) -> None:
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_model("taesd", weights=tmp_path / "x.safetensors")
    assert "134 missing" in str(caught.value) and "1 extra: conv_in.weight" in str(caught.value)


def test_the_weights_of_another_variant_are_refused(tmp_path: Path) -> None:
    save_file(weights("taesd3"), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="of another shape"):
        load_model("taesdxl", weights=tmp_path / "x.safetensors")


def test_a_diffusers_folder_is_a_model(tmp_path: Path) -> None:
    config = {"_class_name": "AutoencoderTiny", "_diffusers_version": "0.42.1", "act_fn": "relu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(weights(), tmp_path / "diffusion_pytorch_model.safetensors")
    model = load_model(tmp_path)
    assert model.spec.geometry == "f8c4" and model.spec.space.startswith("local-")


def test_a_checkpoint_tells_of_its_pool_branches_where_the_config_is_silent(tmp_path: Path) -> None:
    config = {"_class_name": "AutoencoderTiny", "latent_channels": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = weights("taef2")
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    assert load_model(tmp_path).state_dict().keys() == state.keys()


def test_only_configs_of_the_family_are_recognised() -> None:
    keys = {"num_encoder_blocks": [1, 3, 3, 3], "num_decoder_blocks": [3, 3, 3, 1]}
    assert FAMILY.recognises(keys)
    assert FAMILY.recognises({"_class_name": "AutoencoderTiny"})
    assert not FAMILY.recognises({"_class_name": "AutoencoderKL"} | keys)
    assert not FAMILY.recognises({"num_decoder_blocks": [3, 3, 3, 1]})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"act_fn": "silu"}, "only 'relu'"),
        ({"scaling_factor": 0.18215}, "only 1.0, which every published"),
        ({"latent_channels": 0}, "latent_channels = 0; it must be a positive"),
        ({"output_range": [0, 2]}, r"must be \[-1, 1\] or \[0, 1\]"),
        ({"num_encoder_blocks": [1, 3]}, "different numbers of stages"),
        ({"latents_std": [1.0]}, "1 latents_std; there must be 4 of each"),
        ({"encoder_block_out_channels": [64, 32, 64, 64]}, "equal positive whole numbers"),
        ({"widths": 3}, "does not know: widths"),
    ],
)
def test_configs_that_no_network_can_be_built_from(config, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        FAMILY.build(config, None)
