"""VideoMAE V2: its arithmetic against other formulations, its tensors, and files that are wrong."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from harness.videomae import TINY, tiny_state

from latentcli.core.errors import WeightsError
from latentcli.metrics.videomae import (
    GIANT,
    VideoMae,
    VideoMaeConfig,
    load_videomae,
    positions_for,
    sinusoids,
)


def loaded(**changes: torch.Tensor) -> VideoMae:
    return load_videomae(TINY, tiny_state() | changes, "a file", "cpu")


def clips(count: int = 2, frames: int = 16, size: int = 56) -> torch.Tensor:
    return torch.rand(count, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


def test_parameters_of_the_giant() -> None:
    dim, hidden = 1408, 6144
    attention = 3 * dim * dim + 2 * dim + dim * dim + dim
    mlp = dim * hidden + hidden + hidden * dim + dim
    block = 2 * dim + attention + 2 * dim + mlp
    tokens = 3 * 2 * 14 * 14 * dim + dim
    expected = tokens + 40 * block + 2 * dim + dim * 174 + 174
    with torch.device("meta"):
        model = VideoMae(GIANT)
    assert sum(p.numel() for p in model.parameters()) == expected == 1_011_855_918
    assert len(model.state_dict()) == 2 + 40 * 13 + 2 + 2
    assert GIANT.own_grid == (8, 16, 16)


def test_tensor_names() -> None:
    blocks = (
        *("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"),
        *("attn.q_bias", "attn.v_bias", "attn.qkv.weight", "attn.proj.weight", "attn.proj.bias"),
        *("mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
    )
    outer = ("patch_embed.proj", "fc_norm", "head")
    expected = {f"blocks.{i}.{name}" for i in range(TINY.depth) for name in blocks}
    expected |= {f"{name}.{part}" for name in outer for part in ("weight", "bias")}
    assert VideoMae(TINY).state_dict().keys() == expected


def reference(state: dict[str, torch.Tensor], video: torch.Tensor) -> torch.Tensor:
    """The features by torch's packed attention, tubes cut by hand, in float64."""
    w = {name: tensor.double() for name, tensor in state.items()}
    n, _, frames, height, width = video.shape
    tubes = [
        video[:, :, t : t + 2, y : y + 14, x : x + 14].reshape(n, -1)
        for t in range(0, frames, 2)
        for y in range(0, height, 14)
        for x in range(0, width, 14)
    ]
    x = torch.stack(tubes, 1).double() @ w["patch_embed.proj.weight"].flatten(1).T
    x = x + w["patch_embed.proj.bias"]
    for pos in range(x.shape[1]):
        for j in range(TINY.dim):
            angle = pos / 10000 ** (2 * (j // 2) / TINY.dim)
            x[:, pos, j] += math.cos(angle) if j % 2 else math.sin(angle)
    for i in range(TINY.depth):
        b = {k.removeprefix(f"blocks.{i}."): v for k, v in w.items() if k.startswith(f"blocks.{i}")}
        y = F.layer_norm(x, (TINY.dim,), b["norm1.weight"], b["norm1.bias"], 1e-6).transpose(0, 1)
        bias = torch.cat([b["attn.q_bias"], 0 * b["attn.q_bias"], b["attn.v_bias"]])
        mixed, _ = F.multi_head_attention_forward(
            *(y, y, y, TINY.dim, TINY.heads, b["attn.qkv.weight"], bias, None, None, False, 0.0),
            *(b["attn.proj.weight"], b["attn.proj.bias"]),
        )
        x = x + mixed.transpose(0, 1)
        y = F.layer_norm(x, (TINY.dim,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        y = y @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"]
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        x = x + y @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"]
    return F.layer_norm(x.mean(1), (TINY.dim,), w["fc_norm.weight"], w["fc_norm.bias"], 1e-6)


@torch.inference_mode()
def test_features_equal_another_formulation() -> None:
    found = loaded().forward_features(clips())
    assert (found.shape, found.dtype) == ((2, TINY.dim), torch.float32)
    assert torch.allclose(found.double(), reference(tiny_state(), clips()), atol=2e-5)


@torch.inference_mode()
def test_tokens_come_by_time_then_height_then_width() -> None:
    net = loaded()
    video = torch.zeros(1, 3, 16, 56, 56)
    video[:, :, 6:8, 28:42, 14:28] = 1  # the fourth tubelet, third row, second column
    tokens = net.patch_embed(video)[0] - net.patch_embed(torch.zeros_like(video))[0]
    (lit,) = tokens.abs().sum(1).nonzero().flatten().tolist()
    assert lit == 3 * 16 + 2 * 4 + 1


@torch.inference_mode()
def test_a_stored_position_embedding_is_used() -> None:
    table = sinusoids(8 * 16, TINY.dim)
    same, other = loaded(pos_embed=table[None]), loaded(pos_embed=table[None].flip(1))
    found = loaded().forward_features(clips())
    assert torch.equal(same.forward_features(clips()), found)
    assert not torch.allclose(other.forward_features(clips()), found, atol=1e-3)


def test_positions_for_other_grids() -> None:
    own, grid = (8, 4, 4), (4, 4, 4)
    table = torch.randn(8 * 16, 6)
    assert positions_for(table, own, own) is table
    # Half the frames: each time is the mean of the two that it spans.
    maps = table.view(8, 16, 6)
    halved = positions_for(table, own, grid).view(4, 16, 6)
    assert torch.allclose(halved, (maps[0::2] + maps[1::2]) / 2, atol=1e-6)
    # Twice the side: time apart, each map is torch's bicubic one.
    wide = positions_for(table, own, (8, 8, 8)).view(8, 8, 8, 6)
    pictures = table.view(8, 4, 4, 6).permute(0, 3, 1, 2)
    wanted = F.interpolate(pictures, size=(8, 8), mode="bicubic", align_corners=False)
    assert torch.allclose(wide.permute(0, 3, 1, 2), wanted, atol=1e-6)
    both = positions_for(table, own, (3, 2, 6))
    assert both.shape == (3 * 2 * 6, 6)


@torch.inference_mode()
def test_other_frame_counts_and_sizes() -> None:
    net = loaded()
    for frames, size in ((8, 56), (16, 28), (2, 14)):
        found = net.forward_features(clips(1, frames, size))
        assert torch.isfinite(found).all()
    with pytest.raises(ValueError, match="frames must be a multiple of 2, and sides of 14"):
        net.forward_features(clips(1, 7, 56))
    with pytest.raises(ValueError, match=r"8 frames of 57x57; frames must"):
        net.forward_features(clips(1, 8, 57))


def test_half_precision_files_become_float32() -> None:
    net = load_videomae(TINY, {k: v.half() for k, v in tiny_state().items()}, "f", "cpu")
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in net.parameters())


def test_a_wrong_file_is_refused() -> None:
    state = tiny_state()
    del state["blocks.1.attn.q_bias"], state["fc_norm.weight"]
    state["blocks.2.norm1.weight"] = torch.zeros(24)
    state["head.weight"] = torch.zeros(710, 24)
    with pytest.raises(WeightsError) as told:
        load_videomae(TINY, state, "vit.pth", "cpu")
    lines = str(told.value).splitlines()
    assert lines[0].startswith("The weights in vit.pth are not those of this VideoMAE V2 network")
    assert lines[1:] == [
        "  2 missing: blocks.1.attn.q_bias, fc_norm.weight",
        "  1 extra: blocks.2.norm1.weight",
        "  1 of another shape: head.weight (expected [5, 24], found [710, 24])",
    ]
    with pytest.raises(WeightsError, match=r"pos_embed \(expected \[1, 128, 24\], found"):
        loaded(pos_embed=torch.zeros(1, 64, 24))


@pytest.mark.parametrize("change", [{"heads": 5}, {"size": 57}, {"frames": 7}, {"depth": 0}])
def test_sizes_that_do_not_go_together(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        VideoMaeConfig(**{**vars(TINY), **change})
