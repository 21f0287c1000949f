"""Real processes under torchrun, and under what srun tells them, share one job."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from harness.slow import slow

from latentcli.core.errors import LatentCliError, LeaderFailed, UsageError
from latentcli.jobs.cluster.environment import Rank
from latentcli.jobs.cluster.tcp_team import TcpTeam, join_team, silence_of

UNITS = 60
MEMBER = """
import json, os, signal, sys, time
from pathlib import Path
from latentcli.core.errors import Interrupted, LatentCliError, UsageError
from latentcli.jobs.cluster.environment import rank_of
from latentcli.jobs.cluster.tcp_team import join_team

out, mode, units = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rank = rank_of(os.environ)

claims = []

def work(team):
    if rank.leader and mode == "no folder":
        raise UsageError("There is no folder x.")
    if rank.leader:
        team.broadcast(mode + "\\u00e4" * 3_000_000)
    plan = mode + "\\u00e4" * 3_000_000 if rank.leader else team.receive(lambda: None)
    team.add("here", 1)
    while team.total("here") < rank.world:
        time.sleep(0.01)
    while (unit := team.claim()) < units:
        claims.append(unit)
        team.add("encoded", unit)
        time.sleep(0.01)
        if rank.rank == 1 and unit > 6 and mode in ENDS:
            ENDS[mode]()
        if rank.leader and mode == "leader dies" and unit > 6:
            os.kill(os.getpid(), signal.SIGKILL)
    if rank.leader:
        team.wait_for_all(lambda: None)
    return {"total": team.total("encoded"), "plan": len(plan), "mode": plan[:9]}

def fail():
    raise LatentCliError("The disk is full.")

def stop():
    raise Interrupted("Stopped by SIGTERM.")

ENDS = {"dies": lambda: os.kill(os.getpid(), signal.SIGKILL), "fails": fail, "stops": stop,
        "leader dies": lambda: time.sleep(0.3)}
code = 0
try:
    with join_team(rank, os.environ) as team:
        told = work(team)
except LatentCliError as error:
    told, code = {"error": str(error)}, error.exit_code
