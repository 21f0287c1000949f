"""--compile of encode: what is recorded, taken over and refused, and what auto means."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compilekit import need_compiler, traced
from jobkit import encode, encode_job, environment, toy_pictures, tree

from latentcli.core.errors import Interrupted, StoreError, UsageError
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.encode.plan import plan_encode, with_compile, with_model_defaults
from latentcli.jobs.encode.ray_driver import on_driver, settled_on
from latentcli.jobs.encode.share import assignment, claimed, follow
from latentcli.jobs.encode.worklist import Work
from latentcli.jobs.inference import compiling
from latentcli.jobs.inference.engine import engine_of, load_engine
from latentcli.jobs.loader.find_media import media_of
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.jobs.store.encode_command import encode_words
from latentcli.shards.layout import INPUTS
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import read_manifest

__all__ = ["traced"]

TINY = "taesd"
"""A model of the family that gains by code."""


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    """Nothing that compiles is found."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def never_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("It was compiled."))


@pytest.fixture
def few_pixels(monkeypatch):
    """As if jobs of that many pixels were large."""
    monkeypatch.setattr(compiling, "GAINING", {("cpu", "tiny"): 25 * 64 * 64})


def test_a_store_keeps_its_code(mixed, model, tmp_path, traced, monkeypatch):
    """What was begun compiled goes on so; the other setting is refused; bytes are the same."""
    store, whole, told = tmp_path / "store", tmp_path / "whole", []
    reporter = Reporter(status=told.append)
    begun = encode(mixed, store, model, reporter, size="64", compile="on", limit=8)
    assert begun["compiled"] is True and told.count("Compiling the network for 64x64 (encode)") == 1
    assert read_manifest(store).spec["encode"]["compile"] is True
    with pytest.raises(StoreError, match=r"encode\.compile is True in the store and None now"):
        encode(mixed, store, model, size="64", compile="off")
    assert encode(mixed, store, model, size="64")["compiled"] is True
    encode(mixed, whole, model, size="64", compile="on")
    assert tree(store / "shards") == tree(whole / "shards")
    made = traced()
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("Nothing was to encode."))
    assert encode(mixed, store, model, size="64")["encoded"] == 0
    assert traced() == made
    words = encode_words(read_manifest(store), ["in"], "out")
    assert words[words.index("--compile") + 1] == "on"


def test_a_store_without_code_stays_so(mixed, model, tmp_path, never_compiled):
    encode(mixed, tmp_path / "store", model, size="64", compile="off", limit=8)
    found = encode(mixed, tmp_path / "store", model, size="64")
    assert found["compiled"] is False and found["encoded"] == 15
    assert "compile" not in read_manifest(tmp_path / "store").spec["encode"]
    with pytest.raises(StoreError, match=r"encode\.compile is None in the store and True now"):
        encode(mixed, tmp_path / "store", model, size="64", compile="on")


def test_without_a_compiler_it_is_said_before_anything_is_done(
    mixed, model, tmp_path, no_compiler, never_compiled
):
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler, and there is no .*apt install"):
        encode(mixed, tmp_path / "store", model, size="64", compile="on")
    assert not (tmp_path / "store").exists()
    assert encode(mixed, tmp_path / "store", model, size="64")["compiled"] is False


def test_auto_runs_networks_as_they_are(mixed, model, tmp_path, never_compiled):
    for name in (model, TINY):
        job = encode_job(mixed, tmp_path / "store", name, size="64")
        engine = load_engine(name, device="cpu", random_weights=name == TINY)
        assert with_compile(job, engine, media_of(job, SILENT)).compile == "off"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": "64"}, "on"),
        ({"size": "48"}, "off"),
        ({}, "off"),
        ({"size": "64", "max_memory": "1GiB"}, "off"),
        ({"size": "64", "limit": 24}, "off"),
    ],
)
def test_auto_goes_by_the_pixels_of_a_job(mixed, tmp_path, few_pixels, options, expected):
    need_compiler()
    job = encode_job(mixed, tmp_path / "store", TINY, **options)
    engine = load_engine(TINY, device="cpu", random_weights=True)
    found = media_of(job, SILENT)
    assert with_compile(job, engine, found).compile == expected
    plain = replace(engine, info=replace(engine.info, family="fcdm"))
    assert with_compile(job, plain, found).compile == "off"


