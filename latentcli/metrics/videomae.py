"""Defines the VideoMAE V2 vision transformer, which gives one feature vector for a clip.

Wang et al. 2023, "VideoMAE V2: Scaling Video Masked Autoencoders with Dual Masking". Content
debiased FVD (Ge et al. 2024) is the Frechet distance over these features: the layer norm of the
mean over all tokens, before the classifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentcli.core.errors import WeightsError

EPS = 1e-6
LISTED = 8
"""How many names of each kind of misfit an error lists."""
POSITIONS = "pos_embed"


@dataclass(frozen=True, kw_only=True)
class VideoMaeConfig:
    """The sizes of a network; ValueError where they do not go together."""

    dim: int
    depth: int
    heads: int
    hidden: int
    """Width inside a block's MLP."""
    patch: int
    """Pixels along a side of a token."""
    tubelet: int = 2
    """Frames of a token."""
    frames: int = 16
    """Frames and side that the position embedding is made for; others are interpolated."""
    size: int = 224
    classes: int = 174
    """Of the classifier, which is loaded and not used."""

    def __post_init__(self) -> None:
        if any(type(value) is not int or value < 1 for value in vars(self).values()):
            raise ValueError("every size must be a whole number of at least 1")
        if self.dim % self.heads or self.size % self.patch or self.frames % self.tubelet:
            raise ValueError(
                "dim must be a multiple of heads, size of patch, and frames of tubelet"
            )

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tokens along time, height and width; ValueError where frames do not divide into them."""
        if frames % self.tubelet or height % self.patch or width % self.patch or not frames:
            raise ValueError(
                f"clips are {frames} frames of {width}x{height}; frames must be a multiple of"
                f" {self.tubelet}, and sides of {self.patch}"
            )
        return frames // self.tubelet, height // self.patch, width // self.patch

    @property
    def own_grid(self) -> tuple[int, int, int]:
        """Tokens of a clip of `frames` and `size`."""
        return self.grid(self.frames, self.size, self.size)


GIANT = VideoMaeConfig(dim=1408, depth=40, heads=16, hidden=1408 * 48 // 11, patch=14)
"""Of the file vit_g_hybrid_pt_1200e_ssv2_ft.pth: 1,011,855,918 values."""


class Attention(nn.Module):
    """Self-attention of all tokens; queries and values have a bias, keys have none."""

    def __init__(self, config: VideoMaeConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(config.dim))
        self.v_bias = nn.Parameter(torch.zeros(config.dim))
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, dim] to the same."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        parts = F.linear(x, self.qkv.weight, bias)
        q, k, v = parts.view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, config: VideoMaeConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.dim, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, dim] to the same."""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A transformer block with its norms in front."""

    def __init__(self, config: VideoMaeConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=EPS)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=EPS)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, dim] to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class PatchEmbed(nn.Module):
    """Tubes of pixels to tokens, in the order time, height, width."""

    def __init__(self, config: VideoMaeConfig) -> None:
        super().__init__()
        tube = (config.tubelet, config.patch, config.patch)
        self.proj = nn.Conv3d(3, config.dim, tube, stride=tube)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, T, H, W] to [N, L, dim]."""
        return self.proj(x).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class VideoMae(nn.Module):
    """The network; its tensors have the names of the published checkpoints."""

    def __init__(self, config: VideoMaeConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.fc_norm = nn.LayerNorm(config.dim, eps=EPS)
        self.head = nn.Linear(config.dim, config.classes)
        self.positions = torch.zeros(0)
        """float32 [L, dim], set by `load_videomae`; no part of the state dict."""

    def forward_features(self, clips: Tensor) -> Tensor:
        """float32 [N, 3, T, H, W] in [0, 1] to float32 [N, dim].

        T need not be the config's frames, nor H and W its size: `positions_for` says what is done.
        ValueError where they are no multiples of tubelet and patch.
        """
        grid = self.config.grid(*clips.shape[2:])
        x = self.patch_embed(clips)
        x = x + positions_for(self.positions, self.config.own_grid, grid).to(x)
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x.mean(1))  # type: ignore[no-any-return]


def sinusoids(length: int, dim: int) -> Tensor:
    """Float32 [length, dim] of Vaswani et al. 2017: sine in even columns, cosine in odd ones."""
    columns = torch.arange(dim, dtype=torch.float64)
    rates = 10000.0 ** (-2 * (columns // 2) / dim)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos()).float()


def positions_for(table: Tensor, own: tuple[int, int, int], grid: tuple[int, int, int]) -> Tensor:
    """A table [L, dim] of the `own` grid of tokens, as [L', dim] of another.

    Height and width are interpolated bicubically, then time linearly, each only where it differs
    and without aligned corners, so that 8 frames span the positions that 16 had.
    """
    if grid == own:
        return table
    maps = table.view(*own, -1).permute(0, 3, 1, 2)  # T, dim, H, W
    if grid[1:] != own[1:]:
        maps = F.interpolate(maps, size=grid[1:], mode="bicubic", align_corners=False)
    if grid[0] != own[0]:
        lines = maps.permute(2, 3, 1, 0).flatten(0, 1)  # HW, dim, T
        lines = F.interpolate(lines, size=grid[0], mode="linear", align_corners=False)
        maps = lines.view(*grid[1:], *lines.shape[1:]).permute(3, 2, 0, 1)
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def load_videomae(
    config: VideoMaeConfig, state: Mapping[str, Tensor], source: str, device: torch.device | str
) -> VideoMae:
    """The network with its weights, float32 on `device`, frozen.

    It is built without memory first. A stored position embedding [1, L, dim] is used; without one
    it is the sinusoids. WeightsError lists names that are missing or extra and other shapes;
    `source` names the file.
    """
    with torch.device("meta"):
        model = VideoMae(config)
    length = config.own_grid[0] * config.own_grid[1] * config.own_grid[2]
    given = dict(state)
    stored = given.pop(POSITIONS, None)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in given.items()}
    if stored is not None:
        found[POSITIONS] = stored.shape
        expected[POSITIONS] = torch.Size((1, length, config.dim))
    _check_fit(expected, found, source)
    ready = {name: tensor.to(device, torch.float32) for name, tensor in given.items()}
    model.load_state_dict(ready, strict=True, assign=True)
    table = sinusoids(length, config.dim) if stored is None else stored[0].float()
    model.positions = table.to(device)
    return model.requires_grad_(False).eval()


def _check_fit(
    expected: Mapping[str, torch.Size], found: Mapping[str, torch.Size], source: str
) -> None:
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misfits = [
        f"{name} (expected {list(shape)}, found {list(found[name])})"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if missing or extra or misfits:
        kinds = (("missing", missing), ("extra", extra), ("of another shape", misfits))
        lines = [f"  {len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]
        raise WeightsError(
            f"The weights in {source} are not those of this VideoMAE V2 network, which has"
            f" {len(expected)} tensors; the file has {len(found)}:\n" + "\n".join(lines)
        )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
