"""Encode jobs on a real Ray cluster: the same bytes as of one process, whoever is killed."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from harness.kill_paths import Job, Toy, any_actor, driver_or_all, encode_command
from harness.kills import one_run_through, restarted
from harness.processes import all_gone, living, marked, start, strike, wait_for
from jobkit import encode, environment, toy_pictures, tree

from latentcli.core.errors import Interrupted, LatentCliError, TooManyFailures, UsageError
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.plan import NEW, plan_encode, with_model_defaults
from latentcli.jobs.encode.ray_actor import Ledger, actors_on_node, unfinished, wanted_actors
from latentcli.jobs.encode.ray_driver import (
    absolute,
    first_line,
    on_driver,
    reason_of,
    settled_on,
    with_batch_size,
)
from latentcli.jobs.inference.accelerator import Cpu
from latentcli.jobs.inference.engine import engine_of, load_engine
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import read_manifest

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
CLUSTER = """
import sys, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
         _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
INPUTS, UNITS = 96, 24


@pytest.fixture(scope="module")
def cluster():
    """A cluster of another process; what a job needs in its environment to get there."""
    # A socket's path must be short, and pytest's folders are not.
    folder = tempfile.mkdtemp(prefix="lr-")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment() | token,
        cwd=folder,
    )
    yield token | {"RAY_ADDRESS": process.stdout.readline().strip()}
    process.communicate()
    for _ in range(20):  # Ray's processes end one after the other, and some write to the last
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return toy_pictures(tmp_path_factory.mktemp("ray"), INPUTS, bad_every=10)


@pytest.fixture(scope="module")
def alone(pictures, model, tmp_path_factory):
    """What one process makes of the pictures."""
    store = tmp_path_factory.mktemp("alone") / "store"
    encode(pictures, store, model)
    return tree(store)


