"""From files of features to the --json document: figures, refusals and notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from latentcli.cli.app import main
from latentcli.core.errors import UsageError
from latentcli.jobs.video import feature_file as features
from latentcli.jobs.video.config import VideoDistanceJob
from latentcli.jobs.video.distance import run_video_distance
from latentcli.jobs.video.feature_file import FeatureSpool, write_features

MADE = {"extractor": "videomae_v2_giant", "frames": "16", "size": "224x224", "preprocess": "p"}


def rows(seed: int, count: int = 40, dim: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + seed).astype(np.float32)


def feature_file(path: Path, values: np.ndarray, **told: str) -> Path:
    spool = FeatureSpool(values.shape[1])
    spool.add(torch.from_numpy(values))
    write_features(path, spool, MADE | told)
    return path


@pytest.fixture
def pair(tmp_path):
    files = [feature_file(tmp_path / f"{i}.safetensors", rows(i)) for i in range(2)]
    return {"a": str(files[0]), "b": str(files[1])}


def distance(**settings: Any) -> dict[str, Any]:
    return run_video_distance(VideoDistanceJob(**settings))


def expected(x: np.ndarray, y: np.ndarray, centred: bool) -> float:
    x, y = x.astype(float), y.astype(float)
    first, second = (
        np.cov(z, rowvar=False, bias=True) if centred else z.T @ z / len(z) for z in (x, y)
    )
    root = scipy.linalg.sqrtm(first @ second).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)


@pytest.mark.parametrize("chunk", [7, 4096])
def test_equals_scipy(chunk, pair, monkeypatch):
    monkeypatch.setattr(features, "ROWS", chunk)
    found = distance(**pair)
    assert found["distance"] == pytest.approx(expected(rows(0), rows(1), True), rel=1e-8)
    assert found["notes"] == []
    part = {"path": pair["a"], "rows": 40, "dim": 6, **MADE}
    assert found["a"] == part | {"weights_sha256": None, "stride": None, "autoencoder": None}


def test_uncentred(pair):
    found = distance(**pair, compat="uncentred")
    assert found["distance"] == pytest.approx(expected(rows(0), rows(1), False), rel=1e-8)
    assert "raw second moments in place of covariances" in found["notes"][0]
    with pytest.raises(UsageError, match="--compat is 'raw'; allowed are centred, uncentred"):
        distance(**pair, compat="raw")


def test_files_that_were_made_differently(pair, tmp_path):
    other = feature_file(tmp_path / "8.safetensors", rows(2), frames="8", preprocess="q")
    settings = {"a": pair["a"], "b": str(other)}
    with pytest.raises(UsageError) as told:
        distance(**settings)
    assert "frames is '16' and '8'; preprocess is 'p' and 'q'" in str(told.value)
    assert pair["a"] in str(told.value) and str(other) in str(told.value)
    assert "--force" in str(told.value)
    assert "frames is '16' and '8'" in distance(**settings, force=True)["notes"][0]


def test_an_autoencoder_is_what_differs(pair, tmp_path):
    through = feature_file(tmp_path / "t.safetensors", rows(1), autoencoder="flux2")
    found = distance(a=pair["a"], b=str(through))
    assert found["b"]["autoencoder"] == "flux2"
    assert found["distance"] == distance(**pair)["distance"]


def test_other_dimensions_and_few_rows(pair, tmp_path):
    np.save(tmp_path / "wide.npy", rows(1, dim=7))
    with pytest.raises(UsageError, match=r"have 6 values in .* and 7 in "):
        distance(a=pair["a"], b=str(tmp_path / "wide.npy"), force=True)
    np.save(tmp_path / "few.npy", rows(1, count=5))
    notes = distance(a=pair["a"], b=str(tmp_path / "few.npy"))["notes"]
    assert "has 5 rows for 6 dimensions, so its covariance is singular" in notes[0]
    assert "does not say how the features were made" in notes[1]


def test_the_command(pair, tmp_path, capsys):
    assert main(["video-distance", pair["a"], pair["b"], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == distance(**pair)
    np.save(tmp_path / "b.npy", rows(1))
    assert main(["video-distance", pair["a"], str(tmp_path / "b.npy")]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0].split() == ["distance", f"{document['distance']:.6g}"]
    assert "0.safetensors (40 x 6, videomae_v2_giant)" in told.out
    assert told.err.startswith(f"{tmp_path / 'b.npy'} does not say")
    assert main(["video-distance", pair["a"], str(tmp_path / "b.npy"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["video-distance", pair["a"]]) == 2
    assert "Give two files of features" in capsys.readouterr().err


def test_values_too_large_to_square(tmp_path):
    for name, scale in (("a", 1.0), ("b", 1e200)):
        np.save(tmp_path / f"{name}.npy", rows(0).astype(np.float64) * scale)
    with pytest.raises(UsageError, match=r"a\.npy and .*b\.npy: features are so large"):
        distance(a=str(tmp_path / "a.npy"), b=str(tmp_path / "b.npy"))
