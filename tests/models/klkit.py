"""What the tests of the KL family share: configs, checkpoints, and the spellings of names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import paritykit
import torch
from safetensors.torch import save_file
from torch import Tensor

from latentcli.models.kl import FAMILY, KLAutoencoder
from latentcli.models.presets import load_preset
from latentcli.models.weights import load_into, random_state

TINY = dict(FAMILY.tiny)
FLUX1 = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.30.0.dev0",
    "_name_or_path": "../checkpoints/flux-dev",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 16,
    "latents_mean": None,
    "latents_std": None,
    "layers_per_block": 2,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
SMALL = {"block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4}
TINY_IMAGE = FLUX1 | SMALL | {"latent_channels": 4}
TINY_VIDEO = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "block_out_channels": [32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
}
MANIFESTS = {
    "autoencoder_kl_flux2": "flux2",
    "autoencoder_kl_flux2_small_decoder": "flux2_small_decoder",
    "autoencoder_kl_sdxl": "sdxl",
    "autoencoder_kl_temporal_decoder_svd": "svd",
    "autoencoder_kl_flux1": FLUX1,
}


def on_meta(preset_or_config: str | Mapping[str, object], **extra: object) -> KLAutoencoder:
    config, spec = preset_or_config, None
    if isinstance(config, str):
        preset = load_preset(config)
        config, spec = preset.config, preset.spec
    with torch.device("meta"):
        model = FAMILY.build({**config, **extra}, spec)
    assert isinstance(model, KLAutoencoder)
    return model


def load(state: dict[str, Tensor], config: Mapping[str, object] = TINY) -> KLAutoencoder:
    model = on_meta(FAMILY.infer(config, frozenset(state)))
    options = {"family": FAMILY, "dtype": torch.float32, "device": "cpu", "source": "the test"}
    loaded = load_into(model, dict(state), **options)
    assert isinstance(loaded, KLAutoencoder)
    return loaded


def tiny_state(config: Mapping[str, object] = TINY) -> dict[str, Tensor]:
    state = random_state(lambda: FAMILY.build(config, None), 0)
    return {name: paritykit.seeded(name, tuple(t.shape)) for name, t in state.items()}


def folder_of(folder: Path, config: Mapping[str, object], state: Mapping[str, Tensor]) -> Path:
    """As diffusers' save_pretrained leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    whole = {name: t.contiguous() for name, t in state.items()}
    save_file(whole, folder / "diffusion_pytorch_model.safetensors")
    return folder


# The original spelling, written out from the published description the other way round: each
# pattern of diffusers' names, and what the original code calls it.
TO_ORIGINAL = [
    (r"^quant_conv", "encoder.quant_conv"),
    (r"^post_quant_conv", "decoder.post_quant_conv"),
    (r"conv_norm_out", "norm_out"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"conv_shortcut", "nin_shortcut"),
]
TO_OLDER = [
    (r"attentions\.0\.to_q\.", "attentions.0.query."),
    (r"attentions\.0\.to_k\.", "attentions.0.key."),
    (r"attentions\.0\.to_v\.", "attentions.0.value."),
    (r"attentions\.0\.to_out\.0\.", "attentions.0.proj_attn."),
]
TO_LDM = TO_ORIGINAL[2:]
"""Latent diffusion's own files have both 1x1 convolutions outside of the halves."""


def respelt(name: str, rules: list) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def as_published(state: Mapping[str, Tensor], rules: list) -> dict[str, Tensor]:
    """Respelt, with the original code's attention weights as 1x1 convolutions."""
    return {
        respelt(n, rules): t[..., None, None] if t.ndim == 2 and rules is not TO_OLDER else t
        for n, t in state.items()
    }
