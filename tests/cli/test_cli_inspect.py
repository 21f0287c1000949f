"""`latentcli inspect --report`: a page, its figures as JSON, and plain refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from clikit import Run

from latentcli.shards.store.lock import StoreLock


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


def test_a_damaged_store_is_described_and_refused(cli: Run, store: Path, tmp_path: Path) -> None:
    """What is there is shown; the exit code says that it is not all, unless a job is at work."""
    (shard,) = (store / "shards").glob("*.safetensors")
    whole = shard.read_bytes()
    shard.unlink()
    shown = cli("inspect", store)
    assert shown.code == 3 and "000000.safetensors is missing" in shown.out
    assert "Run the same encode command again to encode the damaged and missing units." in shown.err
    document = cli("inspect", store, "--json").document
    assert (document["encoded"], document["missing"]) == (0, 0)
    assert document["damaged"]["count"] == 1 and "is missing" in document["incomplete"]
    shard.write_bytes(b"\xff" * 8 + whole[8:])
    shown = cli("inspect", store, "--report", tmp_path / "report")
    assert shown.code == 3 and "verify --repair" in shown.err
    shard.write_bytes(whole)
    assert cli("inspect", store).code == 0
    shard.with_suffix(".json").unlink()
    assert cli("inspect", store).code == 3
    manifest = store / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    running = cli("inspect", store, "--json")
    assert running.code == 0 and running.document["missing"] == 4


def test_a_store_of_a_job_that_ended_early_says_so(cli: Run, store: Path) -> None:
    """As `watch` does; nothing of it is damaged, and the unit was never there."""
    for record in (store / "shards").iterdir():
        record.unlink()
    manifest = store / "manifest.json"
    there = json.loads(manifest.read_text())
    totals = dict.fromkeys(there["totals"], 0)
    manifest.write_text(json.dumps(there | {"status": "running", "totals": totals}))
    shown = cli("inspect", store)
    assert "stopped: nobody is writing to it; the same encode command goes on" in shown.out
    assert "unit 0: not encoded yet" in shown.out and shown.code == 0
    document = cli("inspect", store, "--json").document
    assert (document["status"], document["writer"]) == ("running", None)
    with StoreLock(store):
        assert "nobody is writing" not in cli("inspect", store).out
        assert cli("inspect", store, "--json").document["writer"]["pid"] == os.getpid()


def test_captions_are_counted(cli: Run, pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    for name in sorted(pictures.iterdir())[:3]:
        name.with_suffix(".txt").write_text("a cat")
    words = ("encode", pictures, "--model", tiny_model, "--device", "cpu", "--no-self-check")
    beside = (*words, "--workers", 0, "-o", tmp_path / "store")
    assert cli(*beside).code == 0
    assert "\ncaptions       3 of 4\n" in cli("inspect", tmp_path / "store").out
    assert cli("inspect", tmp_path / "store", "--json").document["captions"] == 3
    assert cli(*beside, "--captions", "none").code == 0
    assert "\ncaptions" not in cli("inspect", tmp_path / "store").out
    within = (*words, "--workers", 0, "--format", "webdataset", "-o", tmp_path / "tars")
    assert cli(*within).code == 0
    assert cli("inspect", tmp_path / "tars", "--json").document["captions"] is None


def test_a_folder_with_other_things_is_refused(cli: Run, store: Path) -> None:
    refused = cli("inspect", store, "--report", store)
    assert refused.code == 2 and "holds other things" in refused.err
    assert cli("inspect", store, "--report-samples", 5).code == 2
    assert cli("inspect", store, "--report", "/sys/latentcli").code == 2
