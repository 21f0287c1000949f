"""`latentcli inspect --report`: a page, its figures as JSON, and plain refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from clikit import Run


@pytest.fixture
def store(cli: Run, pictures: Path, tiny_model: Path, tmp_path: Path) -> Path:
    words = ("encode", pictures, "--model", tiny_model, "-o", tmp_path / "store")
    assert cli(*words, "--device", "cpu", "--workers", "0", "--no-self-check").code == 0
    return tmp_path / "store"


def test_a_report_is_written_and_told(cli: Run, store: Path, tmp_path: Path) -> None:
    shown = cli("inspect", store, "--report", tmp_path / "report")
    assert shown.code == 0, shown.err
    assert f"Report: {tmp_path}/report/index.html" in shown.err
    assert "latent space" in shown.out and "Report" not in shown.out
    assert (tmp_path / "report" / "index.html").read_text().startswith("<!DOCTYPE html>")
    quiet = cli("inspect", store, "--report", tmp_path / "report", "--json", "--quiet")
    assert quiet.document["report"]["path"] == f"{tmp_path}/report/index.html"
    assert quiet.document["report"]["samples_read"] == 4 and not quiet.err
    fewer = cli("inspect", store, "--report", tmp_path / "report", "--report-samples", 2, "--json")
    assert fewer.document["report"]["samples_read"] == 2
    assert "report" not in cli("inspect", store, "--json").document


def test_a_folder_with_other_things_is_refused(cli: Run, store: Path) -> None:
    refused = cli("inspect", store, "--report", store)
    assert refused.code == 2 and "holds other things" in refused.err
    assert cli("inspect", store, "--report-samples", 5).code == 2
