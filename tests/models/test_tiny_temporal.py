"""The temporal tiny decoder: reference numbers, clips of any length, checkpoints, precision."""

from __future__ import annotations

import pytest
import torch
from paritykit import arrays, close, load, manifest, seeded, seeded_state
from torch import Tensor

from latentcli.core.errors import UsageError, WeightsError
from latentcli.core.types import LatentSpec
from latentcli.models import registry
from latentcli.models.presets import load_preset
from latentcli.models.registry import load_model
from latentcli.models.tiny_temporal import FAMILY, TemporalConfig, TemporalTinyDecoder
from latentcli.models.weights import load_into

MANIFEST = "decoder_tiny_temporal"
BF16_PSNR = 42.0
"""dB against float32 with peak-to-peak 2, toy size, CPU. Measured: 47.0."""


def built(config=None) -> TemporalTinyDecoder:
    with torch.device("meta"):
        model = FAMILY.build(FAMILY.tiny if config is None else config, None)
    assert isinstance(model, TemporalTinyDecoder)
    return model


def state_of(model: TemporalTinyDecoder) -> dict[str, Tensor]:
    return {name: seeded(name, tuple(t.shape)) for name, t in model.state_dict().items()}


def toy(config=None, dtype: torch.dtype = torch.float32) -> TemporalTinyDecoder:
    model = built(config)
    options = {"family": FAMILY, "dtype": dtype, "device": "cpu", "source": "the test"}
    loaded = load_into(model, state_of(model), **options)
    assert isinstance(loaded, TemporalTinyDecoder)
    return loaded


@pytest.fixture(scope="module")
def small() -> TemporalTinyDecoder:
    return toy()


def clip(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(frames, 4, 4, 6, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_reference_numbers(shared):
    preset = load_preset("tae_temporal")
    model = load(FAMILY.build(preset.config, preset.spec), FAMILY, seeded_state(shared, MANIFEST))
    data = arrays(shared, MANIFEST)
    latents = data["latent_in"]
    close(model.decode_frames(latents), data["decoded_nf8"])
    halves = [model.decode_frames(half) for half in latents.split(4)]
    close(torch.cat(halves), data["decoded_nf4"])
    assert (data["decoded_nf8"] - data["decoded_nf4"]).abs().max() > 0.01


def test_names_and_shapes_are_those_of_the_manifest(shared):
    model = built(load_preset("tae_temporal").config)
    found = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert found == manifest(shared, MANIFEST)
    assert list(found) == list(manifest(shared, MANIFEST))


def test_counts():
    model = built(load_preset("tae_temporal").config)
    assert len(model.state_dict()) == 99
    assert model.parameter_count() == load_preset("tae_temporal").parameters == 10_897_541
    assert sum(p.numel() for p in model.mid_block.parameters()) == 1_922_690
    assert model.mid_after == 6


def test_what_it_declares():
    model, preset = built(), load_preset("tae_temporal")
    assert (model.is_video, model.frames_per_chunk) == (True, 8)
    assert (model.can_encode, model.can_decode, FAMILY.halves) == (False, True, False)
    assert model.spec == LatentSpec(4, 8, 8, "tiny_temporal", "scaled")
    assert preset.spec == LatentSpec(4, 8, 8, "svd", "scaled")
    assert TemporalConfig.from_mapping({}) == TemporalConfig.from_mapping(preset.config)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 3, 8])
def test_clips_of_any_length(small, frames):
    images = small.decode_frames(clip(frames), height=32, width=48)
    assert images.shape == (frames, 3, 32, 48) and images.dtype == torch.float32
    assert images.isfinite().all()


@torch.inference_mode()
def test_frames_of_a_clip_see_each_other_and_images_do_not(small):
    before, after = clip(5), clip(5)
    after[4] += 1
    changed = (small.decode_frames(after) - small.decode_frames(before)).abs().amax(dim=(1, 2, 3))
    assert changed.min() > 1e-5
    changed = (small.decode(after) - small.decode(before)).abs().amax(dim=(1, 2, 3))
    assert changed[:4].max() < 1e-5 < changed[4]


