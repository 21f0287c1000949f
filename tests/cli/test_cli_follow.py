"""Jobs that are followed by --log-json, --metrics-file and --track: what they tell, to the end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from clikit import Run
from harness.held_job import bare_environment, job_that_waits

pytestmark = pytest.mark.usefixtures("pictures")

LATENTCLI = (sys.executable, "-m", "latentcli")
BASE = {"time", "event", "verb", "store", "model", "rank", "world"}
BASE |= {"noun", "done", "total", "failed", "units", "bytes"}
FIGURES = {"elapsed", "rate", "rate_whole", "eta", "stages", "bottleneck", "bottleneck_reason"}
MORE = {
    "start": {"host", "pid", "command", "version"},
    "status": {"text"},
    "note": {"text"},
    "unit": {"unit"},
    "progress": FIGURES,
    "end": FIGURES | {"exit_code", "error"},
}


def events(path: Path | str = "log.jsonl") -> list[dict[str, Any]]:
    """All lines of a log; each has the fields that the page lists."""
    found = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for event in found:
        wanted = BASE | MORE[event["event"]]
        assert event.keys() <= wanted
        assert wanted - event.keys() <= (FIGURES if event["done"] is None else set())
    return found


def encode_words(toy: list[str], *more: object) -> list[object]:
    words = ["encode", "images", *toy, "--size", 32, "--samples-per-shard", 1, "-o", "out"]
    return [*words, "--log-json", "log.jsonl", *more]


def test_encode(cli: Run, toy: list[str]) -> None:
    done = cli(*encode_words(toy))
    assert done.code == 0, done.err
    found = events()
    names = Counter(event["event"] for event in found)
    assert (names["start"], names["unit"], names["end"]) == (1, 4, 1)
    assert (found[0]["event"], found[-1]["event"]) == ("start", "end")
    units = [event["unit"] for event in found if event["event"] == "unit"]
    assert sorted(unit["unit"] for unit in units) == [0, 1, 2, 3]
    assert sum(unit["encoded"] for unit in units) == 4
    assert sum(unit["bytes"] for unit in units) == found[-1]["bytes"] > 0
    end = found[-1]
    assert (end["exit_code"], end["error"], end["done"], end["total"]) == (0, None, 4, 4)
    assert (end["store"], end["verb"], end["units"]) == ("out", "encode", 4)
    assert {"read", "decode_image", "encode", "write"} <= end["stages"].keys()
    assert any(event.get("text") == "Loading the model" for event in found)


def test_metrics(cli: Run, toy: list[str]) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    done = cli(*encode_words(toy, "--metrics-file", "job.prom"))
    assert done.code == 0, done.err
    families = parser.text_string_to_metric_families(Path("job.prom").read_text())
    found = {family.name: family.samples[0] for family in families}
    assert found["latentcli_items_done"].value == 4
    assert found["latentcli_exit_code"].value == found["latentcli_running"].value == 0
    assert found["latentcli_running"].labels["store"] == "out"


def test_a_job_that_goes_on_appends(cli: Run, toy: list[str]) -> None:
    assert cli(*encode_words(toy, "--limit", 2)).code == 0
    assert cli(*encode_words(toy)).code == 0
    assert cli(*encode_words(toy)).code == 0
    units = [e["unit"]["unit"] for e in events() if e["event"] == "unit"]
    assert Counter(units) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert [e["exit_code"] for e in events() if e["event"] == "end"] == [0, 0, 0]
    assert events()[-1]["done"] is None, "nothing was left to do"


def test_the_end_of_jobs_that_fail(cli: Run, toy: list[str]) -> None:
    Path("images/picture 1.png").write_bytes(b"no picture")
    failed = cli(*encode_words(toy))
    assert failed.code == events()[-1]["exit_code"] == 3
    assert events()[-1]["error"] in failed.err and events()[-1]["failed"] == 1
    other = cli(*encode_words(toy, "--latents", "raw"))
    assert other.code == events()[-1]["exit_code"] == 1
    assert "made with other options" in events()[-1]["error"]


def test_a_stopped_job_says_so(tiny_model: Path, tmp_path: Path) -> None:
    log = ["--log-json", str(tmp_path / "log.jsonl")]
    with job_that_waits(tmp_path, str(tmp_path / "out"), str(tiny_model), log) as job:
        job.process.send_signal(signal.SIGTERM)
        job.process.wait(timeout=60)
        assert job.process.returncode == 75
        end = events()[-1]
        assert (end["event"], end["exit_code"]) == ("end", 75)
        assert end["error"].startswith("Stopped by SIGTERM. ")
        assert "Run the same command again" in end["error"]


def test_other_commands(cli: Run, store: Path, tiny_model: Path) -> None:
    model = ("--model", tiny_model, "--device", "cpu")
    weights = ("--weights", tiny_model, "--device", "cpu")
    log = ("--log-json", "log.jsonl")
    for words, noun in (
        (("decode", store, "-o", "back", *model), "images"),
        (("roundtrip", "images", "--size", 32, "--workers", 0, *model), "images"),
        (("bench", "--resolution", 32, "--batch", 1, "--repeats", 1, *model), "cases"),
        (("verify", store, *weights), "images"),
    ):
        done = cli(*words, *log)
        end = events()[-1]
        assert (end["event"], end["verb"], end["exit_code"]) == ("end", words[0], done.code)
        assert done.code == 0, done.err
        assert end["done"] == end["total"] and end["noun"] == noun
    begun = [event["verb"] for event in events() if event["event"] == "start"]
    assert begun == ["decode", "roundtrip", "bench", "verify"]


def test_a_plan_writes_no_log(cli: Run, toy: list[str]) -> None:
    assert cli("plan", *encode_words(toy)[1:]).code == 0
    assert not Path("log.jsonl").exists()


def test_a_folder_that_goes_away_costs_a_note(
    cli: Run, toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentcli.jobs.encode import job as job_module

    def gone(job: Any, reporter: Any) -> Any:
        shutil.rmtree("logs")
        return real(job, reporter)

    real = job_module.run_encode
    Path("logs").mkdir()
    monkeypatch.setattr(job_module, "run_encode", gone)
    done = cli(*encode_words(toy), "--log-json", "logs/log.jsonl")
    assert done.code == 0
    told = "The log logs/log.jsonl cannot be written: No such file or directory. The job goes on."
    assert done.err.count(told) == 1 and done.err.count("cannot be written") == 1


def test_a_full_disk_costs_a_note(cli: Run, toy: list[str]) -> None:
    done = cli(*encode_words(toy)[:-2], "--log-json", "/dev/full")
    assert done.code == 0
    assert done.err.count("The log /dev/full cannot be written: No space left on device.") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--log-json", "-"), "--log-json - would mix with the data on standard output"),
        (("--log-json", "nowhere/log"), "there is no folder nowhere; make it first"),
        (("--metrics-file", "job.txt"), "ends in .prom"),
        (("--track", "mlflow"), "--track is 'mlflow'; allowed are wandb"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(
    cli: Run, toy: list[str], words: tuple[str, ...], told: str
) -> None:
    done = cli(*encode_words(toy)[:-2], *words)
    assert done.code == 2 and told in done.err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("option", "library", "extra"),
    [
        (("--track", "wandb"), "wandb", "wandb"),
        (("--metrics-file", "job.prom"), "prometheus_client", "prometheus"),
    ],
)
def test_an_extra_that_is_missing(
    cli: Run, toy: list[str], monkeypatch: pytest.MonkeyPatch, option: Any, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    done = cli(*encode_words(toy)[:-2], *option)
    assert done.code == 2 and f"pip install 'latentcli[{extra}]'" in done.err
    assert not Path("out").exists()


SLOW = """
import json, time
from pathlib import Path

