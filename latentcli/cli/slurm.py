"""`latentcli slurm`: an encode command in, a script for Slurm's sbatch on stdout out."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.main import get_command

from latentcli.cli.encode import encode
from latentcli.cli.jobfile import resolve
from latentcli.cli.output import output_of
from latentcli.cli.setting import plain
from latentcli.core.errors import UsageError
from latentcli.jobs.cluster.slurm_script import SlurmJob, script
from latentcli.jobs.config import EncodeJob

EXAMPLE = "latentcli slurm --gpus-per-node 8 -- encode SRC -o OUT --model full_capacitor"

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- encode SRC -o OUT ...",
        help="The command to run, after two dashes; its output must be named.",
        show_default=False,
    ),
]
Nodes = Annotated[int | None, plain("nodes", "Machines. Default: 1.", metavar="N")]
GpusPerNode = Annotated[
    int | None,
    plain(
        "gpus_per_node",
        "GPUs of each machine, with a process for each; 0 runs one process per machine on the CPU."
        " Default: 1.",
        metavar="N",
    ),
]
CpusPerGpu = Annotated[
    int | None, plain("cpus_per_gpu", "CPU cores of each process. Default: 8.", metavar="N")
]
Time = Annotated[
    str | None, plain("time", "Time limit. Default: 24:00:00.", metavar="[D-]HH:MM:SS")
]
Partition = Annotated[
    str | None, plain("partition", "Partition. Default: the cluster's.", metavar="NAME")
]
Account = Annotated[
    str | None, plain("account", "Account that is charged. Default: yours.", metavar="NAME")
]
JobName = Annotated[
    str | None, plain("job_name", "The job's name. Default: latentcli.", metavar="NAME")
]
OutputLog = Annotated[
    str | None,
    plain("output_log", "File for stdout and stderr. Default: %x-%j.log.", metavar="PATH"),
]
Setup = Annotated[
    list[str] | None,
    plain(
        "setup",
        'A line of bash that runs first, such as "source .venv/bin/activate". Repeat for several.'
        " Default: none.",
        metavar="LINE",
    ),
]


def slurm(
    context: typer.Context,
    words: Words = None,
    nodes: Nodes = None,
    gpus_per_node: GpusPerNode = None,
    cpus_per_gpu: CpusPerGpu = None,
    time: Time = None,
    partition: Partition = None,
    account: Account = None,
    job_name: JobName = None,
    output_log: OutputLog = None,
    setup: Setup = None,
) -> None:
    """Print an sbatch script that runs an encode job, with one process per GPU.

    At the time limit the job finishes its batches and puts itself back into the queue.
    """
    check_words(words or [])
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in context.params.items()
        if value not in (None, [], ())
    }
    output_of(context).stdout.out(script(SlurmJob(**given)), end="", highlight=False)


def check_words(words: list[str]) -> None:
    """UsageError where the words are no encode job that several processes can share."""
    if not words:
        raise UsageError(f"Give the command after two dashes, such as: {EXAMPLE}")
    if words[0] != "encode":
        raise UsageError(f"latentcli slurm runs encode, not {words[0]!r}; give it as in: {EXAMPLE}")
    app = typer.Typer()
    app.command()(encode)
    with get_command(app).make_context("latentcli encode", list(words[1:])) as context:
        job, given = resolve(EncodeJob, "encode", context.params, needs="sources")
    if "devices" in given or "engine" in given:
        raise UsageError(
            "Leave --devices and --engine out: Slurm starts one process per GPU already."
        )
    if "output" not in given or job.output == "-":
        raise UsageError(
            "Name the store with -o, as a folder or URL that all machines reach: the command must"
            " find it again when the job goes on."
        )
    if "-" in job.sources:
        raise UsageError("A Slurm job has no stdin to read; give folders, files or URLs.")
