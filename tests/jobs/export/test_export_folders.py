"""The folder of an export: killed and gone on with, locked, full, and not to be written to."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import jobkit
import pytest
from harness.made_up_stores import made, noise, write_store
from harness.warm import start_warm
from picturekit import SIZE, pictured

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.journal import JOURNAL
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.export.steps import STEP
from latentcli.jobs.export.write import unfinished
from latentcli.shards.store.lock import StoreLock

MANY = 7 * STEP


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A store of several steps."""
    folder = tmp_path_factory.mktemp("many")
    latent = noise(4, 2, 2)
    size = {**SIZE, "size": [16, 16]}
    samples = [made(f"{i % 7}/picture{i:05d}", latent + i) for i in range(MANY)]
    return write_store(folder / "s.latents", samples, "sdxl", per_shard=1000, preprocess=size)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def lines_of(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def test_an_export_that_was_stopped_and_killed_is_finished(many, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    job = ExportJob(store=str(many), to="kohya", output=str(out))
    words = ["export", str(many), "--to", "kohya", "-o", str(out)]
    code, said = strike(words, out, signal.SIGTERM, 2, tmp_path / "first")
    assert code == 75
    assert "Run the same command again to finish the rest." in said
    assert not (out / "holder.json").exists()
    before = lines_of(out / JOURNAL)
    code, _ = strike(words, out, signal.SIGKILL, before + 1, tmp_path / "second")
    assert code == -signal.SIGKILL
    done = lines_of(out / JOURNAL) - 1
    assert 2 <= done < MANY // STEP
    # As a kill in the middle of a file leaves it, and a power cut.
    cut = out / "3" / "picture00003_0016x0016_sdxl.npz"
    Path(unfinished(str(cut))).write_bytes(b"half")
    cut.write_bytes(b"cut")
    (out / f"{(MANY - 1) % 7}" / f"picture{MANY - 1:05d}_0016x0016_sdxl.npz").write_bytes(b"")
    document = run_export(job)
    # The step of the file that was cut is done again.
    assert document["steps_done_before"] == done - 1
    run_export(ExportJob(store=str(many), to="kohya", output=str(whole)))
    found, expected = contents(out), contents(whole)
    assert found.pop(JOURNAL) and expected.pop(JOURNAL)
    # A holder that was killed leaves its name, which the next one replaces and takes away.
    assert found == expected


def strike(
    words: list[str], out: Path, number: signal.Signals, lines: int, home: Path
) -> tuple[int | None, str]:
    """Runs an export, and sends a signal when its journal has so many lines: how it ended."""
    home.mkdir()
    process = start_warm(words, jobkit.environment(), home)
    while lines_of(out / JOURNAL) < lines:
        assert process.is_alive(), (home / "stderr").read_text()
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join()
    return process.exitcode, (home / "stderr").read_text()


def test_one_export_at_a_time(tmp_path):
    store, out = pictured(tmp_path), tmp_path / "out"
    job = ExportJob(store=str(store), to="kohya", output=str(out))
    with StoreLock(out):
        with pytest.raises(StoreError, match=r"another job is writing to .*process"):
            run_export(job)
        assert not list(out.rglob("*.npz"))
    assert run_export(job)["samples"] == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written_to(tmp_path):
    refused(tmp_path)


def test_a_store_in_place_of_the_folder(tmp_path):
    store = pictured(tmp_path)
    with pytest.raises(UsageError, match="is a latent store, which is no place for other files"):
        run_export(ExportJob(store=str(store), to="kohya", output=str(store)))


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "out").write_text("a file")
    refused(tmp_path)


def test_a_folder_that_cannot_be(tmp_path):
    store = pictured(tmp_path)
    with pytest.raises(UsageError, match="nothing can be written to"):
        run_export(ExportJob(store=str(store), to="kohya", output="/proc/nothing/out"))


def refused(folder: Path) -> None:
    store, out = pictured(folder), folder / "out"
    if not out.exists():
        out.mkdir(mode=0o500)
    with pytest.raises(UsageError, match=r"--output .*out"):
        run_export(ExportJob(store=str(store), to="kohya", output=str(out)))


def test_no_room_for_a_file(tmp_path):
    """A limit of this process on the size of files stands in for a disk that is full."""
    store, out = pictured(tmp_path), tmp_path / "out"
    job = ExportJob(store=str(store), to="kohya", output=str(out))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
        with pytest.raises(StoreError, match=r"npz cannot be written: .* run the same command"):
            run_export(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not [path for path in out.rglob("*") if path.name.startswith(".tmp-")]
    assert run_export(job)["samples"] == 3
    assert run_export(ExportJob(store=str(store), check=str(out)))["wrong"] == {}


def test_files_that_a_trainer_wrote_are_joined_or_named(tmp_path):
    store, out = pictured(tmp_path), tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "dog_0064x0064_sdxl.npz").write_bytes(b"PK no archive")
    job = ExportJob(store=str(store), to="kohya", output=str(out))
    with pytest.raises(StoreError, match=r"dog_0064x0064_sdxl\.npz is there already and damaged"):
        run_export(job)
    (out / "sub" / "dog_0064x0064_sdxl.npz").unlink()
    assert run_export(job)["samples"] == 3


def test_what_is_checked_has_to_be_an_export(tmp_path):
    store = pictured(tmp_path)
    for folder, why in ((tmp_path, "it has no journal"), (tmp_path / "no", "no such folder")):
        with pytest.raises(StoreError, match=f"is not an export of latentcli: .*{why}"):
            run_export(ExportJob(store=str(store), check=str(folder)))
