"""Exports are read back by `decode` as what they are: latents in the state of their format."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from exportkit import cases, samples_for, store_for
from harness.made_up_stores import SPACES

from latentcli import open_store
from latentcli.exports.formats import export_format
from latentcli.jobs.decode.open_latents import open_latents
from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.options import ExportJob

FORMATS = ("kohya", "musubi", "simpletuner", "ai-toolkit", "comfyui")


@pytest.mark.parametrize("name, arch, space", [case for case in cases() if case[0] in FORMATS])
def test_decode_reads_what_was_in_the_store(name, arch, space, tmp_path):
    format = export_format(name)
    samples = samples_for(format, space, count=3)
    store = open_store(str(store_for(tmp_path / "s.latents", format, space, samples, arch)))
    out = tmp_path / "out"
    job = ExportJob(store=str(store.path), to=name, arch=arch, output=str(out))
    document = run_export(replace(job, file_dtype="float32"))
    source = open_latents(out, None)
    assert source.count == 3
    assert source.space in (None, space)
    state = document["latent_space"].rpartition("#")[2]
    assert source.state == state
    found = {one.key: one.load() for one in source.samples(source.units)}
    expected = [store.in_state(store[key], state) for key in store]
    mean, std = SPACES[space][1]
    assert len(found) == 3
    for latent in expected:
        near = min(found.values(), key=lambda other: (other - latent).abs().max().item())
        torch.testing.assert_close(near.float(), latent, rtol=1e-6, atol=1e-6)
        # What a model decodes: its own latents.
        own = (near.float() - mean) / std if state == "raw" else near.float()
        assert min((own - store[key].float()).abs().max().item() for key in store) < 1e-5
