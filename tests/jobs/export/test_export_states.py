"""The state of each latent space in each trainer's files, in numbers.

From one raw latent, which is encoded as the models' own code does it, and with the factors as the
trainers have them: what a file holds is computed here without the package's conversion.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.made_up_stores import Made, noise, write_store
from safetensors.torch import load

from latentcli.core.errors import UsageError
from latentcli.exports.formats import export_format
from latentcli.images.buckets import make_buckets
from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.options import ExportJob

EPS = 1e-4
BN = (0.37, 2.6)
"""Mean and variance of FLUX.2's batch norm, as made here."""

FACTORS = {
    "sd1": lambda z: z * 0.18215,
    "sdxl": lambda z: z * 0.13025,
    "sd3": lambda z: (z - 0.0609) * 1.5305,
    "flux1": lambda z: (z - 0.1159) * 0.3611,
    "flux2": lambda z: (z - BN[0]) / math.sqrt(BN[1] + EPS),
}
"""From raw latents to those that a model is trained on, as the trainers compute them."""

WHITENING = {
    "sd1": (0.0, 1 / 0.18215),
    "sdxl": (0.0, 1 / 0.13025),
    "sd3": (0.0609, 1 / 1.5305),
    "flux1": (0.1159, 1 / 0.3611),
    "flux2": (BN[0], math.sqrt(BN[1] + EPS)),
}
"""What a store's manifest says of them."""

TABLE = {
    ("kohya", "sd", "sd1"): "raw",
    ("kohya", "sdxl", "sdxl"): "raw",
    ("kohya", "sd3", "sd3"): "raw",
    ("kohya", "flux", "flux1"): "model",
    ("kohya", "lumina", "flux1"): "model",
    ("musubi", "z_image", "flux1"): "raw",
    ("musubi", "flux2_dev", "flux2"): "model",
    ("musubi", "flux2_klein_4b", "flux2"): "model",
    ("musubi", "flux2_klein_9b", "flux2"): "model",
    ("simpletuner", "sd1", "sd1"): "model",
    ("simpletuner", "sdxl", "sdxl"): "model",
    ("simpletuner", "sd3", "sd3"): "model",
    ("simpletuner", "flux1", "flux1"): "model",
    ("simpletuner", "flux2", "flux2"): "model",
    ("ai-toolkit", "sd1", "sd1"): "model",
    ("ai-toolkit", "sdxl", "sdxl"): "model",
    ("ai-toolkit", "sd3", "sd3"): "model",
    ("ai-toolkit", "flux", "flux1"): "model",
    ("ai-toolkit", "flux_kontext", "flux1"): "model",
    ("ai-toolkit", "chroma", "flux1"): "model",
    ("ai-toolkit", "zimage", "flux1"): "model",
    ("ai-toolkit", "flux2", "flux2"): "model",
    ("ai-toolkit", "flux2_klein_4b", "flux2"): "model",
    ("ai-toolkit", "flux2_klein_9b", "flux2"): "model",
    ("comfyui", "sd1", "sd1"): "raw",
    ("comfyui", "sdxl", "sdxl"): "raw",
    ("comfyui", "sd3", "sd3"): "raw",
    ("comfyui", "flux1", "flux1"): "raw",
    ("comfyui", "flux2", "flux2"): "model",
}
"""What each trainer expects: raw latents, or those that its model is trained on."""

CHANNELS = {"sd1": 4, "sdxl": 4, "sd3": 16, "flux1": 16, "flux2": 128}


def read_npz(data):
    arrays = np.load(io.BytesIO(data))
    (key,) = (key for key in arrays if key.split("_")[0] == "latents" and "flipped" not in key)
    return torch.from_numpy(arrays[key])


def read_pt(data):
    return torch.load(io.BytesIO(data), weights_only=True)


def read_tensor(data):
    (value,) = (tensor for tensor in load(data).values() if tensor.numel())
    return value.float().reshape(value.shape[-3:])


READERS = {".npz": read_npz, ".pt": read_pt, ".safetensors": read_tensor, ".latent": read_tensor}


def stored(space: str, state: str, raw: torch.Tensor, rule: str, step: int, path: Path) -> Path:
    """A store of one latent, in a state, in float32."""
    downscale = 16 if space == "flux2" else 8
    size = raw.shape[-1] * downscale, raw.shape[-2] * downscale
    parts = {
        "raw": {"latent": raw},
        "normal": {"latent": FACTORS[space](raw)},
        "moments": {"mean": raw, "logvar": torch.full_like(raw, -30.0)},
    }[state]
    normal = "whitened" if space == "flux2" else "scaled"
    one = Made(
        key="a/picture",
        parts=parts,
        original_size=size,
        resized_size=size,
        crop=(0, 0, *size),
    )
    known = {"resize": "crop", "size": list(size), "divisor": downscale}
    if rule:
        buckets = make_buckets(rule, size[0], step, downscale).described()
        known = {"resize": "bucket", "size": None, "divisor": downscale, "buckets": buckets}
    more = {"latents": {"moments": ["mean", "logvar"]}} if state == "moments" else {}
    return write_store(
        path,
        [one],
        space,
        {"normal": normal}.get(state, state),
        preprocess=known,
        whitening=WHITENING[space],
        **more,
    )


@pytest.mark.parametrize("have", ["normal", "raw", "moments"])
@pytest.mark.parametrize("case", TABLE, ids="-".join)
def test_the_value_in_the_file(case, have, tmp_path):
    name, arch, space = case
    format = export_format(name)
    # Values of raw latents of either sign, and of the size that they have.
    raw = noise(CHANNELS[space], 8, 8, seed=3) * 4 + 0.5
    # A rule that takes one size for all is left to the contract tests.
    rule = "" if format.unbucketed else format.rule
    step = next(one.step for one in format.variants if one.name == arch) or 16
    store = stored(space, have, raw, rule, step, tmp_path / "s.latents")
    job = ExportJob(
        store=str(store),
        to=name,
        arch=arch,
        output=str(tmp_path / "out"),
        file_dtype="float32",
    )
    document = run_export(job)
    (path,) = (p for p in (tmp_path / "out").rglob("*") if p.suffix in READERS)
    found = READERS[path.suffix](path.read_bytes())
    expected = raw if TABLE[case] == "raw" else FACTORS[space](raw)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
    # The other state is far away: the test would notice.
    other = FACTORS[space](raw) if TABLE[case] == "raw" else raw
    assert (found - other).abs().mean() > 0.5
    assert document["latent_space"].startswith(f"{space}#")


def test_the_table_has_every_variant():
    names = ("kohya", "musubi", "simpletuner", "ai-toolkit", "comfyui")
    variants = {
        (name, one.name, space)
        for name in names
        for one in export_format(name).variants
        for space in one.spaces
    }
    assert variants == TABLE.keys()


@pytest.mark.parametrize("arch, space", [("flux", "flux1"), ("z_image", "flux1")])
def test_other_states_cannot_be_asked_for(arch, space, tmp_path):
    name = "kohya" if arch == "flux" else "musubi"
    store = stored(space, "normal", noise(16, 8, 8), "", 16, tmp_path / "s.latents")
    wrong = "raw" if arch == "flux" else "scaled"
    job = ExportJob(store=str(store), to=name, arch=arch, latents=wrong, output=str(tmp_path / "o"))
    with pytest.raises(UsageError, match=f"--latents is {wrong}"):
        run_export(job)