def test_auto_without_a_compiler_is_eager(mixed, tmp_path, few_pixels, no_compiler):
    job = encode_job(mixed, tmp_path / "store", TINY, size="64")
    engine = load_engine(TINY, device="cpu", random_weights=True)
    assert with_compile(job, engine, media_of(job, SILENT)).compile == "off"


def test_sizes_must_be_known_and_few(mixed, model, tmp_path, traced):
    store = tmp_path / "store"
    for options, words in (
        ({}, r"here they are not\. Give --size"),
        (
            {"area": "256", "resize": "bucket"},
            r"each of \d+ picture sizes would be compiled; at most 8 are",
        ),
        ({"size": "64", "max_memory": "1GiB"}, "--max-memory computes large pictures in parts"),
    ):
        with pytest.raises(UsageError, match=words):
            encode(mixed, store, model, compile="on", **options)
    assert not store.exists() and traced() == 0
    buckets = tmp_path / "buckets.txt"
    buckets.write_text("64x48\n48x64\n64x64\n")
    options = {"resize": "bucket", "buckets": str(buckets), "batch_size": 2}
    encode(mixed, store, model, compile="on", **options)
    assert traced() == 3
    encode(mixed, tmp_path / "eager", model, **options)
    held = [tree(folder / "shards").keys() for folder in (store, tmp_path / "eager")]
    assert held[0] == held[1]


def test_a_signal_while_code_is_made_stops_at_once(mixed, model, tmp_path, never_compiled):
    def status(text: str) -> None:
        if text.startswith("Compiling"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="Run the same command again"):
        encode(mixed, tmp_path / "store", model, Reporter(status=status), size="64", compile="on")


def test_a_dry_run_compiles_nothing(mixed, model, tmp_path, never_compiled):
    encode(mixed, tmp_path / "store", model, size="64", compile="on", dry_run=True)


def test_other_processes_are_told(mixed, model, tmp_path, traced):
    """They are started with auto, too, and do not know how many inputs there are."""
    store, engine = tmp_path / "store", load_engine(model, device="cpu")
    encode(mixed, store, model, size="64", compile="on")
    job = with_model_defaults(encode_job(mixed, store, model, size="64", compile="on"), engine)
    for compile, own in (("on", "auto"), ("on", "on"), ("off", "auto"), ("on", "off")):
        plan, team = plan_encode(replace(job, compile=compile), engine), Team()
        team.broadcast(assignment(plan, Work(InputList.open(store / INPUTS), ())))
        given = (replace(job, compile=own), engine, team, StopRequest(""), "Another spec.", claimed)
        if "off" in (compile, own):
            with pytest.raises(StoreError, match="Another spec"):
                follow(*given)
        else:
            run = follow(*given)
            assert run.job.compile == "on" and run.engine.compiled is not None


def test_the_driver_of_a_cluster_compiles_nothing_itself(model, tmp_path, no_compiler):
    job = encode_job("x", tmp_path / "store", model, size="64", compile="on")
    settled = settled_on(job, {"GPU": 8})
    assert settled.compile == "on"
    engine = engine_of(on_driver(settled))
    plan = plan_encode(with_model_defaults(settled, engine), engine)
    assert plan.manifest.spec["encode"]["compile"] is True
    assert settled_on(replace(job, compile="auto"), {"GPU": 8}).compile == "off"


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a minute of a processor, of which a machine may give a small part
def test_code_gives_the_same_bytes_every_time(model, tmp_path: Path):
    """Made anew in other processes, with other threads, and by two processes that share the work.

    Pictures of the size are one to a piece, and so are those of a batch that is not full.
    """
    need_compiler()
    source = toy_pictures(tmp_path / "in", 7)
    words = ("--model", model, "--device", "cpu", "--size", "256", "--workers", "0", "--json")
    own = ("--compile", "on", "--batch-size", "3", "--samples-per-shard", "4", "--quiet")
    trees = []
    for number, more in enumerate(((), (), ("--devices", "2"))):
        cache = tmp_path / f"cache{number}"
        store = tmp_path / f"store{number}"
        done = subprocess.run(
            [sys.executable, "-m", "latentcli", "encode", source, *words, *own, *more, "-o", store],
            capture_output=True,
            text=True,
            env=environment()
            | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "OMP_NUM_THREADS": str(1 + number % 2)},
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["compiled"] is True and any(cache.rglob("*.cpp"))
        trees.append(tree(store / "shards"))
    assert trees[0] == trees[1] == trees[2]
