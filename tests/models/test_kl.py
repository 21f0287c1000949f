"""The KL family: reference numbers, published names and spellings, halves, refusals, folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from klkit import (
    MANIFESTS,
    TINY,
    TINY_IMAGE,
    TINY_VIDEO,
    TO_LDM,
    TO_OLDER,
    TO_ORIGINAL,
    as_published,
    folder_of,
    load,
    on_meta,
    tiny_state,
)
from paritykit import arrays, close, manifest, seeded_state
from torch import Tensor

from latentcli.core.errors import WeightsError
from latentcli.models.kl import FAMILY, STATS, KLAutoencoder
from latentcli.models.kl_keys import parts_of
from latentcli.models.presets import load_preset
from latentcli.models.registry import build_model, load_model

pytest.importorskip("diffusers")

BF16_TOLERANCE = 0.04
"""RMS of bfloat16 minus float32 over RMS of float32, toy size, CPU; measured 0.012 to 0.023."""


def published(shared: Path, name: str) -> KLAutoencoder:
    """A preset's network with the weights of the reference numbers."""
    preset = load_preset(MANIFESTS[name])
    model = on_meta(preset.name)
    state = FAMILY.adapt(seeded_state(shared, name), model)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


@pytest.mark.parametrize("name", ["autoencoder_kl_flux2", "autoencoder_kl_flux2_small_decoder"])
@torch.inference_mode()
def test_flux2_gives_the_reference_numbers(shared, name):
    model, want = published(shared, name), arrays(shared, name)
    posterior = model.encode_posterior(want["image"])
    close(posterior.mean, F.pixel_unshuffle(want["mean"], 2))
    close(posterior.moments()["logvar"], F.pixel_unshuffle(want["logvar"], 2))
    close(model.encode(want["image"]), want["whitened"])
    latents = model.whiten(F.pixel_unshuffle(want["latent_in"], 2))
    close(model.decode(latents, 32, 48), want["decoded"])
    close(model.decode_frames(latents), want["decoded"])


@torch.inference_mode()
def test_sdxl_gives_the_reference_numbers(shared):
    name = "autoencoder_kl_sdxl"
    model, want = published(shared, name), arrays(shared, name)
    moments = model.encode_posterior(want["image"]).moments()
    close(moments["mean"], want["mean"])
    close(moments["logvar"], want["logvar"])
    close(model.encode(want["image"]), want["mean"] * 0.13025)
    close(model.decode(want["latent_in"] * 0.13025), want["decoded"])


@torch.inference_mode()
def test_svd_gives_the_reference_numbers(shared):
    name = "autoencoder_kl_temporal_decoder_svd"
    model, want = published(shared, name), arrays(shared, name)
    assert model.is_video and model.frames_per_chunk == 8
    close(model.encode(want["image"]), want["mean"] * 0.18215)
    latents = want["latent_in"] * 0.18215
    close(model.decode_frames(latents, 32, 48), want["decoded_nf4"])
    close(torch.cat([model.decode_frames(z) for z in latents.split(2)]), want["decoded_nf2"])


@torch.inference_mode()
def test_a_temporal_decoder_takes_images_for_themselves_and_frames_together():
    model = load(tiny_state(TINY_VIDEO), TINY_VIDEO)
    latents = torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([model.decode_frames(z[None]) for z in latents])
    torch.testing.assert_close(model.decode(latents), alone)
    assert (model.decode_frames(latents) - alone).abs().max() > 0.01


@pytest.mark.parametrize("name", MANIFESTS)
def test_published_names_and_shapes(shared, name):
    state = on_meta(MANIFESTS[name]).state_dict()
    assert {key: tuple(t.shape) for key, t in state.items()} == manifest(shared, name)


@pytest.mark.parametrize("name", [p for p in MANIFESTS.values() if isinstance(p, str)])
def test_parameters_and_geometry_of_the_presets(name):
    preset = load_preset(name)
    model, plain = on_meta(name), on_meta(dict(preset.config))
    assert model.parameter_count() == preset.parameters
    assert model.spec == preset.spec
    assert (plain.spec.geometry, plain.spec.state) == (preset.spec.geometry, preset.state)
    assert plain.spec.size_divisor == preset.size_divisor
    assert (model.can_encode, model.can_decode) == (True, True)


def test_latent_spaces_of_the_presets():
    spaces = {n: load_preset(n).spec.space_id(load_preset(n).state) for n in ("sdxl", "svd")}
    assert spaces == {"sdxl": "sdxl#scaled", "svd": "svd#scaled"}
    assert load_preset("flux2").spec == load_preset("capacitor_decoder").spec
    assert load_preset("flux2").spec == load_preset("flux2_small_decoder").spec


