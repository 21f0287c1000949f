"""The "EfficientViT" decoder: reference numbers, names, checkpoints, precision, configs."""

from __future__ import annotations

import pytest
import torch
from paritykit import arrays, close, load, manifest, seeded, seeded_state
from torch import Tensor

from latentcli.core.errors import WeightsError
from latentcli.core.types import LatentSpec
from latentcli.models import registry
from latentcli.models.effvit import FAMILY, EffViTConfig, EffViTDecoder
from latentcli.models.presets import load_preset
from latentcli.models.registry import load_model
from latentcli.models.weights import load_into

PRESETS = [("effvit_sdxl", "sdxl", 0.13025), ("effvit_svd", "svd", 0.18215)]
BF16_PSNR = 48.0
"""dB against float32 with peak-to-peak 2, toy size, CPU. Measured: 53.0."""


def built(config=None) -> EffViTDecoder:
    with torch.device("meta"):
        model = FAMILY.build(FAMILY.tiny if config is None else config, None)
    assert isinstance(model, EffViTDecoder)
    return model


def state_of(model: EffViTDecoder) -> dict[str, Tensor]:
    return {name: seeded(name, tuple(t.shape)) for name, t in model.state_dict().items()}


def toy(config=None, dtype: torch.dtype = torch.float32) -> EffViTDecoder:
    model = built(config)
    options = {"family": FAMILY, "dtype": dtype, "device": "cpu", "source": "the test"}
    loaded = load_into(model, state_of(model), **options)
    assert isinstance(loaded, EffViTDecoder)
    return loaded


@pytest.fixture(scope="module")
def small() -> EffViTDecoder:
    return toy()


def latents(count: int) -> Tensor:
    return torch.randn(count, 4, 4, 6, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
@pytest.mark.parametrize("name", ["effvit_sdxl", "effvit_svd"])
def test_reference_numbers(shared, name):
    preset = load_preset(name)
    model = FAMILY.build(preset.config, preset.spec)
    load(model, FAMILY, seeded_state(shared, "effvit_decoder"))
    data = arrays(shared, "effvit_decoder")
    close(model.decode(data["latent_in"]), data["decoded"])
    close(model.decode_frames(data["latent_in"], 32, 48), data["decoded"])


def test_names_and_shapes_are_those_of_the_manifest(shared):
    model = built(load_preset("effvit_sdxl").config)
    found = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert found == manifest(shared, "effvit_decoder")
    assert list(found) == list(manifest(shared, "effvit_decoder"))


@pytest.mark.parametrize(("name", "space", "factor"), PRESETS)
def test_presets(name, space, factor):
    preset = load_preset(name)
    model = built(preset.config)
    assert preset.spec == LatentSpec(4, 8, 8, space, "scaled")
    assert model.spec == LatentSpec(4, 8, 8, "effvit", "scaled")
    assert len(model.state_dict()) == 130
    assert model.parameter_count() == preset.parameters == 6_223_500
    assert not (preset.can_encode or model.can_encode or model.is_video) and model.can_decode
    assert EffViTConfig.from_mapping({"scaling_factor": factor}) == model.config
    raw = latents(1)
    torch.testing.assert_close(model.whiten(raw), raw * factor)
    torch.testing.assert_close(model.dewhiten(model.whiten(raw)), raw)


@torch.inference_mode()
def test_shapes_and_batches(small):
    images = small.decode(latents(3), height=32, width=48)
    assert images.shape == (3, 3, 32, 48) and images.dtype == torch.float32
    alone = torch.cat([small.decode(z[None]) for z in latents(3)])
    torch.testing.assert_close(images, alone, rtol=0, atol=1e-5)
    assert small.decode(torch.zeros(1, 4, 1, 1)).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"for 64x64 images they must be \[N, 4, 8, 8\]"):
        small.decode(latents(1), height=64, width=64)


@torch.inference_mode()
def test_epsilons_are_the_published_ones(small):
    """The reference's variances are too large to tell 1e-5 from anything smaller."""
    norms = [m for m in small.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-5}
    rms = small.project_out.op_list[0]
    faint = torch.full((1, len(rms.weight), 1, 1), 1e-5**0.5)
    weight, bias = (p[None, :, None, None] for p in (rms.weight, rms.bias))
    torch.testing.assert_close(rms(faint), weight / 2**0.5 + bias)


