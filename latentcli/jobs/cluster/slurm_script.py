"""Writes a script for Slurm's sbatch that runs a latentcli command."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from latentcli.core.errors import Interrupted, UsageError
from latentcli.core.options import check_options, option
from latentcli.jobs.cluster.environment import FIRST_PORT, PORTS

NOTICE_SECONDS = 180
"""How long before the time limit the processes are asked to finish their batch and leave."""
TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}", re.ASCII)
"""Minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S, as sbatch reads it."""
WORD = re.compile(r"[\w.,:/%@+=-]+", re.ASCII)
"""What a name in an #SBATCH line may be made of; sbatch splits such a line at blanks."""

SCRIPT = """\
#!/bin/bash
{directives}

# Made by latentcli slurm; submit it with sbatch. Submit it again to resume.
{setup}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$(({first_port} + SLURM_JOB_ID % {ports}))
export MASTER_ADDR MASTER_PORT

code=0
srun --kill-on-bad-exit=1 --cpus-per-task={cpus} \\
    {command} || code=$?

# {interrupted} says that the job was interrupted, by the time limit or a signal, and can resume.
if [ "$code" -eq {interrupted} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


@dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """What is run, and on how much; one process per GPU, or per machine where there are none."""

    words: tuple[str, ...] = option(
        (),
        "The encode command to run, after two dashes, with -o.",
        argument=True,
        metavar="-- encode SRC -o OUT ...",
    )
    nodes: int = option(1, "Machines. Default: 1.", least=1)
    gpus_per_node: int = option(
        1,
        "GPUs of each machine, with one process per GPU. 0: one process per machine, on the CPU."
        " Default: 1.",
        least=0,
    )
    cpus_per_gpu: int = option(8, "CPU cores of each process. Default: 8.", least=1)
    time: str = option("24:00:00", "Time limit. Default: 24:00:00.", metavar="[D-]HH:MM:SS")
    partition: str | None = option(None, "Partition. Default: the cluster's.", metavar="NAME")
    account: str | None = option(None, "Account that is charged. Default: yours.", metavar="NAME")
    job_name: str = option("latentcli", "The job's name. Default: latentcli.", metavar="NAME")
    output_log: str = option(
        "%x-%j.log", "File for stdout and stderr. Default: %x-%j.log.", metavar="PATH"
    )
    setup: tuple[str, ...] = option(
        (),
        'A line of bash that runs first, such as "source .venv/bin/activate". Repeat for several.'
        " Default: none.",
        metavar="LINE",
    )


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
    check_options(job)
    for name in ("partition", "account", "job_name", "output_log"):
        text = getattr(job, name)
        if text is not None and not WORD.fullmatch(text):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} is {text!r}; allowed are letters, digits and any of .,:/%@+=-_"
            )
    if not TIME.fullmatch(job.time):
        raise UsageError(
            f"--time is {job.time!r}; give hours, minutes and seconds such as 24:00:00, or"
            " 2-12:00:00 with days."
        )