@torch.inference_mode()
def test_a_preset_with_random_weights():
    model = build_model("sdxl")
    image = torch.rand(1, 3, 32, 40) * 2 - 1
    latents = model.encode(image)
    assert latents.shape == (1, 4, 4, 5) and latents.isfinite().all()
    assert model.decode(latents, 32, 40).isfinite().all()


PRESET = """
family = "kl"
summary = "a test"
licence = "none"
card = "here"
parameters = 1

[config]
autoencoder = "AutoencoderKLFlux2"
block_out_channels = [8, 8, 16, 16]
layers_per_block = 1
latent_channels = 2
norm_num_groups = 4
force_upcast = true

[weights]
repo = "org/name"
subfolder = "vae"
file = "diffusion_pytorch_model.safetensors"

[latents]
space = "flux2"
channels = 8
downscale = 16
size_divisor = 16
"""


def test_a_preset_with_a_copy_of_the_repository(tmp_path, caplog):
    (tmp_path / "toy.toml").write_text(PRESET)
    notes = {"_class_name": TINY["autoencoder"], "_diffusers_version": "0.37.0"}
    published = {k: v for k, v in TINY.items() if k != "autoencoder"} | notes
    folder_of(tmp_path / "copy" / "vae", published | {"force_upcast": True}, tiny_state())
    model = load_model(tmp_path / "toy.toml", weights=tmp_path / "copy")
    assert model.spec.space_id(model.spec.state) == "flux2#whitened"
    assert not caplog.records
    other = published | {"latent_channels": 4}
    folder_of(tmp_path / "other", other, tiny_state())
    with pytest.raises(WeightsError, match="f16c16 model, but preset toy is f16c8"):
        load_model(tmp_path / "toy.toml", weights=tmp_path / "other")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_norm_eps", 1e-3),
        ("latents_mean", [0.5, 0.5]),
        ("latents_std", [2.0, 2.0]),
        ("scaling_factor", 0.5),
    ],
)
def test_a_copy_that_would_change_what_latents_mean_is_refused(tmp_path, key, value):
    (tmp_path / "toy.toml").write_text(
        PRESET.replace("[weights]", "batch_norm_eps = 1e-4\n[weights]")
    )
    folder_of(tmp_path / "vae", TINY | {key: value}, tiny_state())
    with pytest.raises(WeightsError, match=f"says {key} = .* would not be of flux2"):
        load_model(tmp_path / "toy.toml", weights=tmp_path / "vae")


@pytest.mark.parametrize("rules", [TO_ORIGINAL, TO_LDM, TO_OLDER], ids=["bfl", "ldm", "older"])
def test_every_spelling_loads_to_the_same_values(rules):
    state = tiny_state()
    spelt = as_published(state, rules)
    assert set(spelt) != set(state)
    loaded = load(spelt).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_two_spellings_of_one_tensor_are_refused():
    state = tiny_state()
    state["encoder.norm_out.weight"] = torch.zeros(16)
    with pytest.raises(WeightsError, match=r"1 extra: encoder\.norm_out\.weight"):
        load(state)


