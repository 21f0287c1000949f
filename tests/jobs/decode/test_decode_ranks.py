"""decode in several processes: they share the units, and one of them tells of all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from harness.slow import slow
from jobkit import decode, environment, pictures_of, tree

from latentcli.cli.app import main
from latentcli.core.errors import LatentCliError, UsageError
from latentcli.jobs.cluster.environment import Rank
from latentcli.jobs.cluster.tcp_team import join_team
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.decode.latents import LatentSource
from latentcli.jobs.decode.share import agreed
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.runtime.signals import StopRequest


@pytest.fixture(scope="module")
def reference(mixed_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoded") / "reference"
    decode(mixed_store, folder)
    return folder


@pytest.fixture
def meeting(monkeypatch):
    """Says that this process is rank 0 of 2."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "2"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)


def as_rank_1(plan: dict[str, Any], claimed: threading.Event, report: dict[str, Any]) -> None:
    """What the other process does: it takes one unit, and reports."""
    with join_team(Rank(1, 2, 1), os.environ) as team:
        plan |= json.loads(team.receive(lambda: None))
        plan["mine"] = plan["units"][team.claim()]
        claimed.set()
        team.report(json.dumps(report))


def test_two_processes_give_what_one_gives(mixed_store, tmp_path, reference):
    """Unit 2 is gone: whichever process gets it, the first one tells of its samples."""
    store = shutil.copytree(mixed_store, tmp_path / "store")
    (store / "shards" / "000002.safetensors").unlink()
    words = ("decode", store, "-o", tmp_path / "out", "--device", "cpu", "--devices", 2, "--json")
    command = [sys.executable, "-m", "latentcli", *map(str, words)]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True)
    found = json.loads(run.stdout)
    assert (found["decoded"], found["failed"], found["missing"]) == (20, 3, 0), run.stderr
    lost = {row["key"] for row in found["failures"]}
    assert list(found["reasons"].values()) == [3]
    assert lost == {"000/000008", "000/000009", "000/000011"}
    assert run.returncode == 3 and run.stderr.count("error: 3 of 23 inputs failed") == 1
    whole = tree(reference)
    assert tree(tmp_path / "out") == {
        name: data for name, data in whole.items() if name.removesuffix(".png") not in lost
    }


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        slow(("--model", "linear16"), 2, "but linear16 decodes latentcli/linear16#whitened"),
        (("--model", "nowhere"), 2, "There is no model named 'nowhere'"),
        (("--max-memory", "1KB"), 2, "the weights alone are"),
        slow(("--format", "mp4"), 2, "--format mp4 is for clips"),
    ],
)
def test_what_all_processes_find_is_told_once(mixed_store, tmp_path, words, code, told):
    command = [sys.executable, "-m", "latentcli", "decode", str(mixed_store), *words]
    command += ["-o", str(tmp_path / "out"), "--device", "cpu", "--devices", "2"]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert run.returncode == code, run.stderr
    assert run.stderr.count("error: ") == 1 and told in run.stderr
    assert not run.stderr.count("Rank ")


def test_each_unit_is_decoded_by_one_process(mixed_store, tmp_path, meeting):
    plan: dict[str, Any] = {}
    claimed = threading.Event()
    failure = {"key": "000/000099", "error": "told by the other"}
    report = {"decoded": 3, "frames": None, "skipped": 0, "failed": 1, "failures": [failure]}
    report["reasons"] = {"read: told by the other": 1}
    example = failure | {"error": "read: told by the other"}
    report["reason_examples"] = {"read: told by the other": example}
    other = threading.Thread(target=as_rank_1, args=(plan, claimed, report))
    other.start()
    # Batches of one: the first is through before all units are claimed.
    reporter = Reporter(progress=lambda _: claimed.wait(60) and None)
    found = decode(mixed_store, tmp_path / "out", reporter, batch_size=1)
    other.join()
    assert plan["units"] == list(range(7)) and plan["job"]["store"] == str(mixed_store)
    theirs = {f"000/{i:06d}" for i in range(4 * plan["mine"], 4 * plan["mine"] + 4)}
    mine = pictures_of(tmp_path / "out").keys()
    assert not mine & theirs and len(mine | theirs - {"000/000010", "000/000021"}) == 23
    assert found["decoded"] == len(mine) + 3
    assert (found["failed"], found["failures"]) == (1, [failure])
    assert found["reasons"] == report["reasons"]
    assert found["reason_examples"] == report["reason_examples"]


