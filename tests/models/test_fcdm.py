"""The FCDM family: counts, checkpoint spellings, published usage, sizes, precision, configs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from latentcli.core.errors import LatentCliError, WeightsError
from latentcli.models.fcdm import FAMILY, CapacitorDecoder, FCDMConfig, FCDMDiffAE, FullCapacitor
from latentcli.models.presets import load_preset
from latentcli.models.registry import load_model
from latentcli.models.vp_diffusion import InferenceConfig
from latentcli.models.weights import load_into, random_state

TINY = dict(FAMILY.tiny)
MEAN, VAR = "latent_norm_running_mean", "latent_norm_running_var"
BF16_TOLERANCE = 0.02
"""RMS of bfloat16 minus float32 over RMS of float32, toy size, CPU.

Measured: 0.004 for the encoder, 0.010 for the decoder. The golden vectors are held to the same."""
# Sizes of published files (or, for all but semdisdiffae, of files written from the same names):
# preset, tensors, bytes.
FILES = [
    ("semdisdiffae", 140, 355_101_560),
    ("semdisdiffae_p32_v2", 176, 626_569_856),
    ("full_capacitor", 176, 458_783_216),
    ("capacitor_decoder", 100, 247_744_872),
]


def on_meta(name: str) -> FCDMDiffAE:
    preset = load_preset(name)
    with torch.device("meta"):
        model = FAMILY.build(preset.config, preset.spec)
    assert isinstance(model, FCDMDiffAE)
    return model


def tiny_state(seed: int = 0, config: Mapping[str, object] = TINY) -> dict[str, Tensor]:
    state = random_state(lambda: FAMILY.build(config, None), seed)
    generator = torch.Generator().manual_seed(seed)
    state[MEAN] = torch.randn(state[MEAN].shape, generator=generator)
    state[VAR] = torch.rand(state[VAR].shape, generator=generator) + 0.5
    return state


def folder_of(folder: Path, state: Mapping[str, Tensor], config: Mapping[str, object]) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(config)))
    save_file({name: t.contiguous() for name, t in state.items()}, folder / "model.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return folder_of(tmp_path_factory.mktemp("fcdm") / "toy", tiny_state(), TINY)


@pytest.mark.parametrize(
    ("name", "whole", "encoder"),
    [
        ("semdisdiffae", 88_771_328, 26_838_144),
        ("semdisdiffae_p32_v2", 156_636_928, 71_567_104),
        ("full_capacitor", 114_690_816, 52_757_632),
        ("capacitor_decoder", 61_933_184, 0),
    ],
)
def test_parameter_counts(name, whole, encoder):
    model = on_meta(name)
    assert model.parameter_count() == whole
    assert sum(p.numel() for p in model.decoder.parameters()) == whole - encoder
    assert (model.encoder is None) == (encoder == 0)


def file_size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of a safetensors file of float32 tensors without metadata."""
    entries, end = {}, 0
    for name in sorted(shapes):
        begin, end = end, end + 4 * math.prod(shapes[name])
        shape, offsets = list(shapes[name]), [begin, end]
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = len(json.dumps(entries, separators=(",", ":")))
    return 8 + -(-header // 8) * 8 + end


def test_file_sizes_are_those_that_the_library_writes(checkpoint):
    state = tiny_state()
    size = (Path(checkpoint) / "model.safetensors").stat().st_size
    assert file_size({name: tuple(t.shape) for name, t in state.items()}) == size


@pytest.mark.parametrize(("name", "tensors", "size"), FILES)
def test_files_are_as_large_as_the_published_ones(name, tensors, size):
    state = on_meta(name).state_dict()
    assert all(t.dtype == torch.float32 for t in state.values())
    assert len(state) == tensors
    assert file_size({n: tuple(t.shape) for n, t in state.items()}) == size


def test_size_of_the_file_before_statistics_were_added():
    state = on_meta("semdisdiffae").state_dict()
    shapes = {n: tuple(t.shape) for n, t in state.items() if n not in (MEAN, VAR)}
    assert (len(shapes), file_size(shapes)) == (138, 355_100_344)


def flat_patches(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: t.reshape(t.shape[0], -1, 1, 1) if name.endswith("patchify.proj.weight") else t
        for name, t in state.items()
    }


def bare_decoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("decoder."): t for name, t in state.items()}