(out / f"{rank.rank}.json").write_text(json.dumps(told | {"claims": claims, "code": code}))
sys.exit(code)
"""


def variables(**more: object) -> dict[str, str]:
    ours = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "SLURM", "TORCHELASTIC", "LATENTCLI_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return kept | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in more.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def member(tmp_path: Path) -> Path:
    script = tmp_path / "member.py"
    script.write_text(MEMBER)
    return script


def told(folder: Path) -> dict[int, dict[str, object]]:
    return {int(path.stem): json.loads(path.read_text()) for path in folder.glob("*.json")}


def srun(script: Path, out: Path, mode: str, *, world: int = 3, **more: object):
    """Starts what srun would start; the outcome of each rank."""
    out.mkdir()
    processes = []
    more = {"SLURM_JOB_ID": 77, "SLURM_STEP_ID": 0, "SLURM_JOB_NODELIST": "localhost", **more}
    for rank in range(world):
        env = variables(SLURM_PROCID=rank, SLURM_NTASKS=world, SLURM_LOCALID=rank, **more)
        command = [sys.executable, script, out, mode, str(UNITS)]
        processes.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    codes = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    return told(out), codes


def check_complete(outcome: dict[int, dict[str, object]], mode: str, world: int = 3) -> None:
    assert outcome.keys() == set(range(world)), outcome
    claims = [unit for one in outcome.values() for unit in one["claims"]]
    assert sorted(claims) == list(range(UNITS))
    assert outcome[0]["total"] == sum(range(UNITS))
    for one in outcome.values():
        assert one["plan"] == 3_000_000 + len(mode)
        assert one["mode"].rstrip("\u00e4") == mode


@pytest.mark.parametrize("style", ["--standalone", slow("--master-port")])
def test_ranks_of_torchrun_share_the_units(member, tmp_path, style):
    out = tmp_path / "out"
    out.mkdir()
    option = [style] if style == "--standalone" else [style, str(free_port())]
    command = [sys.executable, "-m", "torch.distributed.run", *option, "--nproc-per-node", "3"]
    subprocess.run(
        [*command, member, out, "well", str(UNITS)], env=variables(), check=True, timeout=60
    )
    check_complete(told(out), "well")


@pytest.mark.slow
def test_launches_with_one_port_do_not_mix(member, tmp_path):
    port = free_port()
    outcome, codes = srun(member, tmp_path / "first", "first", world=2, MASTER_PORT=port)
    assert [code for _, code in codes] == [0, 0], codes
    check_complete(outcome, "first", world=2)
    outcome, codes = srun(member, tmp_path / "second", "second", world=2, MASTER_PORT=port)
    assert [code for _, code in codes] == [0, 0], codes
    check_complete(outcome, "second", world=2)


@pytest.mark.parametrize(
    ("mode", "words", "code"),
    [
        ("dies", ["Rank 1 of 3", "has sent no heartbeat for 2 s", "same command"], 1),
        slow("fails", ["Rank 1 of 3", "failed: The disk is full;", "same command"], 1),
        slow("stops", ["Rank 1 of 3", "was interrupted: Stopped by SIGTERM", "same command"], 75),
    ],
)
def test_the_leader_names_the_rank_that_is_missing(member, tmp_path, mode, words, code):
    outcome, codes = srun(
        member, tmp_path / "out", mode, MASTER_PORT=free_port(), LATENTCLI_SILENCE_SECONDS=2
    )
    assert outcome[0]["code"] == code, codes
    for word in words:
        assert word in outcome[0]["error"]
    if mode == "stops":
        assert outcome[2]["code"] == 75  # the whole job was asked to stop
        return
    claims = [unit for one in outcome.values() for unit in one["claims"]]
    lost = set(range(UNITS)) - set(claims)
    assert len(lost) < 8 if mode == "dies" else not lost  # the others went on
    assert outcome[2]["code"] == 0


def test_the_leaders_error_reaches_the_others(member, tmp_path):
    outcome, codes = srun(member, tmp_path / "out", "no folder", world=2, MASTER_PORT=free_port())
    assert outcome[0] == {"error": "There is no folder x.", "claims": [], "code": 2}
    assert outcome[1]["code"] == 1
    assert "Rank 0 of 2" in outcome[1]["error"], codes
    assert "failed: There is no folder x" in outcome[1]["error"]


def test_the_leaders_death_is_noticed(member, tmp_path):
    outcome, codes = srun(member, tmp_path / "out", "leader dies", world=2, MASTER_PORT=free_port())
    assert codes[0][1] == -signal.SIGKILL
    assert outcome[1]["code"] == 1
    assert "has lost its connection to the others" in outcome[1]["error"]


def test_a_restart_below_one_launcher_starts_afresh(agent):
    """The launcher's store keeps what earlier starts have claimed."""
    for _ in range(2):
        joined, leave, claims = threading.Event(), threading.Event(), []

        def follow(joined=joined, leave=leave, claims=claims) -> None:
            with join_team(Rank(1, 2, 1), agent) as team:
                claims.append(team.claim())
                joined.set()
                leave.wait(60)

        with join_team(Rank(0, 2, 0), agent) as team:
            claims.append(team.claim())
            thread = threading.Thread(target=follow)
            thread.start()
            assert joined.wait(60)
            leave.set()
            team.done()
            team.wait_for_all(lambda: None)
            thread.join()
        assert claims == [0, 1]


def test_an_error_after_the_work_is_told_too(agent):
    joined, told = threading.Event(), []

    def follow() -> None:
        with pytest.raises(LatentCliError) as caught, join_team(Rank(1, 2, 1), agent) as team:
            joined.set()
            while True:
                team.check()
                time.sleep(0.05)
        told.append(str(caught.value))

    thread = threading.Thread(target=follow)
    thread.start()
    with pytest.raises(OSError, match="disk"), join_team(Rank(0, 2, 0), agent) as team:
        assert joined.wait(60)
        team.done()
        raise OSError("The disk is full.")
    thread.join()
    assert "Rank 0 of 2" in told[0]
    assert "The disk is full; run the same command again" in told[0]


def test_a_leader_without_a_plan_keeps_nobody_waiting(agent):
    joined, told = threading.Event(), []

    def follow() -> None:
        with pytest.raises(LatentCliError) as caught, join_team(Rank(1, 2, 1), agent) as team:
            joined.set()
            team.receive(lambda: None)
        told.append(str(caught.value))

    thread = threading.Thread(target=follow)
    thread.start()
    with join_team(Rank(0, 2, 0), agent):
        assert joined.wait(60)
    thread.join()
    assert "ended before it gave out any work" in told[0]


