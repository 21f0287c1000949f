"""A latentcli command and the size of an allocation in, a script for Slurm's sbatch out."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from latentcli.core.errors import Interrupted, UsageError
from latentcli.jobs.cluster.environment import FIRST_PORT, PORTS

NOTICE_SECONDS = 180
"""How long before the time limit the processes are told to finish their batch and leave."""
TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}", re.ASCII)
"""Minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S, as sbatch reads it."""
WORD = re.compile(r"[\w.,:/%@+=-]+", re.ASCII)
"""What a name in an #SBATCH line may be made of; sbatch splits such a line at blanks."""

SCRIPT = """\
#!/bin/bash
{directives}

# Made by latentcli slurm; submit it with sbatch. Submitted again, it goes on where it was.
{setup}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$(({first_port} + SLURM_JOB_ID % {ports}))
export MASTER_ADDR MASTER_PORT

code=0
srun --kill-on-bad-exit=1 --cpus-per-task={cpus} \\
    {command} || code=$?

# {interrupted} says that the job was interrupted, by the time limit or by somebody, and can go on.
if [ "$code" -eq {interrupted} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


@dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """What is run, and on how much; one process per GPU, or per machine where there are none."""

    words: tuple[str, ...]
    """The command line without its first word, latentcli."""
    nodes: int = 1
    gpus_per_node: int = 1
    cpus_per_gpu: int = 8
    """Cores of each process."""
    time: str = "24:00:00"
    partition: str | None = None
    account: str | None = None
    job_name: str = "latentcli"
    output_log: str = "%x-%j.log"
    """Where stdout and stderr go; Slurm puts the job's name for %x and its id for %j."""
    setup: tuple[str, ...] = ()
    """Lines of bash before the command, such as one that activates an environment."""


def script(job: SlurmJob) -> str:
    """The text of the sbatch script; UsageError where a value cannot stand in one."""
    check(job)
    tasks = max(job.gpus_per_node, 1)
    options = {
        "job-name": job.job_name,
        "output": job.output_log,
        "open-mode": "append",
        "nodes": job.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": job.gpus_per_node or None,
        "cpus-per-task": job.cpus_per_gpu,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "signal": f"USR1@{NOTICE_SECONDS}",
    }
    given = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    return SCRIPT.format(
        directives="\n".join([*given, "#SBATCH --requeue"]),
        setup="".join(f"{line}\n" for line in job.setup),
        first_port=FIRST_PORT,
        ports=PORTS,
        cpus=job.cpus_per_gpu,
        command=shlex.join(("latentcli", *job.words)),
        interrupted=Interrupted.exit_code,
    )


def check(job: SlurmJob) -> None:
    """UsageError where a number is too small, or a text is none that sbatch reads."""
    least = {"nodes": 1, "gpus_per_node": 0, "cpus_per_gpu": 1}
    for name, number in least.items():
        found = getattr(job, name)
        if found < number:
            raise UsageError(f"--{dashed(name)} is {found}; it must be at least {number}.")
    for name in ("partition", "account", "job_name", "output_log"):
        text = getattr(job, name)
        if text is not None and not WORD.fullmatch(text):
            raise UsageError(
                f"--{dashed(name)} is {text!r}; allowed are letters, digits and any of .,:/%@+=-_"
            )
    if not TIME.fullmatch(job.time):
        raise UsageError(
            f"--time is {job.time!r}; give hours, minutes and seconds such as 24:00:00, or"
            " 2-12:00:00 with days."
        )


def dashed(name: str) -> str:
    """A field's name as its option has it."""
    return name.replace("_", "-")