def stats_named(mean: str, var: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {{MEAN: mean, VAR: var}.get(name, name): t for name, t in state.items()}


STATS = [
    stats_named("flux2_bn_running_mean", "flux2_bn_running_var"),
    stats_named("bn.running_mean", "bn.running_var"),
    stats_named("latent_norm.running_mean", "latent_norm.running_var"),
    stats_named("latent_running_stats_mean", "latent_running_stats_var"),
]


def load(state: dict[str, Tensor], config: Mapping[str, object] = TINY) -> FCDMDiffAE:
    with torch.device("meta"):
        model = FAMILY.build(FAMILY.infer(config, frozenset(state)), None)
    options = {"family": FAMILY, "dtype": torch.float32, "device": "cpu", "source": "the test"}
    loaded = load_into(model, state, **options)
    assert isinstance(loaded, FCDMDiffAE)
    return loaded


def equal(a: FCDMDiffAE, b: FCDMDiffAE) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize("spelling", [flat_patches, bare_decoder, *STATS])
def test_published_spellings_give_the_same_model(spelling):
    state = tiny_state()
    assert equal(load(spelling(state)), load(state))


@pytest.mark.parametrize("stats", STATS)
def test_spellings_together_and_of_a_decoder_alone(stats):
    state = tiny_state()
    assert equal(load(stats(bare_decoder(flat_patches(state)))), load(state))
    decoder = {name: t for name, t in state.items() if not name.startswith("encoder.")}
    alone = load(stats(bare_decoder(decoder)))
    assert isinstance(alone, CapacitorDecoder) and not alone.can_encode
    assert equal(alone, load(decoder))


def without(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: t for name, t in state.items() if name not in names}


def plus(**more: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: state | {name.replace("__", "."): t for name, t in more.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(MEAN, VAR), ["2 missing", MEAN, VAR]),
        (without("decoder.fuse_in.bias"), ["1 missing: decoder.fuse_in.bias"]),
        (plus(bn__num_batches_tracked=torch.zeros(())), ["1 extra: bn.num_batches_tracked"]),
        (plus(bn__running_mean=torch.zeros(8)), ["1 extra: bn.running_mean"]),
        (plus(ema__x=torch.zeros(3)), ["1 extra: ema.x"]),
        (lambda s: {f"model.{n}": t for n, t in s.items()}, ["missing", "extra: model."]),
        (
            lambda s: s | {"encoder.patchify.proj.weight": torch.zeros(32, 768)},
            ["another shape", "expected [32, 3, 16, 16], found [32, 768]"],
        ),
        (
            lambda s: s | {"decoder.latent_up.weight": torch.zeros(32, 8)},
            ["decoder.latent_up.weight (expected [32, 8, 1, 1], found [32, 8])"],
        ),
        (lambda s: s | {MEAN: torch.zeros(9)}, [f"{MEAN} (expected [8], found [9])"]),
        (lambda s: s | {VAR: torch.ones(8).int()}, [VAR, "whole numbers"]),
        (
            lambda s: without(MEAN)(s) | {"a.mean": torch.zeros(8), "b.mean": torch.zeros(8)},
            [MEAN, "a.mean, b.mean"],
        ),
    ],
)
def test_anything_else_is_refused_and_listed(change, words):
    with pytest.raises(WeightsError) as caught:
        load(change(tiny_state()))
    for word in ["the test", *words]:
        assert word in str(caught.value)


@torch.inference_mode()
def test_usage_of_semdisdiffae(checkpoint):
    from latentcli.models import FCDMDiffAE, FCDMDiffAEInferenceConfig

    device = "cpu"
    model = FCDMDiffAE.from_pretrained(checkpoint, device=device, dtype=torch.float32)
    image = torch.rand(1, 3, 48, 64) * 2 - 1
    latents = model.encode(image.to(device))
    assert latents.shape == (1, 8, 3, 4)
    assert torch.equal(latents, model.whiten(model.encode_posterior(image).mode()))
    cfg = FCDMDiffAEInferenceConfig(num_steps=1)
    recon = model.decode(latents, height=48, width=64, inference_config=cfg)
    assert recon.shape == image.shape and recon.dtype == torch.float32
    guided = FCDMDiffAEInferenceConfig(num_steps=10, pdg=True, pdg_strength=2.0)
    assert model.decode(latents, 48, 64, inference_config=guided).isfinite().all()