def test_what_ends_one_process_ends_the_job(mixed_store, tmp_path, meeting):
    def fail() -> None:
        with pytest.raises(LatentCliError), join_team(Rank(1, 2, 1), os.environ) as team:
            team.receive(lambda: None)
            raise LatentCliError("The disk is full.")

    other = threading.Thread(target=fail)
    other.start()
    with pytest.raises(LatentCliError, match=r"Rank 1 of 2 on .* failed: The disk is full"):
        decode(mixed_store, tmp_path / "out")
    other.join()


def test_failures_of_all_processes_count(mixed_store, tmp_path, meeting):
    """--max-bad is of the job: the other process has had 3 failures when the first has 2."""
    store = shutil.copytree(mixed_store, tmp_path / "store")
    (store / "shards" / "000000.safetensors").unlink()
    counted = threading.Event()

    def fail() -> None:
        with pytest.raises(LatentCliError), join_team(Rank(1, 2, 1), os.environ) as team:
            team.add("failed", 3)
            counted.set()
            team.receive(lambda: None)
            while True:
                team.check()
                time.sleep(0.05)

    other = threading.Thread(target=fail)
    other.start()
    # The first process says what is damaged before it shares the units.
    reporter = Reporter(note=lambda _: counted.wait(60) and None)
    with pytest.raises(LatentCliError, match=r"5 inputs failed, and --max-bad 4 allows 4"):
        decode(store, tmp_path / "out", reporter, max_bad="4")
    other.join()


def test_other_options_than_the_first_processs(tmp_path):
    class Other:
        """A team of which the first process was started with another seed."""

        rank = Rank(1, 2, 1)

        def receive(self, waiting):
            return json.dumps({"job": vars(DecodeJob(store="s", seed=1)) | {}, "units": [0]})

    source = LatentSource(tmp_path, 1, "raw", None, None, None, lambda units: iter(()))
    with pytest.raises(UsageError, match="Process 1 was started with other options than process 0"):
        agreed(DecodeJob(store="s", seed=2), source, Other(), StopRequest("x"))
    assert agreed(DecodeJob(store="s", seed=1), source, Other(), StopRequest("x")).units == [0]


def test_pipes_are_for_one_process(mixed_store, tmp_path, meeting, capsys):
    for ends in (("-", "out"), (str(mixed_store), "-")):
        words = ["decode", ends[0], "-o", ends[1], "--device", "cpu", "--devices", "2"]
        assert main(words) == 2
        assert "one process; give a store and a folder" in capsys.readouterr().err
    for options in ({"store": "-"}, {"output": "-"}):
        settings = {"store": str(mixed_store), "output": str(tmp_path / "out")} | options
        with pytest.raises(UsageError, match="one process: leave out torchrun or srun"):
            decode(settings["store"], settings["output"])


@pytest.mark.parametrize(
    "words",
    [
        ("roundtrip", "x", "--model", "linear16"),
        ("bench", "--model", "linear16"),
        ("verify", "x"),
        ("video-embed", "x", "-o", "y.safetensors"),
        ("inspect", "x", "--report", "y"),
    ],
)
def test_commands_that_do_not_share_say_so(words, meeting, tmp_path, monkeypatch, capsys):
    (tmp_path / "x").mkdir()
    for name in ("a.png", "manifest.json"):
        (tmp_path / "x" / name).touch()
    monkeypatch.chdir(tmp_path)
    assert main(list(words)) == 2
    assert "runs in one process, and this is one of several" in capsys.readouterr().err
