"""Random lives of datasets, whose stores must be what new ones would be."""

from __future__ import annotations

import pytest
from harness import dataset_life, life_commands
from harness.scripts import run_script

KILLED = (3, 6)
UNDISTURBED = (1, 2, 4, 5, 7, 8, 11, 13)


@pytest.mark.parametrize("seeds", [KILLED, UNDISTURBED], ids=["killed", "undisturbed"])
def test_a_store_follows_its_dataset(seeds):
    figures = dataset_life.run_lives(seeds, 2, print)
    assert figures.faults == []
    assert figures.counts["lives"] == len(seeds)
    assert (figures.counts["kills"] > 0) == (seeds == KILLED)


def test_what_is_not_dropped_is_seen(monkeypatch):
    for command in ("sync", "sync SRC"):
        monkeypatch.setitem(life_commands.COMMANDS, command, lambda life: {})
    figures = dataset_life.run_lives([8], 5, print)
    assert "is too many" in figures.faults[0]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_hundred_lives():
    assert run_script("dataset_life.py") == 0
