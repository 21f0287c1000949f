"""One command starts a process per device, hands signals on, and gives back one exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.slow import slow

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.jobs.cluster.environment import is_launched
from latentcli.jobs.cluster.launch import exit_code, launch, pick_devices, without_devices
from latentcli.jobs.runtime.machine import carried, cores

PARENT = """
import os, sys
from latentcli.core.errors import LatentCliError
from latentcli.jobs.cluster.launch import launch
if __name__ == "__main__":
    words = [*sys.argv[3:], "--devices", "3"]
    try:
        code = launch(words, sys.argv[1], 0, None, os.environ, command=[sys.argv[2]])
    except LatentCliError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    sys.exit(code)
"""
CHILD = """
import json, os, signal, sys, time
from pathlib import Path
out, mode = Path(sys.argv[1]), sys.argv[2]
rank = int(os.environ["RANK"])
came = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: came.append(number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
names = ("WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS", "LATENTCLI_LAUNCHED", "LATENTCLI_DEVICES",
         "TORCHELASTIC_USE_AGENT_STORE", "MASTER_PORT", "MINE")
told = {name: os.environ.get(name) for name in names} | {"words": sys.argv[1:]}
told |= {"parent": os.getppid(), "session": os.getsid(0) == os.getpid()}
print(f"stdout of {rank}")
sys.stderr.write(f"stderr of {rank}\\n")  # at once: print writes the end of a line separately
code = json.loads(mode)[rank] if mode.startswith("[") else 0
if mode == "first dies" and not rank:
    while not all((out / f"{other}.here").exists() for other in (1, 2)):
        time.sleep(0.05)  # on a busy machine they would die of the signal before they can note it
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "deaf":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    (out / f"{rank}.here").touch()
    time.sleep(60)
if mode in ("wait", "first dies", "wait for two"):
    (out / f"{rank}.here").touch()
    while not came:
        time.sleep(0.05)
    (out / f"{rank}.asked").touch()
    while mode == "wait for two" and len(came) < 2:
        time.sleep(0.05)
    time.sleep(0.1 + 0.3 * rank)  # the batch is finished, here at different times
    code = 75
(out / f"{rank}.json").write_text(json.dumps(told | {"came": came}))
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def variables() -> dict[str, str]:
    ours = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "SLURM", "TORCHELASTIC", "LATENTCLI_")
    return {n: t for n, t in os.environ.items() if not n.startswith(ours)} | {"MINE": "kept"}


