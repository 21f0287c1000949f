"""--compile of decode: for stores whose pictures have few sizes that are known beforehand."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from clipkit import MODEL, NUMBERS, clips_in
from compilekit import need_compiler, traced
from jobkit import decode, encode, pictures_of

from latentcli.core.errors import Interrupted, UsageError
from latentcli.jobs.cluster.environment import Rank
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.decode.compiled import compiled_engine
from latentcli.jobs.decode.open_latents import open_latents
from latentcli.jobs.inference import compiling
from latentcli.jobs.inference.engine import load_engine
from latentcli.jobs.runtime.reporter import SILENT, Reporter

__all__ = ["traced"]

LEVELS = 1
"""Of 255, by which a picture may differ."""


@pytest.fixture(scope="module")
def sized(mixed, model, tmp_path_factory):
    """`mixed` at one size."""
    store = tmp_path_factory.mktemp("store") / "sized"
    encode(mixed, store, model, size="64")
    return store


@pytest.fixture
def never_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("It was compiled."))


@pytest.mark.parametrize("output", ["files", "stream"])
def test_full_batches_are_decoded_by_code(sized, tmp_path, traced, capfd, output):
    told: list[str] = []
    where = tmp_path / "on" if output == "files" else "-"
    found = decode(sized, where, Reporter(status=told.append), compile="on", batch_size=3, steps=2)
    assert found["compiled"] is True and found["decoded"] == 23 and traced() == 1
    assert told[-1] == "Compiling the network for 64x64 (decode)"
    if output == "files":
        assert decode(sized, tmp_path / "off", batch_size=3, steps=2)["compiled"] is False
        left, right = (pictures_of(tmp_path / name) for name in ("on", "off"))
        assert left.keys() == right.keys()
        assert all(np.abs(p.astype(int) - right[k]).max() <= LEVELS for k, p in left.items())


def test_sizes_must_be_known(mixed_store, sized, tmp_path, never_compiled):
    shard = sized / "shards" / "000000.safetensors"
    for source, options, words in (
        (mixed_store, {}, r"here they are not\. Decode a store that was encoded with --size"),
        (shard, {}, "here they are not"),
        (sized, {"max_memory": "1GiB"}, "--max-memory computes large pictures in parts"),
    ):
        with pytest.raises(UsageError, match=words):
            decode(source, tmp_path / "out", compile="on", **options)
    assert not (tmp_path / "out").exists()


def test_a_signal_while_code_is_made_stops_at_once(sized, tmp_path, never_compiled):
    def status(text: str) -> None:
        if text.startswith("Compiling"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="--skip-existing"):
        decode(sized, tmp_path / "out", Reporter(status=status), compile="on")


def test_auto_goes_by_the_pixels_of_a_job(sized, mixed_store, monkeypatch):
    need_compiler()
    monkeypatch.setattr(compiling, "GAINING", {("cpu", "fcdm"): 23 * 64 * 64})
    job, alone, pair = DecodeJob(store=str(sized)), Team(), Team(Rank(0, 2, 0))
    engine = load_engine("fcdm_nano", device="cpu")

    def is_on(store, team: Team = alone) -> bool:
        source = open_latents(store, None)
        return compiled_engine(job, source, engine, team, SILENT).compiled is not None

    assert is_on(sized) and not is_on(sized, pair) and not is_on(mixed_store)
    monkeypatch.setattr(compiling, "GAINING", {("cpu", "fcdm"): 24 * 64 * 64})
    assert not is_on(sized)


def test_the_sizes_of_a_store_of_buckets_are_its_table(mixed, model, tmp_path):
    store = tmp_path / "store"
    encode(mixed, store, model, resize="bucket", area="64", bucket_step=16)
    table = json.loads((store / "manifest.json").read_text())["preprocessing"]["buckets"]["table"]
    assert [list(size) for size in open_latents(store, None).sizes] == table


def test_frames_of_clips_are_decoded_by_code(tmp_path, traced):
    clips, store = clips_in(tmp_path / "in"), tmp_path / "store"
    found = encode(clips, store, MODEL, size="64", compile="on")
    assert found["compiled"] is True and found["frames"] == sum(NUMBERS) and traced() == 1
    found = decode(store, tmp_path / "on", compile="on", batch_size=3, format="png")
    assert found["compiled"] is True and found["frames"] == sum(NUMBERS) and traced() == 2
    decode(store, tmp_path / "off", batch_size=3, format="png")
    left, right = (pictures_of(tmp_path / name) for name in ("on", "off"))
    assert left.keys() == right.keys() and len(left) == sum(NUMBERS)
    assert all(np.abs(p.astype(int) - right[k]).max() <= LEVELS for k, p in left.items())


def test_frames_that_see_each_other_are_refused(sized):
    engine = load_engine("tae_temporal", device="cpu", random_weights=True)
    job = DecodeJob(store="x", compile="on")
    source = replace(open_latents(sized, None), clips=lambda units: iter(()))
    with pytest.raises(UsageError, match="tae_temporal decodes the frames of a clip together"):
        compiled_engine(job, source, engine, Team(), SILENT)
