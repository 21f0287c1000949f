"""`video-embed` and `video-distance` as they are typed: variables, job files and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clikit import Run


def files(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for name, shift in (("a", 0.0), ("b", 1.0)):
        np.save(folder / f"{name}.npy", rng.normal(size=(500, 4)) + shift)
    return [str(folder / "a.npy"), str(folder / "b.npy")]


def test_variables_set_options(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = files(tmp_path)
    assert cli("video-distance", *pair, "--json").document["compat"] == "centred"
    monkeypatch.setenv("LATENTCLI_COMPAT", "uncentred")
    assert cli("video-distance", *pair, "--json").document["compat"] == "uncentred"
    again = cli("video-distance", *pair, "--compat", "centred", "--json")
    assert again.document["compat"] == "centred"
    assert again.document["distance"] == pytest.approx(4, abs=0.8)


def test_a_job_file_sets_options(cli: Run, tmp_path: Path) -> None:
    pair, path = files(tmp_path), tmp_path / "job.toml"
    path.write_text('verb = "video-distance"\n[measure]\ncompat = "uncentred"\n')
    found = cli("video-distance", *pair, "--config", path, "--json")
    assert found.document["compat"] == "uncentred"
    path.write_text('[measure]\ncompt = "uncentred"\n')
    found = cli("video-distance", *pair, "--config", path)
    assert (found.code, "did you mean 'compat'" in found.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["video-embed", "-o", "f.safetensors"], "Give what to read"),
        (["video-embed", "x", "-o", "f.safetensors", "--frames", "some"], "--frames is 'some'"),
        (["video-embed", ".", "-o", "f.npy"], "must end in .safetensors"),
        (["video-distance", "a.npy", "b.npy"], "There is no file a.npy"),
        (["video-distance", "a.npy", "b.pkl", "--compat", "raw"], "allowed are centred"),
    ],
)
def test_wrong_usage(
    cli: Run, words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