@pytest.fixture
def job(pictures, model, alone, monkeypatch):
    """A job of two actors on a Ray of its own, as the kill tests run it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    toy = Toy(pictures.parent, model, INPUTS, 4, 0)
    command = toy.command(pictures, "--engine", "ray", "--devices", "2")
    return Job(command, UNITS, alone, startup=10.0, writing=5.0, victims=any_actor, lives_on=True)


def words(pictures: Path, model: str, *more: str) -> list[str]:
    command = encode_command(pictures, model, 0, 4)
    return [*command[3:], "--engine", "ray", "--devices", "2", *more]


def run(cluster: dict[str, str], *given: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "latentcli", *map(str, given)]
    env = environment() | cluster
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=200)


@needs_ray
def test_the_bytes_are_those_of_one_process(cluster, pictures, model, alone, tmp_path):
    log = tmp_path / "log.jsonl"
    done = run(cluster, *words(pictures, model, "-o", tmp_path / "store", "--log-json", log))
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "store") == alone
    events = [json.loads(line) for line in log.read_text().splitlines()]
    told = [event["unit"]["unit"] for event in events if event["event"] == "unit"]
    assert sorted(told) == list(range(UNITS)), "each unit once, whichever actor wrote it"
    assert (events[-1]["done"], events[-1]["units"]) == (INPUTS, UNITS)


@needs_ray
@pytest.mark.slow
def test_too_many_failures_end_the_job(cluster, pictures, model, alone, tmp_path):
    store = tmp_path / "store"
    done = run(cluster, *words(pictures, model, "--max-bad", "2", "-o", store))
    assert done.returncode == TooManyFailures.exit_code, done.stderr
    assert "--max-bad 2 allows 2" in done.stderr and "Traceback" not in done.stderr
    assert not [name for name in tree(store) if ".tmp-" in name or name == "holder.json"]
    assert run(cluster, *words(pictures, model, "-o", store)).returncode == 0
    assert tree(store) == alone


@needs_ray
@pytest.mark.slow
def test_an_actor_is_killed_and_the_job_goes_on(job, tmp_path):
    left: Counter[str] = Counter()
    chance = random.Random(0)
    outcome = one_run_through(job, tmp_path / "store", chance, 2, left)
    assert outcome.problems == ()
    assert outcome.kills


@needs_ray
@pytest.mark.slow
def test_too_many_deaths_are_a_plain_error(job, tmp_path):
    process = start(job.command, tmp_path / "store")
    while process.poll() is None:
        strike(any_actor(process, random.Random(0))[1])
        time.sleep(0.2)
    errors = process.communicate()[1].decode()
    assert process.returncode == 1
    assert "actors died in a row" in errors and "same command" in errors
    assert "Traceback" not in errors
    assert all_gone(), living()
    assert restarted(job, tmp_path / "store") == []


@needs_ray
@pytest.mark.slow
def test_the_driver_is_killed_and_the_same_command_goes_on(job, tmp_path):
    store = tmp_path / "store"
    process = start(job.command, store)
    assert wait_for(lambda: len(list((store / "shards").glob("*.json"))) >= 5, process)
    strike(driver_or_all(process, random.Random(0))[1])
    process.communicate()
    assert all_gone(), living()
    assert restarted(job, store) == []


@needs_ray
@pytest.mark.slow
def test_what_gives_out_the_units_is_killed(job, tmp_path):
    """The job cannot go on, and says so in a sentence."""
    store = tmp_path / "store"
    process = start(job.command, store)
    assert wait_for(lambda: len(list((store / "shards").glob("*.json"))) >= 5, process)
    strike(pid for pid, told in marked().items() if told[0].startswith("ray::Ledger"))
    errors = process.communicate()[1].decode()
    assert process.returncode == 1
    assert "gives out the units, is gone" in errors and "same command" in errors
    assert "Traceback" not in errors
    assert not [name for name in tree(store) if ".tmp-" in name or name == "holder.json"]
    assert restarted(job, store) == []


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("everybody", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_end_the_job_in_good_order(job, tmp_path, number, everybody):
    store = tmp_path / "store"
    process = start(job.command, store)
    assert wait_for(lambda: len(list((store / "shards").glob("*.json"))) >= 3, process)
    # As a terminal does, and as batch systems do.
    for pid in marked(()) if everybody else [process.pid]:
        os.kill(pid, number)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == Interrupted.exit_code, errors
    assert f"Stopped by {number.name}. So far " in errors and "Traceback" not in errors
    assert "are kept. Run the same command again to finish the rest." in errors
    assert not [name for name in tree(store) if ".tmp-" in name or name == "holder.json"]
    assert all_gone(), living()
    assert restarted(job, store) == []


@pytest.mark.slow
@needs_ray
def test_the_limit_of_memory_is_the_actors(cluster, pictures, model, tmp_path):
    """Where it is too small for their device that is told, and no store is there that keeps it."""
    store = tmp_path / "store"
    done = run(cluster, *words(pictures, model, "--max-memory", "1KB", "-o", store))
    assert done.returncode == UsageError.exit_code, done.stderr
    assert "--max-memory is 1 MiB, and the weights alone are 1 MiB" in done.stderr
    assert "Traceback" not in done.stderr and not store.exists()
    done = run(cluster, *words(pictures, model, "--max-memory", "2GiB", "-o", store))
    assert done.returncode == 0, done.stderr
    alone = tmp_path / "alone"
    encode(pictures, alone, model, max_memory="2GiB")
    assert tree(store) == tree(alone)


@needs_ray
def test_a_cluster_that_is_not_there_is_told(pictures, model, tmp_path):
    nowhere = {"RAY_ADDRESS": "127.0.0.1:1"}
    done = run(nowhere, *words(pictures, model, "-o", tmp_path / "store"))
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "127.0.0.1:1 (RAY_ADDRESS) could not be reached" in error[0]
    assert not (tmp_path / "store").exists()


def test_without_ray_one_is_told_what_to_install(pictures, model, tmp_path):
    code = "import sys; sys.modules['ray'] = None; from latentcli.cli.app import main; "
    given = words(pictures, model, "-o", str(tmp_path / "store"))
    done = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(main({given!r}))"],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == UsageError.exit_code
    assert "pip install 'latentcli[ray]'" in done.stderr


def test_the_ledger_gives_each_unit_out_once_and_knows_who_has_it():
    ledger = Ledger(deque([0, 1, 2]), "plan")
    assert ledger.begin("a") == ledger.begin("b") == [] and ledger.state()[2] == 0
    assert [ledger.claim("a"), ledger.claim("b"), ledger.claim("a")] == [0, 1, 2]
    assert ledger.claim("b") is None
    assert ledger.begin("a") == [0, 2] and ledger.begin("b") == [1]
    assert ledger.add("done", 2) == 2 and ledger.add("done", 3) == 5
    assert ledger.state() == (0, {"done": 5}, 2)


def test_a_stopped_ledger_gives_nothing_out():
    ledger = Ledger(deque([0, 1, 2]), "plan")
    ledger.begin("a")
    assert ledger.claim("a") == 0 and not ledger.is_stopped()
    ledger.stop()
    assert ledger.claim("a") is None and ledger.is_stopped()


def test_an_actor_that_died_does_anew_what_it_had_not_committed(pictures, model, tmp_path):
    store = tmp_path / "store"
    encode(pictures, store, model)
    inputs, spec_hash = InputList.open(store / "inputs.jsonl"), read_manifest(store).spec_hash
    (store / "shards" / "000002.json").unlink()
    assert list(unfinished(store, spec_hash, inputs, [1, 2, 0])) == [2]
    assert list(unfinished(store, spec_hash, inputs, [1, 2, 0], {0: (1,)})) == [2, 0]


def test_how_many_actors_are_wanted():
    def job(devices: str | None, device: str) -> EncodeJob:
        return EncodeJob(sources=("x",), devices=devices, device=device)

    assert wanted_actors(job("3", "cpu"), {"CPU": 2}, 10) == 3
    assert wanted_actors(job("3", "cpu"), {"CPU": 2}, 2) == 2
    assert wanted_actors(job("all", "cuda"), {"CPU": 64, "GPU": 8}, 100) == 8
    assert wanted_actors(job(None, "cpu"), {"CPU": 17}, 100) == 4
    assert wanted_actors(job(None, "cpu"), {"CPU": 2}, 100) == 1
    for devices in ("0", "0,1", "some"):
        with pytest.raises(UsageError, match="all or a number"):
            wanted_actors(job(devices, "cuda"), {"GPU": 8}, 100)


def test_actors_of_a_node_share_its_cores():
    def shared(devices: str | None, device: str, node: dict[str, float], cluster: dict[str, float]):
        job = EncodeJob(sources=("x",), devices=devices, device=device)
        return actors_on_node(job, 100, node, cluster)

    assert shared("all", "cuda", {"CPU": 64, "GPU": 8}, {"CPU": 256, "GPU": 20}) == 8
    assert shared("all", "cuda", {"CPU": 64, "GPU": 4}, {"CPU": 256, "GPU": 20}) == 4
    assert shared("2", "cuda", {"GPU": 8}, {"GPU": 8}) == 2
    assert shared("10", "cuda", {"GPU": 8}, {"GPU": 16}) == 5
    assert shared(None, "cpu", {"CPU": 16}, {"CPU": 64}) == 4
    assert shared("3", "cpu", {"CPU": 2}, {"CPU": 2}) == 3
    assert shared(None, "cpu", {}, {}) == 1


@needs_ray
@pytest.mark.slow
def test_an_actor_knows_how_many_share_its_node(tmp_path):
    """Of GPUs that Ray counts and nobody has."""
    code = """