@pytest.fixture
def start(tmp_path: Path):
    """Starts a launch of three in a process of its own, with its own temporary folder."""
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "tmp").mkdir()
    started = []

    def begin(mode: str, devices: str = "3") -> subprocess.Popen[str]:
        command = [sys.executable, tmp_path / "parent.py", devices, tmp_path / "child.py"]
        env = variables() | {"TMPDIR": str(tmp_path / "tmp"), "LATENTCLI_DEVICES": devices}
        env.pop("OMP_NUM_THREADS", None)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        pipes["start_new_session"] = True  # a group of its own, as a shell gives it
        started.append(subprocess.Popen([*command, tmp_path, mode], env=env, **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def told(folder: Path) -> list[dict[str, object]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


def wait_until(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_each_device_has_a_process(start, tmp_path):
    process = start("[0, 0, 0]")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == "stdout of 0\n"
    assert sorted(err.splitlines()) == ["stderr of 0", "stderr of 1", "stderr of 2"]
    assert [one["LOCAL_RANK"] for one in told(tmp_path)] == ["0", "1", "2"]
    for one in told(tmp_path):
        assert one["WORLD_SIZE"] == "3"
        assert one["OMP_NUM_THREADS"] == str(max(len(os.sched_getaffinity(0)) // 3, 1))
        assert one["LATENTCLI_LAUNCHED"] == "1"
        assert not one["LATENTCLI_DEVICES"]
        assert one["TORCHELASTIC_USE_AGENT_STORE"] == "True"
        assert one["MINE"] == "kept"
        assert one["parent"] == process.pid  # nobody stands between
        assert one["session"]  # a terminal's Ctrl-C reaches it through the launcher alone
        assert one["words"] == [str(tmp_path), "[0, 0, 0]"]
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(("mode", "code"), [("[3, 0, 0]", 3), ("[1, -9, 0]", 1)])
def test_codes_are_the_leaders(start, tmp_path, mode, code):
    """And no process ends another: all of them get to their end."""
    process = start(mode)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert sorted(err.splitlines()) == ["stderr of 0", "stderr of 1", "stderr of 2"]
    assert all(one["came"] == [] for one in told(tmp_path))


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        slow(signal.SIGINT),
        slow(signal.SIGUSR1),
    ],
)
def test_signals_are_handed_on_once(start, tmp_path, number):
    process = start("wait")
    wait_until(lambda: len(list(tmp_path.glob("*.here"))) == 3)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert sorted(err.splitlines()) == ["stderr of 0", "stderr of 1", "stderr of 2"]
    assert [one["came"] for one in told(tmp_path)] == [[number]] * 3


def test_ctrl_c_for_the_whole_group_comes_once(start, tmp_path):
    process = start("wait")
    wait_until(lambda: len(list(tmp_path.glob("*.here"))) == 3)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert [one["came"] for one in told(tmp_path)] == [[signal.SIGINT]] * 3


def test_a_second_signal_is_handed_on_too(start, tmp_path):
    """It ends a rank that would finish its batch first."""
    process = start("wait for two")
    wait_until(lambda: len(list(tmp_path.glob("*.here"))) == 3)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: len(list(tmp_path.glob("*.asked"))) == 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert [one["came"] for one in told(tmp_path)] == [[signal.SIGTERM] * 2] * 3


def test_processes_without_a_launcher_stop(start, tmp_path):
    process = start("wait")
    wait_until(lambda: len(list(tmp_path.glob("*.here"))) == 3)
    process.kill()
    wait_until(lambda: len(list(tmp_path.glob("*.json"))) == 3, 20)
    # Linux sends it as the launcher's threads end: what is still pending counts once.
    assert [set(one["came"]) for one in told(tmp_path)] == [{signal.SIGTERM}] * 3
    wait_until(lambda: not list((tmp_path / "tmp").iterdir()), 20)


def test_the_others_stop_when_the_first_is_killed(start, tmp_path):
    """They may not have met it yet, and would wait for it for ten minutes."""
    process = start("first dies")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "first process was ended by SIGKILL" in err and "run the same command again" in err
    came = [json.loads((tmp_path / f"{rank}.json").read_text())["came"] for rank in (1, 2)]
    assert came == [[signal.SIGTERM]] * 2


def test_where_no_process_lived_to_tell_it_the_launcher_does(start, tmp_path):
    process = start("deaf")
    wait_until(lambda: len(list(tmp_path.glob("*.here"))) == 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert err.splitlines()[-1] == "Stopped by SIGTERM. Run the same command again."


@pytest.mark.parametrize(
    ("codes", "came", "code"),
    [
        ([0, 0], [], 0),
        ([3, 0], [], 3),
        ([2, 1], [], 2),
        ([0, -9], [], 1),
        ([-9, 1], [], 1),
        ([75, 75], [], 75),
        ([75, 0], [15], 75),
        ([-2, 75], [2, 2], 75),
        ([0, 0], [15], 0),
        ([1, 1], [15], 1),
    ],
)
def test_exit_code(codes, came, code):
    assert exit_code(codes, came) == code


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("encode x --devices all -o y", "encode x -o y"),
        ("encode x --devices=2", "encode x"),
        ("encode --devices --devices x", "encode x"),
        ("encode --device cpu x", "encode --device cpu x"),
        ("encode --devices 2 -- --devices x", "encode -- --devices x"),
    ],
)
def test_words_less_devices(words, kept):
    assert without_devices(words.split()) == kept.split()


def test_devices_of_gpus():
    assert pick_devices("all", 4, None) == (4, None)
    assert pick_devices("2", 4, "4,5,6,7") == (2, None)
    assert pick_devices("0,2,3", 4, None) == (3, "0,2,3")
    assert pick_devices("0,2,3", 4, "4,5, 6,GPU-7") == (3, "4,6,GPU-7")
    assert pick_devices("3,", 4, None) == (1, "3")
    assert pick_devices("6", 0, None) == (6, None)


@pytest.mark.parametrize(
    ("devices", "gpus", "words"),
    [
        ("some", 4, "give all, a number"),
        ("", 4, "give all, a number"),
        ("0", 4, "at least 1"),
        ("5", 4, r"at most 4 \(GPUs here: 4\)"),
        ("999", 0, rf"at most {carried()} \(CPU cores here: {cores()}\)"),
        ("0,4", 4, "0 to 3"),
        ("1,1", 4, "each once"),
        ("all", 0, "--devices 2 --device cpu"),
        ("0,1", 0, "no GPU"),
    ],
)
def test_devices_that_cannot_be(devices, gpus, words):
    with pytest.raises(UsageError, match=words):
        pick_devices(devices, gpus, None)


def test_processes_that_cannot_be_started(tmp_path):
    with pytest.raises(LatentCliError, match=r"could not be run: .*Argument list too long"):
        launch(["x" * 4_000_000], "2", 0, None, variables())


def test_a_rank_launches_nobody():
    for environment in ({"RANK": "0", "WORLD_SIZE": "2"}, {"LATENTCLI_LAUNCHED": "1"}):
        assert is_launched(environment)
        with pytest.raises(UsageError, match="one of several already"):
            launch(["encode"], "2", 0, None, environment)
    assert not is_launched({})