@torch.inference_mode()
def test_usage_of_full_capacitor(checkpoint):
    from latentcli.models import FullCapacitor, FullCapacitorInferenceConfig

    model = FullCapacitor.from_pretrained(checkpoint, device="cpu", dtype=torch.bfloat16)
    assert (model.dtype, model.device.type) == (torch.bfloat16, "cpu")
    image = (torch.rand(2, 3, 64, 96) * 2 - 1).to(torch.bfloat16)
    posterior = model.encode_posterior(image)
    z = model.whiten(posterior.mode())
    assert z.dtype == torch.float32
    torch.testing.assert_close(model.dewhiten(z), posterior.mode())
    torch.testing.assert_close(model.encode(image), z)
    recon = model.decode(
        z, height=64, width=96, inference_config=FullCapacitorInferenceConfig(num_steps=1, seed=3)
    )
    assert recon.shape == (2, 3, 64, 96) and recon.dtype == torch.float32


@pytest.fixture(scope="module")
def decoder_checkpoint(tmp_path_factory) -> str:
    state = {n: t for n, t in tiny_state().items() if not n.startswith("encoder.")}
    config = {name: value for name, value in TINY.items() if name != "encoder_depth"}
    return folder_of(tmp_path_factory.mktemp("fcdm") / "decoder", STATS[0](state), config)


@torch.inference_mode()
def test_usage_of_capacitor_decoder(decoder_checkpoint):
    from latentcli.models import CapacitorDecoder, CapacitorDecoderInferenceConfig

    model = CapacitorDecoder.from_pretrained(decoder_checkpoint, device="cpu")
    latents = torch.randn(1, 8, 4, 6)
    cfg = CapacitorDecoderInferenceConfig(num_steps=1, seed=0)
    image = model.decode(latents, height=64, width=96, inference_config=cfg)
    assert image.shape == (1, 3, 64, 96)
    raw = model.decode(
        model.dewhiten(latents),
        height=64,
        width=96,
        inference_config=cfg,
        latents_are_flux2_whitened=False,
    )
    torch.testing.assert_close(raw, image, rtol=0, atol=1e-5)
    wrong = model.decode(latents, inference_config=cfg, latents_are_flux2_whitened=False)
    assert (wrong - image).abs().max() > 1e-2
    with pytest.raises(WeightsError, match="has only a decoder"):
        model.encode(torch.zeros(1, 3, 32, 32))


def test_dewhitening_is_batch_norm_undone(decoder_checkpoint):
    """FLUX.2's own formula: latents * sqrt(running_var + eps) + running_mean, eps 1e-4."""
    model = CapacitorDecoder.from_pretrained(decoder_checkpoint)
    z = torch.randn(2, 8, 3, 3)
    mean, var = (s[None, :, None, None] for s in (tiny_state()[MEAN], tiny_state()[VAR]))
    torch.testing.assert_close(model.dewhiten(z), z * torch.sqrt(var + 1e-4) + mean)
    torch.testing.assert_close(model.whiten(model.dewhiten(z)), z)


@torch.inference_mode()
def test_seeds_of_the_model_classes(checkpoint):
    model = load_model(checkpoint)
    z = torch.randn(2, 8, 2, 2)

    def run(seed: int | None) -> Tensor:
        return model.decode(z, inference_config=InferenceConfig(num_steps=2, seed=seed))

    assert torch.equal(run(5), run(5))
    assert not torch.equal(run(5), run(6)) and not torch.equal(run(None), run(None))
    with pytest.raises(ValueError, match="noise is"):
        model.decode(z, noise=torch.zeros(2, 3, 16, 16))


def test_size_rules_of_the_classes(checkpoint, decoder_checkpoint):
    assert FCDMDiffAE.from_pretrained(checkpoint).spec.size_divisor == 16
    assert FullCapacitor.from_pretrained(checkpoint).spec.size_divisor == 32
    assert CapacitorDecoder.from_pretrained(decoder_checkpoint).spec.size_divisor == 16
    with pytest.raises(WeightsError, match="13 extra"):
        CapacitorDecoder.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("name", "divisor", "geometry"),
    [
        ("semdisdiffae", 16, "f16c128"),
        ("semdisdiffae_p32_v2", 32, "f32c384"),
        ("full_capacitor", 32, "f16c128"),
        ("capacitor_decoder", 16, "f16c128"),
        ("fcdm_nano", 16, "f16c128"),
    ],
)
def test_size_rules_of_the_presets(name, divisor, geometry):
    spec = on_meta(name).spec
    assert (spec.size_divisor, spec.geometry) == (divisor, geometry)


