"""Checks the rank and the rendezvous that variables of torchrun and Slurm give."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.core.errors import UsageError
from latentcli.jobs.cluster.environment import (
    Rank,
    Rendezvous,
    hosts,
    rank_of,
    rendezvous_of,
)

STEP = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1"}
MASTER = {"MASTER_ADDR": "gpu01", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, Rank(0, 1, 0)),
        (TORCHRUN, Rank(5, 6, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Rank(1, 2, 0)),
        ({"RANK": "4"}, Rank(0, 1, 0)),
        (STEP, Rank(3, 8, 1)),
        (STEP | {"SLURM_STEP_NUM_TASKS": "4"}, Rank(3, 4, 1)),
        (STEP | TORCHRUN, Rank(5, 6, 1)),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "3"}, Rank(5, 6, 1, sharing=3)),
        ({"LOCAL_WORLD_SIZE": "3"}, Rank(0, 1, 0)),
    ],
)
def test_rank_of(environment, rank):
    assert rank_of(environment) == rank
    assert rank.leader == (rank.rank == 0)


@pytest.mark.parametrize("step", ["", "batch", "4294967291", "4294967290", "interactive"])
def test_a_batch_script_is_one_process(step):
    """sbatch and salloc set SLURM_NTASKS=8 and SLURM_PROCID=0 for the one shell that runs."""
    assert rank_of(STEP | {"SLURM_PROCID": "0", "SLURM_STEP_ID": step}) == Rank(0, 1, 0)
    shell = {name: text for name, text in STEP.items() if name != "SLURM_STEP_ID"}
    assert rank_of(shell) == Rank(0, 1, 0)


@pytest.mark.parametrize(
    "environment",
    [
        TORCHRUN | {"RANK": "6"},
        TORCHRUN | {"RANK": "-1"},
        TORCHRUN | {"WORLD_SIZE": "two"},
        TORCHRUN | {"WORLD_SIZE": "0"},
        TORCHRUN | {"LOCAL_RANK": "6"},
        TORCHRUN | {"LOCAL_WORLD_SIZE": "few"},
        TORCHRUN | {"RANK": "٣"},
        STEP | {"SLURM_PROCID": "8"},
        STEP | {"SLURM_NTASKS": ""},
    ],
)
def test_variables_that_cannot_be(environment):
    with pytest.raises(UsageError, match=r"RANK|WORLD_SIZE|SLURM"):
        rank_of(environment)


def test_meeting_of_torchrun():
    told = {"TORCHELASTIC_RUN_ID": "a/b", "TORCHELASTIC_RESTART_COUNT": "2"}
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert rendezvous_of(TORCHRUN | MASTER | told | agent) == Rendezvous(
        "gpu01", 29500, "a_b.2", True
    )
    assert rendezvous_of(TORCHRUN | MASTER) == Rendezvous("gpu01", 29500, "0.0", False)
    with pytest.raises(UsageError, match="MASTER_ADDR"):
        rendezvous_of(TORCHRUN)
    with pytest.raises(UsageError, match="MASTER_PORT is 70000"):
        rendezvous_of(TORCHRUN | MASTER | {"MASTER_PORT": "70000"})


def test_meeting_of_srun():
    job = STEP | {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "gpu[07-09,11]"}
    here = rendezvous_of(job)
    assert (here.host, here.served) == ("gpu07", False)
    assert 20_000 <= here.port < 32_000
    other = rendezvous_of(job | {"SLURM_STEP_ID": "1"})
    assert other.port != here.port
    assert other.launch != here.launch
    assert rendezvous_of(job | {"SLURM_RESTART_COUNT": "1"}).launch != here.launch
    assert rendezvous_of(job | {"SLURM_STEP_NODELIST": "gpu09"}).host == "gpu09"
    assert rendezvous_of(job | MASTER) == Rendezvous("gpu01", 29500, here.launch, False)
    with pytest.raises(UsageError, match="SLURM_JOB_NODELIST"):
        rendezvous_of(STEP)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("login1", ["login1"]),
        ("gpu[01-03,07],login1", ["gpu01", "gpu02", "gpu03", "gpu07", "login1"]),
        ("a[9-11]", ["a9", "a10", "a11"]),
        ("rack[1-2]n[3,5]-ib", ["rack1n3-ib", "rack1n5-ib", "rack2n3-ib", "rack2n5-ib"]),
        ("ip-10-0-0-[1-2].cloud", ["ip-10-0-0-1.cloud", "ip-10-0-0-2.cloud"]),
        ("", []),
    ],
)
def test_hosts(text, names):
    assert list(hosts(text)) == names


def test_hosts_that_slurm_does_not_write():
    with pytest.raises(UsageError, match=r"\[1-x\]"):
        list(hosts("gpu[1-x]"))


NAME = st.from_regex(r"[a-z]([a-z.-]*[a-z])?", fullmatch=True)
RANGE = st.tuples(st.integers(0, 999), st.integers(0, 20), st.integers(1, 4))


@given(st.lists(st.tuples(NAME, st.lists(RANGE, max_size=4), st.sampled_from(["", "-ib"]))))
def test_hosts_reads_what_a_writer_wrote(groups):
    """Against a writer that names every host on its own."""
    parts, names = [], []
    for name, ranges, suffix in groups:
        inside = [
            f"{low:0{width}d}-{low + more:0{width}d}" if more else f"{low:0{width}d}"
            for low, more, width in ranges
        ]
        parts.append(f"{name}[{','.join(inside)}]{suffix}" if inside else f"{name}{suffix}")
        names += [
            f"{name}{number:0{width}d}{suffix}"
            for low, more, width in ranges
            for number in range(low, low + more + 1)
        ] or [f"{name}{suffix}"]
    assert list(hosts(",".join(parts))) == names


def test_ranks_load_no_torch():
    code = "import sys, latentcli.jobs.cluster.environment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