import sys, ray
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.ray_actor import actor_rank
ray.init(num_cpus=2, num_gpus=4, include_dashboard=False, log_to_driver=False,
         logging_level="error", _temp_dir=sys.argv[1])
jobs = [EncodeJob(sources=("x",), device="cuda", devices=devices) for devices in ("all", "3")]
print(ray.get([ray.remote(num_gpus=1)(actor_rank).remote(job, 100) for job in jobs]))
"""
    folder = tempfile.mkdtemp(prefix="lr-")
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, env=environment()
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert "sharing=4" in done.stdout and "sharing=3" in done.stdout, done.stderr


def test_the_batch_size_is_that_of_the_actors_device(model, tmp_path):
    engine = load_engine(model, device="cpu")
    job = EncodeJob(sources=("x",), output=str(tmp_path / "store"), device="cuda", size="512")
    assert with_batch_size(job, engine, NEW).batch_size == 32
    assert with_batch_size(replace(job, size="256"), engine, NEW).batch_size == 128
    assert with_batch_size(replace(job, device="cpu"), engine, NEW).batch_size == 8


def test_the_driver_checks_in_its_own_dtype_for_actors_of_another(model, tmp_path):
    job = EncodeJob(sources=("x",), output=str(tmp_path / "store"), model=model)
    for gpus, dtype, kept in (
        (8, "auto", "bf16"),
        (0, "auto", Cpu.auto_dtype()),
        (0, "bf16", "bf16"),
    ):
        settled = settled_on(replace(job, dtype=dtype), {"GPU": gpus})
        assert settled.dtype == kept
        engine = engine_of(on_driver(settled))
        assert engine.dtype == Cpu.auto_dtype()
        plan = plan_encode(with_model_defaults(settled, engine), engine)
        assert plan.manifest.spec["encode"]["dtype"] == kept


def test_the_driver_keeps_below_no_limit_of_the_actors(model, tmp_path):
    """On its CPU, and in float32, the model takes another amount than on their GPUs."""
    job = EncodeJob(sources=("x",), output=str(tmp_path / "store"), model=model, device="cuda")
    settled = settled_on(replace(job, max_memory="1KB"), {"GPU": 8})
    engine = engine_of(on_driver(settled))
    assert engine.rooms == {}
    plan = plan_encode(with_model_defaults(settled, engine), engine)
    assert plan.manifest.spec["encode"]["max_memory"] == 1000


def test_errors_of_an_actor_are_told_as_they_are():
    class Told(Exception):
        cause = TooManyFailures("5 inputs failed.")

    assert reason_of(Told()) is Told.cause
    Told.cause = KeyError("x")
    assert "'x'" in str(reason_of(Told())) and type(reason_of(Told())) is LatentCliError
    assert first_line(RuntimeError("\nThe node died.\nmore\n")) == "The node died."
    assert first_line(RuntimeError()) == "RuntimeError."


def test_a_models_folder_is_given_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "fcdm_nano"):
        (tmp_path / name).mkdir()
    assert absolute("mine") == str(tmp_path / "mine")
    assert absolute("./fcdm_nano") == str(tmp_path / "fcdm_nano")
    assert absolute("fcdm_nano") == "fcdm_nano"
    assert absolute("full_capacitor") == "full_capacitor"