def bare_decoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The decoder alone, in the original spelling without its prefix, as small_decoder has it."""
    spelt = as_published(state, TO_ORIGINAL)
    return {n.removeprefix("decoder."): t for n, t in spelt.items() if n.startswith("decoder.")}


@torch.inference_mode()
def test_a_decoder_alone_with_statistics_decodes_and_refuses_to_encode(tmp_path):
    state = tiny_state()
    decoder = bare_decoder(state) | {n: t for n, t in state.items() if n.startswith("bn.")}
    assert parts_of(frozenset(decoder)) == "decoder" and "conv_in.weight" in decoder
    model = load_model(folder_of(tmp_path / "half", TINY, decoder))
    assert (model.can_encode, model.can_decode) == (False, True)
    latents = torch.randn(2, 8, 2, 3)
    torch.testing.assert_close(model.decode(latents), load(state).decode(latents))
    with pytest.raises(WeightsError, match="has only a decoder"):
        model.encode(torch.zeros(1, 3, 16, 16))


def test_a_decoder_alone_without_statistics_is_refused():
    with pytest.raises(WeightsError, match=r"lack the batch-norm statistics bn\.running_mean") as e:
        load(bare_decoder(tiny_state()))
    assert "full_encoder_small_decoder.safetensors" in str(e.value)


@torch.inference_mode()
def test_an_encoder_alone_encodes_and_refuses_to_decode():
    state = tiny_state(TINY_IMAGE)
    encoder = {n: t for n, t in state.items() if n.startswith("encoder.")}
    bare = {n.removeprefix("encoder."): t for n, t in encoder.items()}
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    want = load(state, TINY_IMAGE).encode(images)
    for half in (encoder, bare):
        model = load(half, TINY_IMAGE)
        assert (model.can_encode, model.can_decode) == (True, False)
        torch.testing.assert_close(model.encode(images), want)
        with pytest.raises(WeightsError, match="has only an encoder"):
            model.decode(want)


@torch.inference_mode()
def test_a_folder_of_a_flux1_like_autoencoder(tmp_path):
    state = tiny_state(TINY_IMAGE)
    assert not any("quant_conv" in name or name.startswith("bn.") for name in state)
    model = load_model(folder_of(tmp_path / "vae", TINY_IMAGE, state))
    assert (model.spec.geometry, model.spec.state) == ("f8c4", "scaled")
    assert model.spec.space.startswith("local-")
    images = torch.rand(2, 3, 32, 16) * 2 - 1
    posterior = model.encode_posterior(images)
    z = model.encode(images)
    torch.testing.assert_close(z, (posterior.mean - 0.1159) * 0.3611)
    torch.testing.assert_close(model.dewhiten(z), posterior.mode())
    assert model.decode(z).shape == images.shape


@torch.inference_mode()
def test_a_folder_gives_what_diffusers_itself_gives(tmp_path):
    import diffusers

    config = {k: v for k, v in TINY_IMAGE.items() if not k.startswith("_")}
    theirs = diffusers.AutoencoderKL(**config).eval()
    theirs.save_pretrained(tmp_path / "vae")
    ours = load_model(tmp_path / "vae")
    images = torch.rand(2, 3, 32, 16) * 2 - 1
    z = (theirs.encode(images).latent_dist.mode() - 0.1159) * 0.3611
    torch.testing.assert_close(ours.encode(images), z)
    torch.testing.assert_close(ours.decode(z), theirs.decode(z / 0.3611 + 0.1159).sample)


def test_per_channel_statistics_of_a_config():
    stats = {"latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [2.0, 4.0, 8.0, 16.0]}
    config = TINY_IMAGE | stats | {"shift_factor": None, "scaling_factor": 0.5}
    model = on_meta(config)
    raw = torch.tensor([3.0, 6.0, 11.0, 20.0])[None, :, None, None]
    torch.testing.assert_close(model.whiten(raw), torch.full((1, 4, 1, 1), 0.5))
    torch.testing.assert_close(model.dewhiten(model.whiten(raw)), raw)


def test_folding_and_whitening_of_flux2():
    model = load(tiny_state())
    grid = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    folded = model._folded(grid)
    assert folded[0, 1 * 4 + 2 * 1 + 0, 1, 0] == grid[0, 1, 3, 0]
    mean, var = (model.state_dict()[n][None, :, None, None] for n in STATS)
    torch.testing.assert_close(model.whiten(folded), (folded - mean) / (var + 1e-4).sqrt())
    torch.testing.assert_close(model.dewhiten(model.whiten(folded)), folded)


@torch.inference_mode()
@pytest.mark.parametrize("config", [TINY, TINY_IMAGE, TINY_VIDEO], ids=["flux2", "image", "video"])
def test_bfloat16_stays_close_and_keeps_statistics(tmp_path, config):
    folder = folder_of(tmp_path / "vae", config, tiny_state(config))
    exact, rounded = (load_model(folder, dtype=d) for d in ("fp32", "bf16"))
    assert {t.dtype for t in rounded.parameters()} == {torch.bfloat16} == {rounded.dtype}
    state = rounded.state_dict()
    assert all(state[name].dtype == torch.float32 for name in STATS if name in state)
    images = torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = exact.encode(images)
    for a, b in ((z, rounded.encode(images)), (exact.decode(z), rounded.decode(z))):
        assert b.dtype == torch.float32
        assert 0 < ((a - b).square().mean() / a.square().mean()).sqrt() < BF16_TOLERANCE


def test_sizes_that_break_the_rule():
    model = load(tiny_state())
    with pytest.raises(ValueError, match="24x16, width and height must be multiples of 16"):
        model.encode(torch.zeros(1, 3, 16, 24))
    with pytest.raises(ValueError, match=r"latents are \(1, 2, 4, 4\)"):
        model.decode(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match=r"must be \[N, 8, 2, 1\]"):
        model.decode(torch.zeros(1, 8, 1, 1), height=32, width=16)


def test_weights_of_another_decoder_are_refused():
    state = tiny_state()
    with pytest.raises(WeightsError, match="of another shape"):
        load(state, TINY | {"decoder_block_out_channels": [4, 4, 8, 8]})
    with pytest.raises(WeightsError, match=r"1 missing: quant_conv\.bias"):
        load({n: t for n, t in state.items() if n != "quant_conv.bias"})
