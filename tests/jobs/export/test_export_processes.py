"""Processes of an export: equal files however many there are, and nothing left of them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from harness.made_up_stores import made, noise, write_store
from harness.processes import gone, start, wait_for, workers
from harness.scale_export import make_store
from picturekit import SIZE

from latentcli.core.errors import StoreError
from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.journal import JOURNAL
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.export.processes import RUN
from latentcli.jobs.export.steps import STEP
from latentcli.jobs.runtime.reporter import Reporter

COUNT = 5 * RUN * STEP


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A store of five runs of steps."""
    return make_store(tmp_path_factory.mktemp("many") / "s.latents", COUNT, side=8)


@pytest.fixture(scope="module")
def expected(store, tmp_path_factory) -> dict[str, bytes]:
    """The files of an export that one process made."""
    out = tmp_path_factory.mktemp("one") / "out"
    run_export(ExportJob(store=str(store), to="kohya", output=str(out), workers=0))
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    """Files by their names, the journal left out: its lines are in any order."""
    found = {f"{path.relative_to(folder)}": path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != JOURNAL}


def begun(store: Path, out: Path):
    """An export in a session of its own, once some of its steps are noted."""
    words = [sys.executable, "-m", "latentcli", "export", str(store), "--to", "kohya"]
    process = start([*words, "--workers", "2"], out)
    journal = out / JOURNAL
    noted = wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1, process)
    assert noted, process.communicate()[1].decode()
    return process


@pytest.mark.parametrize("to, more", [("parquet", {}), ("lightningdit", {"samples_per_file": 999})])
def test_equal_files_however_many_processes(store, to, more, tmp_path):
    for count in (0, 3):
        out = tmp_path / f"{count}"
        job = ExportJob(store=str(store), to=to, output=str(out), workers=count, **more)
        assert run_export(job)["samples"] == COUNT
    assert contents(tmp_path / "0") == contents(tmp_path / "3")


def test_a_signal_ends_all_and_the_same_command_goes_on(store, expected, tmp_path):
    out = tmp_path / "out"
    process = begun(store, out)
    # As a cluster ends a job: each of its processes gets the signal.
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate()[1].decode()
    assert process.returncode == 75, said
    assert "Run the same command again to finish the rest." in said
    assert gone(process.pid)
    job = ExportJob(store=str(store), to="kohya", output=str(out), workers=2)
    assert run_export(job)["steps_done_before"] >= RUN
    assert contents(out) == expected


@pytest.mark.slow
def test_nothing_writes_on_after_a_kill(store, expected, tmp_path):
    out = tmp_path / "out"
    process = begun(store, out)
    assert workers(process.pid)
    process.kill()
    process.communicate()
    assert gone(process.pid)
    run_export(ExportJob(store=str(store), to="kohya", output=str(out), workers=2))
    assert contents(out) == expected


def test_a_process_that_was_killed_is_told_of(store, expected, tmp_path):
    out = tmp_path / "out"
    process = begun(store, out)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    said = process.communicate()[1].decode()
    assert process.returncode == 1, said
    assert "A process that writes files was killed" in said and "same command again" in said
    assert gone(process.pid)
    run_export(ExportJob(store=str(store), to="kohya", output=str(out), workers=0))
    assert contents(out) == expected


def test_what_a_process_finds_is_told_as_elsewhere(tmp_path):
    latents = [noise(4, 8, 8, seed=i) for i in range(STEP + 3)]
    latents[-1][0, 0, 0] = 1e6
    samples = [made(f"a/{i:04d}", latent) for i, latent in enumerate(latents)]
    store = write_store(tmp_path / "s.latents", samples, "sd1", preprocess=SIZE)
    out = str(tmp_path / "out")
    job = ExportJob(store=str(store), to="parquet", file_dtype="float16", output=out, workers=2)
    with pytest.raises(StoreError, match=f"'a/{STEP + 2:04d}' has values that float16 cannot hold"):
        run_export(job)


def test_no_more_processes_than_the_machine_carries(tmp_path):
    store = make_store(tmp_path / "s.latents", 3, side=8)
    job = ExportJob(store=str(store), to="kohya", output=str(tmp_path / "out"), workers=100_000)
    told: list[str] = []
    assert run_export(job, Reporter(note=told.append))["samples"] == 3
    assert any("--workers 100,000 is too many for this machine" in text for text in told)
