"""Kills, full disks and second writers, for real."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from storekit import run_job, tree

from latentcli.shards.store.verify import verify_shards

HERE = Path(__file__).parent.parent


def drive(mode: str, folder: Path) -> int:
    done = subprocess.run(
        [sys.executable, HERE / "crash_driver.py", mode, folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_killed_before_every_file_operation(tmp_path):
    assert drive("points", tmp_path) > 50


def test_killed_at_random_moments(tmp_path):
    assert drive("random", tmp_path) >= 5


def test_killed_while_units_are_written_anew(tmp_path):
    assert drive("rewriting", tmp_path) > 100


@pytest.mark.slow
def test_killed_while_units_are_written_anew_where_there_are_no_links(tmp_path):
    assert drive("without-links", tmp_path) > 40


def test_two_runs_give_the_same_bytes(tmp_path):
    run_job(tmp_path / "a")
    run_job(tmp_path / "elsewhere" / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "elsewhere" / "b")
    run_job(tmp_path / "a")
    assert tree(tmp_path / "a") == tree(tmp_path / "elsewhere" / "b")


def test_nothing_says_when_or_where(tmp_path):
    run_job(tmp_path / "store")
    whole = b"".join(data for data in tree(tmp_path / "store").values() if data)
    assert str(tmp_path).encode() not in whole
    assert b"time" not in whole.replace(b"mtime_ns", b"")


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting a small disk is refused: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def job(store: Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, HERE / "storekit.py", store, "200", "4"]
    return subprocess.run(command, capture_output=True, text=True, **options)


def check_goes_on(store: Path, reference: Path) -> None:
    committed = {
        name: data for name, data in tree(store).items() if name.startswith("shards/") and data
    }
    assert committed and len(committed) < 100
    assert not [name for name in tree(store) if ".tmp-" in name]
    before = {path: path.stat().st_ino for path in (store / "shards").glob("*.json")}
    run_job(store, 200, 4)
    assert {path: path.stat().st_ino for path in before} == before
    run_job(reference, 200, 4)
    assert tree(store) == tree(reference)


def test_full_disk(small_disk, tmp_path):
    done = job(small_disk / "store")
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert "StoreError" in message
    assert "the disk is full" in message and "run the same command again" in message
    remount = ["mount", "-o", "remount,size=8m", small_disk]
    subprocess.run(remount, check=True)
    check_goes_on(small_disk / "store", tmp_path / "reference")


WRITE_TOO_MUCH = """
import sys
from pathlib import Path
from latentcli.shards.storage.atomic_write import atomic_write
atomic_write(Path(sys.argv[1]) / "big", (bytes(1000) for _ in range(1000)))
"""


def test_file_size_limit(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, tmp_path],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    message = done.stderr.splitlines()[-1]
    assert "StoreError" in message and "larger than this system allows" in message
    assert tree(tmp_path) == {}


def test_append_leaves_the_old_units_alone(tmp_path):
    store = tmp_path / "store"
    run_job(store, 10, 4)
    before = {path: path.stat().st_mtime_ns for path in (store / "shards").iterdir()}
    done = run_job(store, 10, 4, more=5)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (done.totals.inputs, done.totals.shards) == (15, 5)
    assert list(verify_shards(store)) == []
