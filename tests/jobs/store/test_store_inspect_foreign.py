"""inspect of trainers' caches: whose they are, how many, their sizes, types, values and faults."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from jobkit import cli
from safetensors.torch import save_file

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.store.inspect import inspect_store
from latentcli.reports.tables import facts_table, foreign_facts

DATA = Path(__file__).parents[2] / "data" / "trainers"


@pytest.mark.parametrize(
    ("name", "format", "space", "count", "dtype", "sizes"),
    [
        ("kohya/sdxl", "kohya's sd-scripts (_sdxl)", "sdxl#raw", 1, "float32", {"4x16x16": 1}),
        ("musubi/z_image", "musubi-tuner (zi)", "flux1#raw", 1, "bfloat16", {"16x8x12": 1}),
        ("simpletuner/flux2", "SimpleTuner", "flux2#whitened", 1, "bfloat16", {"128x7x7": 1}),
        ("ai_toolkit/sdxl_flip", "ai-toolkit", "sdxl#scaled", 2, "float32", {"4x14x18": 2}),
        ("lightningdit", "LightningDiT", None, 10, "float32", {"8x2x2": 10}),
        ("comfyui", "ComfyUI", None, 2, "float32", {"16x6x4": 2}),
    ],
)
def test_what_trainers_wrote(name, format, space, count, dtype, sizes) -> None:
    found = inspect_store(str(DATA / name))
    assert (found["format"], found["latent_space"]) == (format, space)
    assert (found["encoded"], found["failed"], found["dtypes"]) == (count, 0, {dtype: count})
    assert found["latent_sizes"] == sizes and found["advice"] is None
    assert found["not_finite"] == {"count": 0, "keys": []}
    (first, *_) = sizes
    assert len(found["channels"]["mean"]) == int(first.partition("x")[0])
    facts = foreign_facts(found)
    assert facts["latents of"] == format and facts["values"] == "all finite"
    assert facts_table(facts).row_count >= 8


def test_the_figures_of_channels(tmp_path) -> None:
    torch.manual_seed(0)
    latents = [torch.randn(4, 3, 5) * 2 + 1, torch.randn(4, 2, 2)]
    for number, latent in enumerate(latents):
        np.savez(tmp_path / f"{number}_0032x0032_sd.npz", latents=latent.numpy())
    found = inspect_store(str(tmp_path))
    flat = torch.cat([latent.flatten(1) for latent in latents], dim=1).double()
    for name, wanted in {
        "mean": flat.mean(1),
        "std": flat.std(1, correction=0),
        "min": flat.amin(1),
        "max": flat.amax(1),
    }.items():
        assert found["channels"][name] == pytest.approx(wanted.tolist(), rel=1e-6)
    assert found["files"] == 2
    assert found["bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    one = inspect_store(str(tmp_path / "1_0032x0032_sd.npz"))
    assert (one["encoded"], one["latent_sizes"]) == (1, {"4x2x2": 1})


def test_faults_are_counted_and_named_and_end_with_3(tmp_path) -> None:
    shutil.copytree(DATA / "kohya" / "sdxl", tmp_path / "set")
    spoiled = np.zeros((4, 2, 2), np.float32)
    spoiled[1, 0, 0] = np.nan
    np.savez(tmp_path / "set" / "bad_0032x0032_sdxl.npz", latents=spoiled)
    np.savez(tmp_path / "set" / "dog_0032x0032_sdxl.npz", latents=np.zeros((16, 2, 2), np.float32))
    (tmp_path / "set" / "ewe_0032x0032_sdxl.npz").write_bytes(b"short")
    found = inspect_store(str(tmp_path / "set"))
    assert (found["encoded"], found["failed"]) == (2, 2)
    assert found["not_finite"] == {"count": 1, "keys": ["bad"]}
    assert found["damaged"]["count"] == 3
    said = "; ".join(found["damaged"]["problems"])
    assert "dog: it has 16 channels, those before 4" in said
    assert "ewe_0032x0032_sdxl.npz is damaged" in said and "bad: it has values that are not" in said
    ended = cli("inspect", tmp_path / "set")
    assert ended.returncode == 3
    assert "not finite in 1 latents" in ended.stdout and "3 of its latents cannot" in ended.stderr


def test_what_inspect_refuses(tmp_path) -> None:
    with pytest.raises(UsageError, match="--report is for stores"):
        inspect_store(str(DATA / "comfyui"), report=str(tmp_path / "page"))
    with pytest.raises(StoreError, match="no model here decodes"):
        inspect_store(str(DATA / "musubi" / "qwen_image"))
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(StoreError):
        inspect_store(str(tmp_path / "plain.safetensors"))
