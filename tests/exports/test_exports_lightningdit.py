"""LightningDiT's files: its own writer's, and statistics over groups."""

from __future__ import annotations

import io
import json

import pytest
import torch
from goldens import golden, sample, setting
from safetensors import safe_open
from safetensors.torch import load

from latentcli.exports.lightningdit import FORMAT, advice


def groups_of(latents, flips, labels, size):
    rows = [
        sample(
            latents[i],
            f"{i}",
            index=i,
            label=labels[i],
            mirrored=None if flips is None else flips[i],
        )
        for i in range(len(latents))
    ]
    given = setting(FORMAT, "any")
    return [
        FORMAT.write(rows[at : at + size], number, given)
        for number, at in enumerate(range(0, len(rows), size))
    ]


def statistics(groups):
    facts = [json.loads(json.dumps(group.facts)) for group in groups]
    (file,) = FORMAT.finish(facts, setting(FORMAT, "any"))
    assert file.path == "latents_stats.pt"
    return torch.load(io.BytesIO(file.data))


@pytest.mark.shared
def test_the_trainers_own_files(shared, tmp_path):
    _, inputs, files = golden(shared, "lightningdit")
    groups = groups_of(inputs["latents"], inputs["latents_flip"], inputs["labels"].tolist(), 8)
    names = sorted(name for name in files if name.endswith(".safetensors"))
    for name, group in zip(names, groups, strict=True):
        (file,) = group.files
        assert file.path == name.replace("shard000", "shard000000").replace("001.", "000001.")
        (tmp_path / "ours").write_bytes(file.data)
        (tmp_path / "theirs").write_bytes(files[name])
        with (
            safe_open(tmp_path / "ours", "pt") as ours,
            safe_open(tmp_path / "theirs", "pt") as own,
        ):
            assert ours.metadata() == own.metadata()
            keys = sorted(own.keys())
            assert sorted(ours.keys()) == keys
            for key in keys:
                mine, wanted = ours.get_tensor(key), own.get_tensor(key)
                assert mine.dtype == wanted.dtype and torch.equal(mine, wanted)
    ours, own = statistics(groups), torch.load(io.BytesIO(files["latents_stats.pt"]))
    assert ours.keys() == own.keys()
    for key, wanted in own.items():
        assert ours[key].dtype == wanted.dtype and ours[key].shape == wanted.shape
        torch.testing.assert_close(ours[key], wanted, rtol=1e-5, atol=1e-6)


def test_without_mirrored_latents_both_are_the_same():
    latents = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 4 + 100
    groups = groups_of(latents, None, [0, 1, 0, 7, 2], 2)
    assert [group.files[0].path[-11:] for group in groups] == ["safetensors"] * 3
    first = load(bytes(groups[0].files[0].data))
    assert torch.equal(first["latents"], first["latents_flip"])
    assert "latents_flip holds the same latents again" in advice(setting(FORMAT, "any"))[1]
    assert len(advice(setting(FORMAT, "any", mirrored=True))) == 1
    told = statistics(groups)
    torch.testing.assert_close(told["mean"].flatten(), latents.mean((0, 2, 3)))
    torch.testing.assert_close(told["std"].flatten(), latents.transpose(0, 1).flatten(1).std(1))
