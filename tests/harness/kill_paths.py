"""Lists the ways to run a job: its command line, what it starts from, and who is struck."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.processes import marked, variable
from harness.s3 import s3_server
from harness.stores import Bucket
from harness.toys import toy_pictures, toy_tars

Victims = Callable[[subprocess.Popen[bytes], random.Random], tuple[str, list[int]]]
"""Gives who of a running job is to be killed, in words and as process numbers."""
PYTHON = (sys.executable, "-m")
TARS, SAMPLES = 12, 10
"""Tars of a job, and samples in each."""


@dataclass(frozen=True, slots=True)
class Job:
    """One encode job and what an undisturbed run of it gave."""

    command: tuple[str, ...]
    """Without the output folder."""
    units: int
    reference: Mapping[str, bytes | None] = field(default_factory=dict)
    startup: float = 0.0
    """Seconds until the store's first file."""
    writing: float = 0.0
    """Seconds from there to the last commit record."""
    victims: Victims = lambda process, chance: ("", [process.pid])
    lives_on: bool = False
    """Whether the job itself is to go on after the kill."""
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Toy:
    """What a path makes its job of."""

    folder: Path
    model: str
    inputs: int = 240
    samples_per_shard: int = 4
    workers: int = 2

    @property
    def units(self) -> int:
        return -(-self.inputs // self.samples_per_shard)

    def command(self, source: object, *more: str) -> tuple[str, ...]:
        """A plain job of one process."""
        samples = None if str(source).endswith(".tar") else self.samples_per_shard
        return (*encode_command(source, self.model, self.workers, samples), *more)

    def pictures(self) -> Path:
        """The pictures, made once."""
        folder = self.folder / "pictures"
        return folder if folder.exists() else toy_pictures(folder, self.inputs, bad_every=10)

    def tars(self) -> str:
        """The tars, made once."""
        return toy_tars(self.folder / "tars", TARS, SAMPLES, bad_every=10)


def encode_command(
    source: object, model: str, workers: int, samples_per_shard: int | None
) -> tuple[str, ...]:
    """`latentcli encode` as it is run here; of tars, each is a shard."""
    samples = ("--samples-per-shard", str(samples_per_shard)) if samples_per_shard else ()
    return (
        *(*PYTHON, "latentcli", "encode", str(source), "--model", model),
        *("--resize", "none", "--batch-size", "3", "--workers", str(workers), "--max-bad", "100%"),
        *(*samples, "--no-self-check", "--device", "cpu"),
    )


def any_rank(process: subprocess.Popen[bytes], chance: random.Random) -> tuple[str, list[int]]:
    """A rank, or the launcher, or all processes at once."""
    choices = {"the launcher": [process.pid], "all processes": [process.pid, *marked()]}
    for pid, words in marked().items():
        if "-m" in words and words[words.index("-m") + 1] == "latentcli" and pid != process.pid:
            choices[f"rank {variable(pid, 'RANK')}"] = [pid]
    who = chance.choice(sorted(choices))
    return who, choices[who]


def any_actor(process: subprocess.Popen[bytes], chance: random.Random) -> tuple[str, list[int]]:
    """One of the actors that encode."""
    found = [pid for pid, words in marked().items() if words[0].startswith("ray::EncodeActor")]
    return "an actor", [chance.choice(found)] if found else []


def driver_or_all(process: subprocess.Popen[bytes], chance: random.Random) -> tuple[str, list[int]]:
    """The process that was started by hand, or with it all that it has started."""
    both = {"the driver": [process.pid], "all processes": [process.pid, *marked()]}
    who = chance.choice(sorted(both))
    return who, both[who]


@contextmanager
def folder_jobs(toy: Toy) -> Iterator[tuple[Path | str, Sequence[Job]]]:
    """A folder of pictures."""
    yield toy.folder, [Job(toy.command(toy.pictures()), toy.units)]


@contextmanager
def tar_jobs(toy: Toy) -> Iterator[tuple[Path | str, Sequence[Job]]]:
    """Tars in, safetensors out."""
    yield toy.folder, [Job(toy.command(toy.tars()), TARS)]


@contextmanager
def webdataset_jobs(toy: Toy) -> Iterator[tuple[Path | str, Sequence[Job]]]:
    """Tars in, tars out."""
    yield toy.folder, [Job(toy.command(toy.tars(), "--format", "webdataset"), TARS)]


@contextmanager
def remote_jobs(toy: Toy) -> Iterator[tuple[Path | str, Sequence[Job]]]:
    """Pictures, or tars, on an S3 server in, a store there out."""
    toy.pictures()
    local = toy.tars()
    with s3_server() as server:
        url = server.bucket()
        for name in ("pictures", "tars"):
            Bucket(f"{url}/{name}").put(toy.folder / name)
        tars = local.replace(str(toy.folder), url)
        yield (
            url,
            [
                Job(toy.command(f"{url}/pictures"), toy.units),
                Job(toy.command(tars, "--format", "webdataset"), TARS),
            ],
        )


@contextmanager
def torchrun_jobs(toy: Toy) -> Iterator[tuple[Path | str, Sequence[Job]]]:
    """Two ranks, started by `--devices 2` or by torchrun itself."""
    plain = toy.command(toy.pictures())
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    silence = {"LATENTCLI_SILENCE_SECONDS": "10"}
    yield (
        toy.folder,
        [
            Job(command, toy.units, victims=any_rank, variables=silence)
            for command in ((*plain, "--devices", "2"), (*PYTHON, *torchrun, *plain[1:]))
        ],
    )


@contextmanager
def ray_worker_jobs(toy: Toy) -> Iterator[tuple[Path | str, Sequence[Job]]]:
    """Two Ray actors, of which one is killed; the job itself goes on."""
    command = toy.command(toy.pictures(), "--engine", "ray", "--devices", "2")
    yield toy.folder, [Job(command, toy.units, victims=any_actor, lives_on=True)]


@contextmanager
def ray_job_jobs(toy: Toy) -> Iterator[tuple[Path | str, Sequence[Job]]]:
    """Two Ray actors; the driver is killed, alone or with all that it started."""
    command = toy.command(toy.pictures(), "--engine", "ray", "--devices", "2")
    yield toy.folder, [Job(command, toy.units, victims=driver_or_all)]


PATHS = {
    "folder": folder_jobs,
    "tar": tar_jobs,
    "webdataset": webdataset_jobs,
    "remote": remote_jobs,
    "torchrun": torchrun_jobs,
    "ray-worker": ray_worker_jobs,
    "ray-job": ray_job_jobs,
}