@pytest.mark.parametrize("fails", [True, False], ids=["both fail", "one fails"])
def test_an_error_before_the_plan_gives_way_to_the_leaders(agent, fails):
    """What all of them find is told once; what one alone has found it tells."""
    failed, caught = threading.Event(), []

    def follow() -> None:
        with pytest.raises(LatentCliError) as error, join_team(Rank(1, 2, 1), agent):
            failed.set()
            raise UsageError("There is no device y.")
        caught.append(error.value)

    thread = threading.Thread(target=follow)
    thread.start()
    expected = pytest.raises(UsageError) if fails else contextlib.nullcontext()
    with expected, join_team(Rank(0, 2, 0), agent) as team:
        assert failed.wait(60)
        if fails:
            raise UsageError("There is no folder x.")
        team.broadcast("all of it")
        with pytest.raises(LatentCliError, match=r"Rank 1 of 2.*no device y"):
            team.wait_for_all(lambda: None)
    thread.join()
    (found,) = caught
    assert type(found) is (LeaderFailed if fails else UsageError)
    assert ("no folder x" if fails else "There is no device y.") in str(found)


def test_waiting_for_the_leader_can_be_interrupted():
    def waiting() -> None:
        raise KeyboardInterrupt

    environment = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    environment["MASTER_PORT"] = str(free_port())
    with pytest.raises(KeyboardInterrupt), join_team(Rank(1, 2, 1), environment, waiting):
        pass


def test_a_port_in_use_is_told(monkeypatch):
    monkeypatch.setattr("latentcli.jobs.cluster.rendezvous.HANDOVER", 0.1)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
        environment["MASTER_PORT"] = str(port)
        with (
            pytest.raises(LatentCliError, match=f"Port {port} .* is in use. Set MASTER_PORT"),
            join_team(Rank(0, 2, 0), environment),
        ):
            pass


@pytest.mark.parametrize("rank", [0, 1])
def test_a_launcher_that_died_is_not_waited_for_long(monkeypatch, rank):
    """Its server was there before the rank was: it will not come any more."""
    monkeypatch.setattr("latentcli.jobs.cluster.rendezvous.UNSERVED", 0.5)
    environment = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    environment |= {"MASTER_PORT": str(free_port()), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    monkeypatch.setattr("latentcli.jobs.cluster.rendezvous.PATIENCE", 3600.0)
    with pytest.raises(LatentCliError), join_team(Rank(rank, 2, rank), environment):
        pass


def test_a_missing_leader_is_told(monkeypatch):
    monkeypatch.setattr("latentcli.jobs.cluster.rendezvous.PATIENCE", 0.3)
    port = free_port()
    environment = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    environment["MASTER_PORT"] = str(port)
    with (
        pytest.raises(LatentCliError, match=f"found no living rank 0 at localhost:{port}"),
        join_team(Rank(1, 2, 1), environment),
    ):
        pass


def test_threads_of_one_process_share_its_team():
    """Claims from several threads are still given out once; alone, and as one of two ranks."""
    port = free_port()
    environment = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}
    environment["MASTER_PORT"] = str(port)
    for rank in (Rank(0, 1, 0), Rank(0, 2, 0)):
        with join_team(rank, environment) as team:
            assert isinstance(team, TcpTeam) == (rank.world == 2)
            claims: list[int] = []

            def work(team=team, claims=claims) -> None:
                for _ in range(50):
                    claims.append(team.claim())
                    team.add("items", 2)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(claims) == list(range(200))
            assert team.total("items") == 400
            assert team.total("other") == 0


def test_the_leader_hears_once_what_the_others_tell():
    """Whichever of its threads asks."""
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    told, heard, texts = threading.Event(), threading.Event(), [str(n) for n in range(40)]

    def other() -> None:
        with join_team(Rank(1, 2, 1), environment | {"RANK": "1"}) as team:
            for text in texts:
                team.tell(text)
            told.set()
            assert heard.wait(60)
            team.tell("last")

    thread = threading.Thread(target=other)
    thread.start()
    with join_team(Rank(0, 2, 0), environment | {"RANK": "0"}) as team:
        assert told.wait(60)
        found: list[list[str]] = []
        asking = [threading.Thread(target=lambda: found.append(team.told())) for _ in range(3)]
        for each in asking:
            each.start()
        for each in asking:
            each.join()
        assert sorted(text for part in found for text in part) == sorted(texts)
        assert team.told() == []
        heard.set()
        team.wait_for_all(lambda: None)
        assert (team.told(), team.told()) == (["last"], [])
    thread.join()


def test_alone_the_plan_is_ones_own():
    with join_team(Rank(0, 1, 0), {}) as team:
        team.broadcast("all of it")
        assert team.receive(lambda: None) == "all of it"
        assert [team.claim(), team.claim()] == [0, 1]
        team.wait_for_all(lambda: None)
        team.check()


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_silence_is_a_number_of_seconds(text):
    with pytest.raises(UsageError, match="LATENTCLI_SILENCE_SECONDS"):
        silence_of({"LATENTCLI_SILENCE_SECONDS": text})
    assert silence_of({}) == 60