@torch.inference_mode()
def test_output_range(small):
    other = toy({**FAMILY.tiny, "output_range": [0, 1]})
    torch.testing.assert_close(other.decode(latents(2)), small.decode(latents(2)) * 2 - 1)


def test_encoding_is_refused_in_one_sentence(small):
    for method in (small.encode, small.encode_posterior):
        with pytest.raises(
            WeightsError, match="has only a decoder: encode with a model whose latent"
        ):
            method(torch.zeros(1, 3, 16, 16))


def test_fp32_islands():
    state = toy(dtype=torch.bfloat16).state_dict()
    kept = {name for name, t in state.items() if t.dtype == torch.float32}
    parts = ("weight", "bias", "running_mean", "running_var")
    norms = {f"stages.{s}.op_list.1.main.conv2.norm.{p}" for s in (1, 2) for p in parts}
    assert kept == norms | {"project_out.op_list.0.weight", "project_out.op_list.0.bias"}
    counters = {name for name, t in state.items() if t.dtype == torch.int64}
    assert all(name.endswith("num_batches_tracked") for name in counters) and len(counters) == 2


@torch.inference_mode()
def test_bfloat16_stays_close_to_float32(small):
    rounded = toy(dtype=torch.bfloat16)
    assert (small.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    a, b = small.decode(latents(4)), rounded.decode(latents(4))
    assert b.dtype == torch.float32
    psnr = 10 * torch.log10(4 / (a - b).square().mean())
    assert BF16_PSNR < psnr < 80, psnr


@pytest.mark.parametrize("prefix", ["", "decoder.", "module."])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_checkpoint_file_with_or_without_a_prefix(tmp_path, prefix, suffix):
    preset = load_preset("effvit_svd")
    state = state_of(built(preset.config))
    path = tmp_path / f"weights{suffix}"
    torch.save({"state_dict": {prefix + name: t for name, t in state.items()}}, path)
    model = load_model("effvit_svd", weights=path)
    assert model.spec == preset.spec and model.info.preset_name == "effvit_svd"
    found = model.state_dict()
    assert found.keys() == state.keys() and all(torch.equal(found[n], state[n]) for n in state)


def test_a_whole_autoencoder_is_refused_and_listed(tmp_path):
    state = {
        f"decoder.{n}": t for n, t in state_of(built(load_preset("effvit_sdxl").config)).items()
    }
    torch.save(state | {"encoder.x.weight": torch.zeros(1)}, tmp_path / "effvit_sdxl2.pth")
    with pytest.raises(WeightsError, match=r"130 missing: project_in.*(?s:.*)131 extra: decoder\."):
        load_model("effvit_sdxl", weights=tmp_path)


@pytest.mark.parametrize("name", ["effvit_sdxl", "effvit_svd"])
def test_absent_weights_are_explained(monkeypatch, name):
    monkeypatch.delenv("LATENTCLI_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match="its checkpoint is not published") as caught:
        load_model(name)
    assert load_preset(name).file in str(caught.value)


@torch.inference_mode()
def test_random_weights():
    model = load_model("effvit_sdxl", random_weights=True, dtype="bf16")
    assert model.info.origin == "random"
    assert model.decode(latents(1)).isfinite().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth_list": [0, 5, 10, 1, 0, 0]}, "the second and third alone are not 0"),
        ({"depth_list": [0, 5, 10]}, "it must be six numbers"),
        ({"width_list": [0, 16, 16, 32, 32, 32]}, "it must be six positive"),
        ({"width_list": [16, 16, 16, 32, 32, 34]}, "34 must be a multiple of the 4 latent"),
        ({"width_list": "wide"}, "a list of whole numbers"),
        ({"output_range": [0, 2]}, r"\[-1, 1\] or \[0, 1\]"),
        ({"norm": "bn2d"}, "does not know: norm"),
    ],
)
def test_config_errors(change, words):
    with pytest.raises(WeightsError, match=words):
        built({**FAMILY.tiny, **change})


def test_only_its_own_config_is_recognised():
    for name in ("tae_temporal", "effvit_sdxl", "effvit_svd", "full_capacitor"):
        assert FAMILY.recognises(load_preset(name).config) == name.startswith("effvit")
    assert "effvit" in registry.families() and FAMILY.recognises(FAMILY.tiny)
