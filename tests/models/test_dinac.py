"""The DINAC family: counts, names, aliases, published usage, class tokens, precision, configs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from latentcli.core.errors import LatentCliError, WeightsError
from latentcli.core.posterior import PointPosterior
from latentcli.models import fcdm
from latentcli.models.dinac import ALIASED, FAMILY, HEAD, DinacAE, DinacAEConfig
from latentcli.models.presets import load_preset, presets_folder
from latentcli.models.registry import build_model, load_model
from latentcli.models.vp_diffusion import InferenceConfig
from latentcli.models.weights import load_into, random_state

TINY = dict(FAMILY.tiny)
BF16_TOLERANCE = 0.03
"""RMS of bfloat16 minus float32 over RMS of float32, toy size, CPU."""
PRESETS = ["dinac_ae", "dinac_ae_d2"]
QKV = "encoder.blocks.0.attn_core.qkv.weight"
State = dict[str, Tensor]


def on_meta(name: str) -> DinacAE:
    preset = load_preset(name)
    with torch.device("meta"):
        return FAMILY.build(preset.config, preset.spec)


def tiny_state(seed: int = 0, config: Mapping[str, object] = TINY) -> State:
    state = random_state(lambda: FAMILY.build(config, None), seed)
    generator = torch.Generator().manual_seed(seed)
    for name in state:
        if name.endswith("running_mean"):
            state[name] = torch.randn(state[name].shape, generator=generator)
        elif name.endswith("running_var"):
            state[name] = torch.rand(state[name].shape, generator=generator) + 0.5
        elif name.endswith("_impl.weight"):
            state[name] += 1.0
    return state


def folder_of(folder: Path, state: Mapping[str, Tensor], config: Mapping[str, object]) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(config)))
    save_file({name: t.contiguous() for name, t in state.items()}, folder / "model.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return folder_of(tmp_path_factory.mktemp("dinac") / "toy", with_both(tiny_state()), TINY)


def images(n: int = 2, height: int = 48, width: int = 64) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def load(state: State, config: Mapping[str, object] = TINY) -> DinacAE:
    with torch.device("meta"):
        model = FAMILY.build(FAMILY.infer(config, frozenset(state)), None)
    options = {"family": FAMILY, "dtype": torch.float32, "device": "cpu", "source": "the test"}
    return load_into(model, state, **options)


def equal(a: DinacAE, b: DinacAE) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize(
    ("name", "encoder", "whole"),
    [("dinac_ae", 58_743_680, 134_941_184), ("dinac_ae_d2", 78_018_688, 154_216_192)],
)
def test_parameter_counts(name, encoder, whole):
    model = on_meta(name)
    parts = {"encoder": encoder, "decoder": 61_933_184, "dino_token_alignment_head": 14_264_320}
    for part, count in parts.items():
        assert sum(p.numel() for p in model.get_submodule(part).parameters()) == count
    assert model.parameter_count() == whole == load_preset(name).parameters == sum(parts.values())


@pytest.mark.parametrize("name", PRESETS)
def test_names_and_shapes_are_the_published_ones(shared, name):
    tables = json.loads((shared / "facts/manifests/fcdm_family_tensors.json").read_text())
    ours = {key: list(t.shape) for key, t in on_meta(name).state_dict().items()}
    assert ours == tables[f"{name} (no aliases)"]
    doubled = with_both({key: torch.empty(shape, device="meta") for key, shape in ours.items()})
    both = tables[f"{name} (with aliases)"]
    assert {key: list(t.shape) for key, t in doubled.items()} == both


def test_storage_in_bfloat16_key_by_key(shared):
    listed = json.loads((shared / "golden/dinac_ae_d2.keys.json").read_text())["keys"]
    model = on_meta("dinac_ae_d2")
    buffers = {name for name, _ in model.named_buffers()}
    found = {
        name: "float32" if FAMILY.fp32_islands(name) else "bfloat16" for name in model.state_dict()
    }
    assert found == {k["name"]: k["storage_when_bf16"] for k in listed if k["alias_of"] is None}
    assert buffers == {k["name"] for k in listed if k["kind"] == "buffer"}
    assert {n: with_alias(n) for n in found if with_alias(n)} == {
        k["alias_of"]: k["name"] for k in listed if k["alias_of"]
    }


def test_the_preset_is_the_published_config(shared):
    config = json.loads((shared / "golden/dinac_ae_d2.keys.json").read_text())["config"]
    assert load_preset("dinac_ae_d2").config == config
    assert load_preset("dinac_ae").config == config | {"encoder_depth": 6}
    assert DinacAEConfig() == DinacAEConfig.from_mapping(load_preset("dinac_ae").config)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    preset = load_preset(name)
    assert preset.repo == preset.space == f"data-archetype/{name}"
    assert preset.published and "source" in preset.published
    spec = on_meta(name).spec
    assert (spec.geometry, spec.size_divisor, spec.state) == ("f16c128", 16, "whitened")


def with_alias(name: str) -> str | None:
    """The second published name of a tensor, where it has one."""
    core = ".attn_core." in name and name.endswith(ALIASED)
    return name.replace(".attn_core.", ".") if core else None


def with_both(state: State) -> State:
    return state | {alias: t.clone() for n, t in state.items() if (alias := with_alias(n))}


def with_aliases_alone(state: State) -> State:
    return {with_alias(name) or name: t for name, t in state.items()}


@pytest.mark.parametrize("spelling", [with_both, with_aliases_alone])
def test_either_or_both_names_of_an_alias(spelling):
    state = tiny_state()
    published = spelling(state)
    assert published.keys() != state.keys()
    assert equal(load(published), load(state))


def test_aliases_that_differ_are_refused():
    state = with_both(tiny_state())
    alias = with_alias(QKV)
    state[alias] = state[alias] + 1e-3
    with pytest.raises(WeightsError) as caught:
        load(state)
    assert QKV in str(caught.value) and alias in str(caught.value)
    state[alias] = state[alias][:-1]
    with pytest.raises(WeightsError, match="two names of one tensor"):
        load(state)


def without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: t for name, t in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(QKV), [f"1 missing: {QKV}"]),
        (without("encoder.rope.periods"), ["1 missing: encoder.rope.periods"]),
        (without(f"{HEAD}in_proj.bias"), [f"1 missing: {HEAD}in_proj.bias"]),
        (lambda s: s | {"mlp.qkv.weight": torch.zeros(1)}, ["1 extra: mlp.qkv.weight"]),
        (lambda s: s | {QKV: torch.zeros(64, 64)}, ["expected [192, 64], found [64, 64]"]),
    ],
)
def test_anything_else_is_refused_and_listed(change, words):
    with pytest.raises(WeightsError) as caught:
        load(change(tiny_state()))
    for word in words:
        assert word in str(caught.value)


@torch.inference_mode()
def test_published_usage(checkpoint):
    from latentcli.models import DinacAE, DinacAEConfig, DinacAEInferenceConfig

    model = DinacAE.from_pretrained(checkpoint, device="cpu", dtype=torch.float32)
    assert isinstance(model.config, DinacAEConfig)
    latents = model.encode(images())
    assert latents.shape == (2, 8, 3, 4) and latents.dtype == torch.float32
    torch.testing.assert_close(model.whiten(model.encode_posterior(images()).mode()), latents)
    cfg = DinacAEInferenceConfig(num_steps=1, seed=3)
    recon = model.decode(latents, height=48, width=64, inference_config=cfg)
    assert recon.shape == (2, 3, 48, 64) and recon.dtype == torch.float32
    token = model.predict_class(latents)
    assert token.shape == (2, 64) and token.dtype == torch.float32
    torch.testing.assert_close(token.square().mean(1), torch.ones(2), atol=2e-2, rtol=0)


@torch.inference_mode()
def test_class_tokens_do_not_depend_on_the_weights_dtype(checkpoint):
    exact, rounded = (load_model(checkpoint, dtype=d) for d in ("fp32", "bf16"))
    z = exact.encode(images())
    tokens = [model.predict_class(z) for model in (exact, rounded)]
    torch.testing.assert_close(*tokens, atol=0.05, rtol=0)
    assert not torch.equal(tokens[0][0], tokens[0][1])
    with pytest.raises(ValueError, match=r"must be \[N, 8,"):
        exact.predict_class(z[:, :7])


@torch.inference_mode()
def test_a_checkpoint_without_the_head(tmp_path):
    state = {name: t for name, t in tiny_state().items() if not name.startswith(HEAD)}
    model = load_model(folder_of(tmp_path / "headless", state, TINY))
    assert not model.predicts_class and model.can_encode
    z = model.encode(images())
    assert torch.equal(z, load(tiny_state()).encode(images()))
    with pytest.raises(WeightsError, match="no class head"):
        model.predict_class(z)
    assert load(tiny_state()).predicts_class


@pytest.mark.parametrize("name", PRESETS)
def test_a_whole_preset_with_random_weights(name, tmp_path):
    """The network of the preset, narrowed so that it is quick to fill."""
    text = (presets_folder() / f"{name}.toml").read_text()
    text = text.replace("_dim = 896", "_dim = 64").replace("_dim = 768", "_dim = 64")
    (tmp_path / "narrow.toml").write_text(text)
    model = load_model(str(tmp_path / "narrow.toml"), random_weights=True)
    assert len(model.encoder.blocks) == load_preset(name).config["encoder_depth"]
    assert model.spec.space == f"data-archetype/{name}" and model.predicts_class
    with torch.inference_mode():
        z = model.encode(images())
        for tensor in (z, model.decode(z, 48, 64), model.predict_class(z)):
            assert tensor.isfinite().all() and 0.01 < tensor.std() < 20
    assert equal(model, build_model(str(tmp_path / "narrow.toml")))


@torch.inference_mode()
def test_every_patch_sees_every_other(checkpoint):
    model = load_model(checkpoint)
    z = model.encode(images())
    changed = images()
    changed[:, :, -16:, -16:] *= -1
    assert (model.encode(changed) - z).abs().amin(dim=(0, 1)).min() > 0


@torch.inference_mode()
def test_sizes_that_break_the_rule(checkpoint):
    model = load_model(checkpoint)
    with pytest.raises(ValueError, match=r"56x48.*multiples of 16"):
        model.encode(images(width=56))


@torch.inference_mode()
def test_bfloat16_stays_close_to_float32(checkpoint):
    exact, rounded = (load_model(checkpoint, dtype=d) for d in ("fp32", "bf16"))
    assert rounded.encoder.rope.periods.dtype == torch.float32
    z = exact.encode(images())
    config = InferenceConfig(seed=1)
    posterior = rounded.encode_posterior(images())
    assert posterior.mean.dtype == torch.bfloat16
    for a, b in (
        (exact.encode_posterior(images()).mode(), posterior.mode()),
        (exact.decode(z, inference_config=config), rounded.decode(z, inference_config=config)),
    ):
        assert b.dtype == torch.float32
        assert 0 < ((a - b).square().mean() / a.square().mean()).sqrt() < BF16_TOLERANCE


@torch.inference_mode()
def test_a_deterministic_bottleneck():
    config = TINY | {"bottleneck_posterior_kind": "deterministic"}
    model = load(tiny_state(config=config), config)
    posterior = model.encode_posterior(images())
    assert isinstance(posterior, PointPosterior) and model.moments == ("mean",)
    assert model.encoder.to_bottleneck.weight.shape == (8, 64, 1, 1)
    assert torch.equal(model.encode(images()), model.whiten(posterior.mean))
    assert load(tiny_state()).moments == ("mean", "logsnr")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"bottleneck_posterior_kind": "laplace"}, "'diagonal_gaussian' and 'deterministic'"),
        ({"bottleneck_norm_mode": "channel_wise"}, "'channel_wise'; only 'disabled'"),
        ({"encoder_mlp_type": "swiglu"}, "encoder_mlp_type = 'swiglu'"),
        ({"class_head_mlp_type": "swiglu"}, "class_head_mlp_type = 'swiglu'"),
        ({"class_head_feature_dim": 128}, "class_head_feature_dim = 128.*class_head_model_dim"),
        ({"class_head_register_token_count": 8}, "class_head_register_token_count = 8.* be 4"),
        ({"class_head_head_dim": 48}, "class_head_model_dim = 64.*class_head_head_dim"),
        ({"class_head_head_dim": 2}, "class_head_head_dim = 2.*multiple of 4"),
        ({"model_dim": 96}, "model_dim = 96.*multiple of the head width 64"),
        ({"encoder_depth": 0}, "encoder_depth = 0.*at least 1"),
        ({"decoder_depth": 2}, "none in the middle"),
        ({"class_head_mlp_ratio": "4"}, "class_head_mlp_ratio"),
        ({"has_class_head": 1}, "true or false"),
        ({"ema": True}, "the DINAC family does not know: ema"),
    ],
)
def test_config_errors(change, word):
    with pytest.raises(LatentCliError, match=word):
        FAMILY.build(TINY | change, None)


def test_families_are_told_by_their_configs():
    assert FAMILY.recognises(TINY) and not fcdm.FAMILY.recognises(TINY)
    assert not FAMILY.recognises(fcdm.FAMILY.tiny)