@torch.inference_mode()
def test_an_image_is_a_clip_of_one_frame(small):
    latents = clip(3)
    alone = torch.cat([small.decode_frames(latents[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(small.decode(latents), alone, rtol=0, atol=1e-5)
    assert (small.decode_frames(latents) - alone).abs().max() > 1e-3


@torch.inference_mode()
def test_attention_is_within_a_frame(small):
    attention = small.mid_block.attentions[0]
    x = torch.randn(3, 32, 4, 6, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([attention(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(attention(x), alone)


def test_norms_across_frames_have_another_epsilon():
    """Too small a difference for the reference numbers to show."""
    found = {n: m.eps for n, m in built().named_modules() if hasattr(m, "eps")}
    assert len(found) == 9
    assert all(eps == (1e-5 if "temporal" in name else 1e-6) for name, eps in found.items())


@torch.inference_mode()
def test_large_latents_are_squeezed(small):
    huge = torch.full((1, 4, 2, 2), 100.0)
    torch.testing.assert_close(small.decode(huge), small.decode(huge * 2))


@torch.inference_mode()
def test_output_range(small):
    latents = clip(2)
    other = toy({**FAMILY.tiny, "output_range": [0, 1]})
    for method in ("decode", "decode_frames"):
        expected = getattr(small, method)(latents) * 2 - 1
        torch.testing.assert_close(getattr(other, method)(latents), expected)


def test_scaling():
    raw = clip(2)
    torch.testing.assert_close(built().whiten(raw), raw * 0.18215)
    assert built().dewhiten(raw.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(built().dewhiten(built().whiten(raw)), raw)


def test_encoding_is_refused_in_one_sentence(small):
    for method in (small.encode, small.encode_posterior):
        with pytest.raises(WeightsError) as caught:
            method(torch.zeros(1, 3, 16, 16))
        assert "has only a decoder" in str(caught.value) and "space is tiny_temporal" in str(
            caught.value
        )
        assert str(caught.value).count(". ") == 0


def test_wrong_shapes(small):
    with pytest.raises(ValueError, match=r"for 48x32 images they must be \[N, 4, 4, 6\]"):
        small.decode(torch.zeros(1, 5, 4, 6))
    with pytest.raises(ValueError, match=r"\[N, 4, 8, 8\]"):
        small.decode_frames(clip(2), height=64, width=64)
    with pytest.raises(ValueError, match="multiples of 8"):
        small.decode(clip(1), height=33, width=48)


def test_fp32_islands():
    kept = {
        n for n, t in toy(dtype=torch.bfloat16).state_dict().items() if t.dtype != torch.bfloat16
    }
    blocks = [
        f"resnets.{i}.{k}_res_block.norm{n}"
        for i in (0, 1)
        for k in ("spatial", "temporal")
        for n in (1, 2)
    ]
    norms = {
        f"mid_block.{b}.{p}"
        for b in [*blocks, "attentions.0.group_norm"]
        for p in ("weight", "bias")
    }
    assert kept == norms | {f"mid_block.resnets.{i}.time_mixer.mix_factor" for i in (0, 1)}


@torch.inference_mode()
def test_bfloat16_stays_close_to_float32(small):
    rounded = toy(dtype=torch.bfloat16)
    assert (small.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    a, b = small.decode_frames(clip(4)), rounded.decode_frames(clip(4))
    assert b.dtype == torch.float32
    psnr = 10 * torch.log10(4 / (a - b).square().mean())
    assert BF16_PSNR < psnr < 80, psnr


@pytest.mark.parametrize("prefix", ["", "decoder.", "module.", "module.decoder."])
def test_a_checkpoint_file_with_or_without_a_prefix(tmp_path, prefix):
    preset = load_preset("tae_temporal")
    state = state_of(built(preset.config))
    path = tmp_path / "somewhere.pth"
    torch.save({prefix + name: tensor for name, tensor in state.items()}, path)
    model = load_model("tae_temporal", weights=path)
    assert model.info.origin == "flag" and not model.can_encode
    assert model.spec == preset.spec
    found = model.state_dict()
    assert found.keys() == state.keys() and all(torch.equal(found[n], state[n]) for n in state)


def test_a_checkpoint_that_does_not_fit(tmp_path):
    state = state_of(built(load_preset("tae_temporal").config))
    del state["layers.0.bias"]
    state["layers.16.weight"] = state["layers.16.weight"][:2]
    torch.save(state | {"encoder.0.weight": torch.zeros(1)}, tmp_path / "tae_temp.pth")
    with pytest.raises(WeightsError) as caught:
        load_model("tae_temporal", weights=tmp_path)
    for words in ("1 missing: layers.0.bias", "1 extra: encoder.0.weight", "layers.16.weight (exp"):
        assert words in str(caught.value)


def test_half_a_checkpoint_is_named_as_it_is(tmp_path):
    state = state_of(built(load_preset("tae_temporal").config))
    path = tmp_path / "half.pth"
    torch.save({n: t for n, t in state.items() if n.startswith("layers.")}, path)
    with pytest.raises(WeightsError, match="the file has 55:\n  44 missing: mid_block") as caught:
        load_model("tae_temporal", weights=path)
    assert "extra" not in str(caught.value)


def test_absent_weights_are_explained(monkeypatch):
    monkeypatch.delenv("LATENTCLI_WEIGHTS", raising=False)
    with pytest.raises(WeightsError) as caught:
        load_model("tae_temporal")
    message = str(caught.value)
    assert "weights of tae_temporal were not found: its checkpoint is not published" in message
    assert "--weights PATH" in message and "tae_temp.pth" in message
    assert "hf download" not in message and "None" not in message
    assert "config.json" not in message
    with pytest.raises(UsageError, match="which is not published, has no revisions"):
        load_model("tae_temporal", revision="main")


@torch.inference_mode()
def test_random_weights():
    model = load_model("tae_temporal", random_weights=True)
    assert model.info.origin == "random"
    assert model.decode_frames(clip(2)).isfinite().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"output_range": [0, 255]},
            r"output_range = \(0, 255\); it must be \[-1, 1\] or \[0, 1\]",
        ),
        ({"output_range": "01"}, "output_range = 01"),
        ({"width": 48}, "width = 48; it must be a multiple of 32"),
        ({"attention_head_dim": 24}, "of attention_head_dim = 24"),
        ({"num_blocks": [1, 1]}, "it must be four numbers"),
        ({"num_blocks": [1, 1, 1, 1.5]}, "a list of whole numbers"),
        ({"width": "32"}, "a positive whole number"),
        ({"scaling_factor": 0}, "scaling_factor = 0; it must be a positive number"),
        ({"depth": 3}, "does not know: depth. It knows attention_head_dim,"),
    ],
)
def test_config_errors(change, words):
    with pytest.raises(WeightsError, match=words):
        built({**FAMILY.tiny, **change})


def test_only_its_own_config_is_recognised():
    for name in ("tae_temporal", "effvit_sdxl", "full_capacitor"):
        assert FAMILY.recognises(load_preset(name).config) == (name == "tae_temporal")
    assert "tiny_temporal" in registry.families() and FAMILY.recognises(FAMILY.tiny)
    diffusers = {"block_out_channels": [128], "latent_channels": 4, "scaling_factor": 0.18215}
    assert not FAMILY.recognises({"_class_name": "AutoencoderKLTemporalDecoder", **diffusers})