class Settings:
    def __init__(self, **settings): ...

class Run:
    summary = {}
    class config:
        update = staticmethod(lambda *words, **more: None)
    def log(self, figures): ...
    def finish(self, exit_code):
        Path("finished").write_text(str(exit_code))

def init(**words):
    until = time.monotonic() + 60
    while not Path("out/manifest.json").exists():
        if time.monotonic() > until:
            raise RuntimeError("the job waits for its run")
        time.sleep(0.01)
    return Run()
"""
"""A library whose run does not begin before the job is at work."""


def test_the_job_does_not_wait_for_the_start_of_a_run(
    cli: Run, toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "wandb.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    done = cli(*encode_words(toy)[:-2], "--track", "wandb")
    sys.modules.pop("wandb", None)
    assert done.code == 0 and "cannot be written" not in done.err
    assert Path("finished").read_text() == "0"


def test_a_job_that_is_followed_still_forks_its_processes(tiny_model: Path) -> None:
    """A thread that begins too early would cost an interpreter that loads torch again."""
    code = (
        "import sys\n"
        "from latentcli.cli.app import main\n"
        "from latentcli.jobs.loader import fork_server\n"
        "fork_server._interpreter = lambda: sys.exit('an interpreter was started')\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["encode", "images", "-o", "out", "--model", str(tiny_model), "--device", "cpu"]
    words += ["--workers", "1", "--no-self-check", "--size", "32", "--log-json", "log.jsonl"]
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=bare_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [event["event"] for event in events()][:2] == ["start", "status"]


def test_a_job_file_may_ask_for_it(cli: Run, toy: list[str]) -> None:
    Path("job.toml").write_text('[follow]\nlog_json = "log.jsonl"\n')
    assert cli("encode", "images", *toy, "-o", "out", "--config", "job.toml").code == 0
    assert events()[-1]["exit_code"] == 0


def test_a_stream_on_stdout_is_left_alone(tiny_model: Path, tmp_path: Path) -> None:
    words = ["encode", "images", "-o", "-", "--model", str(tiny_model), "--device", "cpu"]
    words += ["--workers", "0", "--no-self-check", "--quiet", "--size", "32"]
    streams = [
        subprocess.run([*LATENTCLI, *words, *more], env=bare_environment(), capture_output=True)
        for more in ((), ("--log-json", "log.jsonl"))
    ]
    assert streams[0].stdout == streams[1].stdout and len(streams[0].stdout) > 1000
    assert (events()[-1]["store"], events()[-1]["exit_code"]) == ("-", 0)


def test_of_several_processes_the_first_tells_all_units(tiny_model: Path, toy: list[str]) -> None:
    words = encode_words(toy, "--devices", 2)
    done = subprocess.run(
        [*LATENTCLI, *map(str, words)],
        env=bare_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = events()
    assert {(event["rank"], event["world"]) for event in found} == {(0, 2)}
    units = [event["unit"] for event in found if event["event"] == "unit"]
    assert Counter(unit["unit"] for unit in units) == {0: 1, 1: 1, 2: 1, 3: 1}
    end = found[-1]
    assert (end["done"], end["total"], end["units"], end["exit_code"]) == (4, 4, 4, 0)
