"""Ranks that never come: who is waited for is told after some seconds, and why."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from latentcli.core.errors import LatentCliError
from latentcli.jobs.cluster import missing_ranks
from latentcli.jobs.cluster.environment import Rank, conclusion
from latentcli.jobs.cluster.missing_ranks import MissingRanks
from latentcli.jobs.cluster.tcp_team import join_team


class Notes(list[str]):
    """Notes, and an event that they wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def take(self, text: str) -> None:
        self.append(text)
        self.came.set()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing_ranks, "NOTICE", 0.0)


WHY = "RANK=0 and WORLD_SIZE=2 say that there are 2 processes; if this is the only one, unset"


@pytest.mark.usefixtures("soon")
def test_a_leader_tells_who_has_not_come_and_why_it_waits(agent):
    notes = Notes()
    with (
        pytest.raises(LatentCliError) as caught,
        join_team(Rank(0, 2, 0), agent, note=notes.take) as team,
    ):
        assert notes.came.wait(60)
        team.done()
        team.wait_for_all(lambda: None)
    assert notes == [f"Rank 1 of 2 has not joined yet. {WHY} RANK and WORLD_SIZE."]
    assert str(caught.value) == (
        f"Rank 1 of 2 has sent no heartbeat for 3 s. {WHY} RANK and WORLD_SIZE. Or run the same"
        " command again to finish the rest."
    )


@pytest.mark.usefixtures("soon")
def test_a_rank_tells_that_the_leader_has_not_come():
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = str(probe.getsockname()[1])
    environment = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    notes = Notes()

    def waiting() -> None:
        if notes.came.is_set():
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        join_team(Rank(1, 2, 1), environment, waiting, notes.take),
    ):
        pass
    assert notes[0].startswith("Rank 0 of 2 has not joined yet. RANK=1 and WORLD_SIZE=2 say that")


def test_ranks_that_are_there_are_not_missed(agent):
    notes, joined = Notes(), threading.Event()

    def follow() -> None:
        with join_team(Rank(1, 2, 1), agent):
            joined.set()

    thread = threading.Thread(target=follow)
    with join_team(Rank(0, 2, 0), agent, note=notes.take) as team:
        thread.start()
        assert joined.wait(60)
        team._missing.since -= missing_ranks.NOTICE
        beats = team._add("beat/0", 0)
        while team._add("beat/0", 0) < beats + 2:
            time.sleep(0.05)
        team.done()
        team.wait_for_all(lambda: None)
    thread.join()
    assert notes == [] and team._missing.told


def test_many_are_told_in_few_words():
    notes = Notes()
    MissingRanks("", notes.take).tell(9, [1, 2, 3, 7, 8])
    assert notes == ["Ranks 1, 2, 3 and 2 more of 9 have not joined yet."]


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({}, ""),
        ({"RANK": "0", "WORLD_SIZE": "2", "LATENTCLI_LAUNCHED": "1"}, ""),
        (
            {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"},
            "SLURM_PROCID=1 and SLURM_NTASKS=4 say that there are 4 processes; if this is the only"
            " one, unset SLURM_PROCID and SLURM_NTASKS.",
        ),
    ],
)
def test_why_there_are_others(environment, why):
    assert conclusion(environment) == why
