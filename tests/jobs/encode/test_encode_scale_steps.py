"""The steps of a million names, and a sync of which few are gone, measured at a small size."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import scale_steps, scale_sync
from harness.scale_steps import Step
from harness.scripts import run_script


def test_a_small_sync_opens_and_writes_the_shards_concerned(tmp_path):
    cases = scale_sync.run(tmp_path, 400, per_shard=20)
    assert [case.name for case in cases] == ["random", "clustered"]
    assert all(len(case.synced.opened) == len(case.shards) < 20 for case in cases)
    assert [case.too_much() for case in cases] == [[], []]
    fewer = replace(cases[0], shards=cases[0].shards[1:])
    assert [words.split()[-2:] for words in fewer.too_much()] == [
        ["was", "opened"],
        ["was", "written"],
        ["was", "written"],
    ]


def test_a_small_scale_test_measures_every_step(tmp_path):
    told = []
    measured = scale_steps.run(tmp_path, 300, lambda name, step: told.append((name, step)))
    assert list(measured) == ["folder", "list", "done"]
    assert [step.name for step in measured["done"]] == ["import", "find", "survey", "plan_work"]
    assert len(told) == 12 and all(step.peak > 1 for _, step in told)


def test_the_scale_test_sees_what_is_too_much():
    good = [Step("find", 6.0, 700.0), Step("survey", 90.0, 800.0), Step("plan_work", 3.0, 900.0)]
    slow, large = [*good, Step("late", 2.0, 900.0)], [*good, Step("large", 0.1, 1001.0)]
    assert scale_steps.too_much({"folder": slow, "done": good}) == []
    assert [words[:4] for words in scale_steps.too_much({"done": slow, "list": large})] == [
        "done",
        "list",
    ]


@pytest.mark.slow
def test_a_million_names():
    assert run_script("scale_steps.py") == 0
