"""Builds DINAC autoencoders: transformer encoder, FCDM diffusion decoder, and DINO class head.

They encode and decode as the FCDM family does; from the latents the head also predicts DINO's
class token. Source: the cards of dinac_ae and dinac_ae_d2, and their published package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from latentcli.core.errors import WeightsError
from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder, Family
from latentcli.models.config_checks import SWITCH, Check, check
from latentcli.models.diffusion_ae import DiffusionAutoencoder, is_fp32_island
from latentcli.models.diffusion_config import DiffusionAEConfig
from latentcli.models.dinac_network import (
    ENCODER_HEAD_DIM,
    REGISTERS,
    AlignmentHead,
    DinacEncoder,
)

HEAD = "dino_token_alignment_head."
CORE = "attn_core."
ALIASED = ("qkv.weight", "proj_out.weight", "kv_proj.weight", "out_proj.weight")
"""Weights of an attention core that the published state dicts also list one level up."""


@dataclass(frozen=True, slots=True)
class DinacAEConfig(DiffusionAEConfig):
    """config.json of the family; the defaults are those of dinac_ae."""

    FAMILY_NAME: ClassVar[str] = "DINAC"
    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bottleneck_posterior_kind": ("diagonal_gaussian", "deterministic"),
        "bottleneck_norm_mode": ("disabled",),
        "encoder_mlp_type": ("gelu",),
        "class_head_mlp_type": ("gelu",),
    }

    encoder_depth: int = 6
    encoder_mlp_type: str = "gelu"
    class_head_feature_dim: int = 768
    class_head_model_dim: int = 768
    class_head_head_dim: int = 64
    class_head_mlp_ratio: float = 4.0
    class_head_mlp_type: str = "gelu"
    class_head_register_token_count: int = REGISTERS
    has_class_head: bool = True
    """Not a published key: False for a checkpoint without the head, as its tensor names tell."""

    def __post_init__(self) -> None:
        DiffusionAEConfig.__post_init__(self)
        head_dim, model_dim = self.class_head_head_dim, self.class_head_model_dim
        rules: dict[str, Check] = {
            "has_class_head": SWITCH,
            "model_dim": _multiple_of(ENCODER_HEAD_DIM, f"the head width {ENCODER_HEAD_DIM}"),
            "class_head_head_dim": _multiple_of(4, "4"),
            "class_head_model_dim": _multiple_of(head_dim, "class_head_head_dim"),
            "class_head_feature_dim": (
                lambda value: value == model_dim,
                "equal to class_head_model_dim",
            ),
            "class_head_register_token_count": (
                lambda value: value == REGISTERS,
                f"{REGISTERS}",
            ),
        }
        for name, rule in rules.items():
            check(name, getattr(self, name), rule)


def _multiple_of(number: int, what: str) -> Check:
    return (lambda value: value % number == 0, f"a multiple of {what}")


class DinacAE(DiffusionAutoencoder):
    """dinac_ae and dinac_ae_d2; images NCHW in [-1, 1], latents [N, B, H/P, W/P].

    Every patch sees every other, so an image encoded in tiles is not the image encoded whole.
    """

    config: DinacAEConfig
    default_space = "dinac"

    def __init__(self, config: DinacAEConfig, spec: LatentSpec | None = None) -> None:
        super().__init__(config, spec, DinacEncoder(config))
        self.predicts_class = config.has_class_head
        self.dino_token_alignment_head = (
            AlignmentHead(
                config.bottleneck_dim,
                config.class_head_model_dim,
                int(config.class_head_model_dim * config.class_head_mlp_ratio),
                config.class_head_head_dim,
            )
            if config.has_class_head
            else None
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any], spec: LatentSpec | None = None) -> Self:
        """An empty model from the keys of a config.json."""
        return cls(DinacAEConfig.from_mapping(config), spec)

    def predict_class(self, latents: Tensor) -> Tensor:
        """DINO class token, float32 [N, 768], of whitened latents [N, B, h, w].

        The head always runs in bfloat16, whatever the weights' dtype, as it was published.
        WeightsError for a checkpoint without the head.
        """
        if self.dino_token_alignment_head is None:
            raise WeightsError(
                f"This checkpoint has no class head ({HEAD}*), so it predicts no class token."
            )
        self.spec.image_size(latents.shape)
        raw = self.dewhiten(latents).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            token, _ = self.dino_token_alignment_head(raw)
        return token.float()  # type: ignore[no-any-return]


def infer(config: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Whether the checkpoint holds the class head."""
    return {**config, "has_class_head": any(name.startswith(HEAD) for name in names)}


def adapt(state: dict[str, Tensor], model: Autoencoder) -> dict[str, Tensor]:
    """Attention weights under their one name, whichever of the two published ones the file has.

    WeightsError where a file has both and they differ.
    """
    expected = model.state_dict()
    for name in [name for name in state if name not in expected and name.endswith(ALIASED)]:
        block, layer, _ = name.rsplit(".", 2)
        full = f"{block}.{CORE}{layer}.weight"
        if full not in expected:
            continue
        if full in state and not _equal(state[name], state[full]):
            raise WeightsError(
                f"The checkpoint holds {full} and {name}, which are two names of one tensor, with"
                " different values. One was changed without the other; fetch the file again."
            )
        state[full] = state.pop(name)
    return state


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.float(), b.float())


FAMILY = Family(
    name="dinac",
    recognises=lambda config: (
        {"model_dim", "adaln_low_rank_rank", "encoder_mlp_type"} <= set(config)
    ),
    build=DinacAE.from_config,
    adapt=adapt,
    infer=infer,
    fp32_islands=is_fp32_island,
    tiny={
        "model_dim": 64,
        "encoder_depth": 1,
        "encoder_mlp_type": "gelu",
        "decoder_depth": 3,
        "decoder_start_blocks": 1,
        "decoder_end_blocks": 1,
        "bottleneck_dim": 8,
        "adaln_low_rank_rank": 4,
        "class_head_feature_dim": 64,
        "class_head_model_dim": 64,
    },
)
