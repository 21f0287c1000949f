"""A published model's figures on real photographs are those that were stated of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.job import run_roundtrip

STATED = {"psnr": ("psnr", 0.01), "ssim": ("sk7", 0.0005), "ssim_gaussian": ("g11", 0.0005)}
"""Our measure to the name of the stated one and what it may differ by."""
FEW = ("kodim13.png",)


def check(shared: Path, tmp_path: Path, sources: list[Path]) -> None:
    job = RoundtripJob(
        sources=tuple(map(str, sources)),
        models=("taef2",),
        weights=str(shared / "weights" / "taef2"),
        device="cpu",
        csv=str(tmp_path / "figures.csv"),
    )
    assert run_roundtrip(job)["images"] == len(sources)
    reference = json.loads((shared / "facts" / "parity" / "taef2_reference.json").read_text())
    stated = reference["kodak"]["per_image"]
    with (tmp_path / "figures.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            told = stated[f"{row['key']}.png"]
            assert [int(row["width"]), int(row["height"])] == told["size"]
            for measure, (name, tolerance) in STATED.items():
                found = float(row[f"taef2.{measure}"])
                assert found == pytest.approx(told[name], abs=tolerance), (row["key"], measure)


@pytest.mark.shared
def test_a_photograph(shared, tmp_path):
    check(shared, tmp_path, [shared / "images" / "kodak" / name for name in FEW])


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.timeout(1800)
def test_all_of_kodak(shared, tmp_path):
    photographs = sorted((shared / "images" / "kodak").glob("*.png"))
    assert len(photographs) == 24
    check(shared, tmp_path, photographs)
