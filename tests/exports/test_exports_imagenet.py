"""EDM2's, REPA's, fast-DiT's and MAR's files: their own writers', and numbers of each state."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from goldens import golden, sample, setting

from latentcli.exports import edm2, fast_dit, mar, repa
from latentcli.exports.format import Moments


def moments(mean, std):
    return Moments(mean, std, 2 * std.log())


def written(format, samples, setting):
    """All files, of two groups."""
    groups = [
        format.write(part, i, setting) for i, part in enumerate((samples[:3], samples[3:])) if part
    ]
    facts = [json.loads(json.dumps(group.facts)) for group in groups]
    files = [file for group in groups for file in group.files]
    files += format.finish(facts, setting)
    return {file.path: bytes(file.data) for file in files}, facts


def classes(order):
    """(name without suffix, picture, class) of each sample."""
    names = sorted({path.partition("/")[0] for path in order})
    return [
        (str(PurePosixPath(p).with_suffix("")), f"/data/{p}", names.index(p.partition("/")[0]))
        for p in order
    ]


def gaussians(meta, inputs):
    return [
        sample(
            inputs["mean"][i],
            name,
            index=i,
            label=label,
            picture=picture,
            moments=moments(inputs["mean"][i], inputs["std"][i]),
        )
        for i, (name, picture, label) in enumerate(classes(meta["order"]))
    ]


@pytest.mark.shared
def test_edm2s_own_zip(shared):
    meta, inputs, files = golden(shared, "edm2_zip")
    ours, _ = written(edm2.FORMAT, gaussians(meta, inputs), setting(edm2.FORMAT, "sd"))
    with zipfile.ZipFile(io.BytesIO(files["set.zip"])) as archive:
        theirs = {name: archive.read(name) for name in archive.namelist()}
    assert ours.pop(edm2.STATISTICS)
    assert ours == theirs


@pytest.mark.shared
def test_repas_own_folder(shared):
    meta, inputs, files = golden(shared, "repa_folder")
    ours, _ = written(repa.FORMAT, gaussians(meta, inputs), setting(repa.FORMAT, "sd"))
    assert ours == files


@pytest.mark.shared
def test_fast_dits_own_files(shared):
    meta, inputs, files = golden(shared, "fast_dit")
    scaled = inputs["sample_raw"] * meta["scale"]
    rows = [
        sample(scaled[i], name, index=i, label=label)
        for i, (name, _, label) in enumerate(classes(meta["order"]))
    ]
    ours, _ = written(fast_dit.FORMAT, rows, setting(fast_dit.FORMAT, "dit"))
    assert ours == files


@pytest.mark.shared
def test_mars_own_files(shared):
    meta, inputs, files = golden(shared, "mar")

    def halves(tensor):
        mean, logvar = tensor.chunk(2)
        return Moments(mean, (logvar / 2).exp(), logvar)

    rows = [
        sample(
            halves(inputs["moments"][i]).mean,
            name,
            index=i,
            label=label,
            picture=picture,
            moments=halves(inputs["moments"][i]),
            mirrored_moments=halves(inputs["moments_flip"][i]),
        )
        for i, (name, picture, label) in enumerate(classes(meta["order"]))
    ]
    ours, _ = written(mar.FORMAT, rows, setting(mar.FORMAT, "any", labels=("n01", "n02")))
    assert ours == files


def test_edm2s_statistics_are_those_of_samples():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(70, 4, 8, 8, generator=generator) * 3 + 5
    std = torch.rand(70, 4, 8, 8, generator=generator) * 2
    rows = [
        sample(mean[i], f"{i}", index=i, moments=moments(mean[i], std[i])) for i in range(len(mean))
    ]
    files, facts = written(edm2.FORMAT, rows, setting(edm2.FORMAT, "sd"))
    assert json.loads(files["dataset.json"]) == {"labels": None}
    told = json.loads(files[edm2.STATISTICS])
    drawn = mean + std * torch.randn(200, *mean.shape, generator=generator)
    expected = drawn.transpose(2, 0).flatten(1) if drawn.ndim == 4 else drawn.movedim(2, 0)
    assert told["raw_mean"] == pytest.approx(expected.flatten(1).mean(1).tolist(), abs=0.02)
    assert told["raw_std"] == pytest.approx(expected.flatten(1).std(1).tolist(), abs=0.02)
    (line,) = edm2.FORMAT.closing(facts, setting(edm2.FORMAT, "sd"))
    assert f"raw_mean={told['raw_mean']}" in line and f"raw_std={told['raw_std']}" in line


def test_mar_warns_of_numbers_with_gaps_and_tells_its_factor():
    mean, std = torch.full((2, 2, 2), 3.0), torch.full((2, 2, 2), 0.5)
    rows = [
        sample(mean, "a", label=2, picture="/p/a.jpg", moments=moments(mean, std)),
        sample(-mean, "b/c", label=11, moments=moments(-mean, std)),
    ]
    files, facts = written(mar.FORMAT, rows, setting(mar.FORMAT, "any"))
    assert [*files] == ["000002/a.jpg.npz", "000011/b/c.npz"]
    factor, gaps = mar.FORMAT.closing(facts, setting(mar.FORMAT, "any"))
    assert f"{1 / (9 + 0.25) ** 0.5:.4f}" in factor
    assert "2 classes with numbers from 2 to 11" in gaps
    assert "moments_flip holds the same latents again" in mar.advice(setting(mar.FORMAT, "any"))[1]
    assert len(mar.advice(setting(mar.FORMAT, "any", mirrored=True))) == 1
    arrays = np.load(io.BytesIO(files["000002/a.jpg.npz"]))
    np.testing.assert_array_equal(arrays["moments"], arrays["moments_flip"])
