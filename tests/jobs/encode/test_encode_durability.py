"""Real jobs, killed and run out of disk: nothing lost, nothing twice, the same bytes in the end."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from harness.kill_paths import PATHS, Job, Toy, encode_command
from harness.kills import check, kill_once, orphans_end, restarted, undisturbed
from harness.memory import compare, growth
from harness.processes import gone, in_session, start
from harness.scripts import run_script
from harness.slow import slow
from harness.stores import look
from jobkit import cli, encode, environment, toy_pictures, tree

from latentcli.core.errors import StoreError
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.verify import verify_shards

JOBS = Path(__file__).parent.parent
KILLS = ("start-up", "shards", "finish")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return toy_pictures(tmp_path_factory.mktemp("durable"), 120, bad_every=10)


@pytest.fixture(scope="module")
def job(pictures, model, tmp_path_factory):
    """120 inputs in 30 units, and what an undisturbed run makes of them."""
    command = encode_command(pictures, model, workers=0, samples_per_shard=4)
    return undisturbed(command, tmp_path_factory.mktemp("reference") / "store", 30)


def test_killed_three_times(job, tmp_path):
    chance, struck = random.Random(0), []
    for phase in KILLS:
        struck.append(kill_once(job, tmp_path / "store", phase, chance))
    assert sum(where is not None for where in struck) >= 2, struck
    assert restarted(job, tmp_path / "store") == []
    assert list(verify_shards(tmp_path / "store")) == []


@pytest.mark.parametrize("path", [slow("tar"), "webdataset"])
def test_killed_twice_on_tars(path, model, tmp_path):
    with PATHS[path](Toy(tmp_path, model, workers=0)) as (_, jobs):
        job = undisturbed(jobs[0], tmp_path / "reference")
        chance, struck = random.Random(0), []
        for phase in ("shards", "finish"):
            struck.append(kill_once(job, tmp_path / "store", phase, chance))
        assert struck[0] is not None, struck
        assert restarted(job, tmp_path / "store") == []
        assert list(verify_shards(tmp_path / "store")) == []


def killed_while_rewriting(
    folder: Path, form: str, first: int, step: int, job: str = "encode"
) -> int:
    driver = [sys.executable, JOBS / "rewrite_driver.py", job, form, str(first), str(step), folder]
    path = os.pathsep.join([str(JOBS), str(JOBS.parent)])
    done = subprocess.run(
        driver, capture_output=True, text=True, env=environment() | {"PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(("form", "first"), [("safetensors", 0), slow("webdataset", 2)])
def test_killed_while_units_are_written_anew(form, first, tmp_path):
    assert killed_while_rewriting(tmp_path, form, first, 4) > 15


def test_encode_after_a_sync_that_was_killed_knows_what_was_dropped(tmp_path):
    assert killed_while_rewriting(tmp_path, "safetensors", 1, 3, "sync") > 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
@pytest.mark.parametrize(("job", "kills"), [("encode", 60), ("sync", 30)])
def test_killed_at_every_change_while_units_are_written_anew(job, kills, form, tmp_path):
    assert killed_while_rewriting(tmp_path, form, 0, 1, job) > kills


def test_one_of_two_ranks_is_killed(model, tmp_path):
    toy = Toy(tmp_path, model, inputs=120, workers=0)
    encode(toy.pictures(), tmp_path / "single", model)
    with PATHS["torchrun"](toy) as (_, jobs):
        job = replace(jobs[0], reference=look(tmp_path / "single").contents())
        struck = kill_once(job, tmp_path / "store", "shards", random.Random(0))
        assert struck is not None
        assert restarted(job, tmp_path / "store") == []


def test_the_check_sees_what_it_is_for(job, tmp_path):
    store = tmp_path / "store"
    for name, data in job.reference.items():
        path = store / name
        if data is None:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    assert check(job, store) == []
    (store / "shards" / ".tmp-1-x").touch()
    (store / "shards" / "000003.json").unlink()
    (store / "manifest.json").write_text("{}")
    assert check(job, store) == [
        "shards/000003.json is missing",
        "shards/.tmp-1-x is too many",
        "manifest.json differs",
        "4 inputs are lost",
    ]


def test_loader_processes_end_with_a_killed_job(pictures, job, model, tmp_path):
    command = encode_command(pictures, model, workers=1, samples_per_shard=4)
    with_workers = Job(command, job.units, job.reference, job.startup, job.writing)
    assert orphans_end(with_workers, tmp_path / "store")
    encode(pictures, tmp_path / "store", model)
    assert check(job, tmp_path / "store") == []


def test_loader_processes_end_with_a_finished_job(pictures, model, tmp_path):
    command = encode_command(pictures, model, workers=1, samples_per_shard=60)
    process = start(command, tmp_path / "store")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert gone(process.pid, seconds=1) and not in_session(process.pid)


def test_a_second_job_on_the_same_store_is_refused(pictures, model, tmp_path):
    with StoreLock(tmp_path / "store"), pytest.raises(StoreError, match="another job is writing"):
        encode(pictures, tmp_path / "store", model)
    assert tree(tmp_path / "store") == {}


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting a small disk is refused: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def one_clear_error(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and reason in errors[0], done.stderr
    assert "run the same command again" in errors[0]
    assert "Traceback" not in done.stderr


def committed(store: Path) -> dict[Path, int]:
    return {path: path.stat().st_ino for path in (store / "shards").glob("*.json")}


def test_a_full_disk(job, small_disk):
    store = small_disk / "store"
    words = [*job.command[3:], "--output", store]
    one_clear_error(cli(*words), "the disk is full")
    before = committed(store)
    assert 1 <= len(before) < 30
    assert not [name for name in tree(store) if ".tmp-" in name]
    one_clear_error(cli(*words), "the disk is full")
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    assert cli(*words).returncode == 0
    assert {path: path.stat().st_ino for path in before} == before
    assert check(job, store) == []


def test_a_limit_on_the_size_of_files(pictures, model, tmp_path):
    words = [*encode_command(pictures, model, 0, samples_per_shard=120)]
    done = subprocess.run(
        [*words, "--output", str(tmp_path / "store")],
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000)),
    )
    one_clear_error(done, "larger than this system allows")
    assert not [name for name in tree(tmp_path / "store") if ".tmp-" in name]
    assert subprocess.run([*words, "--output", str(tmp_path / "store")]).returncode == 0
    subprocess.run([*words, "--output", str(tmp_path / "reference")], check=True)
    assert tree(tmp_path / "store") == tree(tmp_path / "reference")


def test_memory_does_not_grow_with_the_inputs(model, tmp_path):
    small, large = compare(tmp_path, model, (300, 1500), workers=1)
    assert growth(small, large) <= 1.15, (small, large)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", PATHS)
def test_killed_jobs(path):
    """Several processes take long to start: of those paths, twenty are for the script itself."""
    kills = 5 if path.startswith(("torchrun", "ray")) else 20
    assert run_script("kill_jobs.py", "--path", path, "--kills", kills) == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_of_twenty_thousand_pictures():
    assert run_script("picture_memory.py") == 0