@torch.inference_mode()
def test_sizes_that_break_the_rule(checkpoint):
    model = FullCapacitor.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match=r"48x64.*multiples of 32"):
        model.encode(torch.zeros(1, 3, 64, 48))
    with pytest.raises(ValueError, match="multiples of 32"):
        model.decode(torch.zeros(1, 8, 3, 4))
    with pytest.raises(ValueError, match=r"latents are \(1, 8, 2, 2\)"):
        model.decode(torch.zeros(1, 8, 2, 2), height=64, width=64)
    with pytest.raises(ValueError, match=r"must be \[N, 8,"):
        model.decode(torch.zeros(1, 7, 2, 2))


def test_fp32_islands(checkpoint):
    model = load_model(checkpoint, dtype=torch.bfloat16)
    kept = {n for n, t in model.state_dict().items() if t.dtype == torch.float32}
    blocks = ("encoder.blocks.0", *(f"decoder.{p}_blocks.0" for p in ("start", "middle", "end")))
    expected = {f"{block}.grn.{part}" for block in blocks for part in ("gamma", "beta")}
    expected |= {MEAN, VAR, "encoder.blocks.0.layer_scale", "decoder.time_embed.freqs"}
    expected |= {"decoder.path_drop_mask_feature"}
    expected |= {"decoder.out_proj.weight", "decoder.out_proj.bias"}
    assert kept == expected
    others = {t.dtype for n, t in model.state_dict().items() if n not in kept}
    assert others == {torch.bfloat16}


@torch.inference_mode()
@pytest.mark.parametrize("options", [{}, {"num_steps": 4}, {"pdg": True}])
def test_bfloat16_stays_close_to_float32(checkpoint, options):
    exact, rounded = (load_model(checkpoint, dtype=d) for d in ("fp32", "bf16"))
    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = exact.encode(images)
    config = InferenceConfig(seed=1, **options)
    for a, b in (
        (exact.encode_posterior(images).mode(), rounded.encode_posterior(images).mode()),
        (exact.decode(z, inference_config=config), rounded.decode(z, inference_config=config)),
    ):
        assert b.dtype == torch.float32
        assert 0 < ((a - b).square().mean() / a.square().mean()).sqrt() < BF16_TOLERANCE


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"bottleneck_posterior_kind": "deterministic"}, "deterministic"),
        ({"bottleneck_norm_mode": "channel_wise"}, "channel_wise"),
        ({"decoder_depth": 2}, "none in the middle"),
        ({"bottleneck_patchify_mode": "off"}, "bottleneck_patchify_mode"),
        ({"model_dim": "32"}, "model_dim"),
        ({"model_dim": None}, "model_dim"),
        ({"patch_size": 0}, "patch_size"),
        ({"decoder_depth": 3.0}, "decoder_depth"),
        ({"logsnr_min": "low"}, "logsnr_min"),
        ({"encoder_depth": -1}, "encoder_depth"),
    ],
)
def test_config_errors(tmp_path, change, word):
    folder = folder_of(tmp_path / "model", tiny_state(), TINY | change)
    with pytest.raises(LatentCliError, match=word):
        load_model(folder)


def test_config_defaults_are_those_of_semdisdiffae():
    assert FCDMConfig.from_mapping({}) == FCDMConfig.from_mapping(
        load_preset("semdisdiffae").config
    )
    assert FCDMConfig.from_mapping({"batch_norm_eps": 1e-3}).latent_running_stats_eps == 1e-3
    assert FCDMConfig.from_mapping({"mlp_ratio": 4}).mlp_ratio == 4


def test_families_are_told_by_their_configs():
    assert FAMILY.recognises(TINY)
    assert not FAMILY.recognises(TINY | {"encoder_mlp_type": "gelu"})
    assert not FAMILY.recognises({"model_dim": 896})
