"""The sbatch script, read by bash and run with stand-ins for srun and scontrol on PATH."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from latentcli.cli.slurm import check_words
from latentcli.core.errors import UsageError
from latentcli.jobs.cluster.slurm_script import SlurmJob, script

WORDS = ("encode", "/data/my images/*.tar", "-o", "s3://b/it's", "--model", "full_capacitor")
JOB = SlurmJob(
    words=WORDS,
    nodes=2,
    gpus_per_node=4,
    partition="a100",
    account="group-7",
    setup=("source .venv/bin/activate", "export HF_HOME=/scratch/hf"),
)
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$RECORD/srun.calls"
echo "$MASTER_ADDR $MASTER_PORT $HF_HOME" > "$RECORD/meeting"
exit "$SRUN_CODE"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then
    printf 'gpu03\\ngpu04\\n'
else
    echo "$@" >> "$RECORD/scontrol.calls"
fi
"""


@pytest.fixture
def run(tmp_path: Path):
    """Runs a script as Slurm would; its exit code, and the folder of what was called."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")

    def go(text: str, code: int) -> int:
        env = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "RECORD": str(tmp_path),
            "SRUN_CODE": str(code),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "gpu[03-04]",
        }
        return subprocess.run(["bash", "-c", text], env=env, cwd=tmp_path, check=False).returncode

    return go


@pytest.mark.parametrize("job", [JOB, SlurmJob(words=WORDS, gpus_per_node=0)])
def test_bash_and_shellcheck_find_no_fault(job, tmp_path):
    path = tmp_path / "job.sh"
    path.write_text(script(job))
    subprocess.run(["bash", "-n", path], check=True)
    if checker := shutil.which("shellcheck"):
        # SC1091: the file that --setup sources is on the cluster, not here
        subprocess.run([checker, "--exclude", "SC1091", path], check=True)


def test_directives():
    lines = [line.split()[1] for line in script(JOB).splitlines() if line.startswith("#SBATCH")]
    assert dict(line.lstrip("-").partition("=")[::2] for line in lines) == {
        "job-name": "latentcli",
        "output": "%x-%j.log",
        "open-mode": "append",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gpus-per-node": "4",
        "cpus-per-task": "8",
        "time": "24:00:00",
        "partition": "a100",
        "account": "group-7",
        "signal": "USR1@180",
        "requeue": "",
    }
    assert script(JOB).startswith("#!/bin/bash\n#SBATCH ")  # sbatch reads them up to a command


def test_without_gpus_there_is_a_process_per_machine():
    text = script(SlurmJob(words=WORDS, gpus_per_node=0, nodes=3))
    assert "--ntasks-per-node=1" in text
    assert "gpus" not in text
    assert "partition" not in text


def test_srun_gets_the_command_and_the_meeting_place(run, tmp_path):
    assert run(script(JOB), 0) == 0
    options = ["--kill-on-bad-exit=1", "--cpus-per-task=8"]
    assert (tmp_path / "srun.calls").read_text().splitlines() == [*options, "latentcli", *WORDS]
    assert (tmp_path / "meeting").read_text() == f"gpu03 {20_000 + 4711} /scratch/hf\n"
    assert not (tmp_path / "scontrol.calls").exists()


@pytest.mark.parametrize(("code", "calls"), [(0, ""), (1, ""), (3, ""), (75, "requeue 4711\n")])
def test_an_interrupted_job_is_put_back(run, tmp_path, code, calls):
    assert run(script(JOB), code) == code
    record = tmp_path / "scontrol.calls"
    assert (record.read_text() if record.exists() else "") == calls


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": 0},
        {"gpus_per_node": -1},
        {"cpus_per_gpu": 0},
        {"time": "a day"},
        {"time": "24:00:00\nrm -rf x"},
        {"time": ""},
        {"job_name": "two words"},
        {"partition": "x\n#SBATCH --time=1"},
        {"account": ""},
        {"output_log": "my log.txt"},
    ],
)
def test_values_that_cannot_stand_in_a_script(change):
    with pytest.raises(UsageError, match=f"--{next(iter(change)).replace('_', '-')} is "):
        script(SlurmJob(words=WORDS, **change))


@pytest.mark.parametrize("time", ["90", "90:00", "24:00:00", "2-12", "2-12:30", "2-12:30:00"])
def test_times_that_sbatch_reads(time):
    assert f"#SBATCH --time={time}\n" in script(SlurmJob(words=WORDS, time=time))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "after two dashes"),
        ("decode store -o out", "runs encode, not 'decode'"),
        ("encode images", "Name the store with -o"),
        ("encode images -o -", "Name the store with -o"),
        ("encode - -o out", "no stdin"),
        ("encode images -o out --devices all", "Leave --devices"),
        ("encode images -o out --engine ray", "Leave --devices and --engine"),
        ("encode -o out", "Give what to read"),
        ("encode images -o out --batch-size many", "--batch-size is 'many'"),
    ],
)
def test_words_that_are_no_job_for_many(line, words):
    with pytest.raises(UsageError, match=words):
        check_words(shlex.split(line))


def test_words_that_are():
    words = ["encode", "a b", "-o", "out", "--model", "fcdm_nano", "--size", "256"]
    check_words(words)
    for left_out, told in ((slice(1, 2), "what to read"), (slice(2, 4), "Name the store")):
        with pytest.raises(UsageError, match=told):
            check_words([word for word in words if word not in words[left_out]])


def test_words_from_a_job_file(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('[read]\nsources = ["images"]\n[write]\noutput = "out"\n')
    check_words(["encode", "--config", str(path)])
    path.write_text('[read]\nsources = ["images"]\n')
    with pytest.raises(UsageError, match="Name the store"):
        check_words(["encode", "--config", str(path)])
