"""How many processes and threads a machine carries, and what is said of more."""

from __future__ import annotations

import math
import os

import pytest
from jobkit import decode, encode

from latentcli.jobs.runtime import machine
from latentcli.jobs.runtime.machine import carried, cores, time_share, within_reach
from latentcli.jobs.runtime.reporter import Reporter


@pytest.fixture
def small(monkeypatch):
    """A machine of one core, which carries two processes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(machine, "PER_CORE", 1)


def test_a_few_a_core_are_carried():
    assert carried() == 4 * max(cores(), 2)
    assert within_reach(carried()) == carried() and within_reach(0) == 0


def test_more_are_capped_with_a_note():
    notes: list[str] = []
    assert within_reach(10**4, note=notes.append) == carried()
    assert within_reach(carried(), 2, notes.append) == carried() // 2
    assert within_reach(3, 10**4, notes.append) == 1
    assert notes[0] == (
        f"--workers 10,000 is too many for this machine (CPU cores: {cores()}); {carried()} are"
        " started."
    )
    assert len(notes) == 3


def test_encode_and_decode_start_no_more_than_that(mixed, model, tmp_path, small):
    notes: list[str] = []
    told = encode(mixed, tmp_path / "store", model, Reporter(note=notes.append), workers=999)
    assert told["workers"] == 2 and told["encoded"] == 23
    seen = []
    listen = Reporter(note=notes.append, progress=seen.append)
    assert decode(tmp_path / "store", tmp_path / "out", listen, workers=999)["decoded"] == 23
    threads = {view.name: view.threads for view in seen[-1].whole.views()}
    assert threads["encode_image"] == 2
    assert [note.split(" is too many")[0] for note in notes] == ["--workers 999"] * 2


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu.max": "nonsense"}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_container_has_a_share_of_the_cores(tmp_path, monkeypatch, files, share):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert time_share(tmp_path) == share
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert cores() == (64 if share == math.inf else math.ceil(share))
