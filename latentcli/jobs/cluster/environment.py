"""Reads from the environment which process of a job this one is; it loads no torch.

torchrun and Slurm's srun start the same command several times and tell each process by variables
which one it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from latentcli.core.errors import UsageError

BATCH_STEPS = ("", "batch", "interactive", "extern", "4294967290", "4294967291", "4294967292")
"""Step ids under which Slurm runs one process, whatever SLURM_NTASKS says: the script itself."""

LAUNCHED = "LATENTCLI_LAUNCHED"
"""Set for the processes that --devices starts: they start no others, whatever a job file says."""

FIRST_PORT, PORTS = 20_000, 12_000
"""Ports that are derived from a Slurm job's id; all lie below those that Linux hands out."""

HOST_PART = re.compile(r"(?:\[[^\]]*\]|[^,\[])+")
HOST_PIECE = re.compile(r"\[([^\]]*)\]|([^\[]+)")


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of a job: number `rank` of `world`, and number `local` on its machine."""

    rank: int
    world: int
    local: int
    sharing: int = 1
    """How many share the cores it may use: torchrun gives all to each, srun each its own."""

    @property
    def leader(self) -> bool:
        """Whether this process prepares the job and finishes it."""
        return self.rank == 0


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the processes of one job meet."""

    host: str
    port: int
    launch: str
    """A name that another start of the same job does not have."""
    served: bool
    """Whether the launcher (torchrun, or --devices) serves the place; else the leader does."""


def rank_of(environment: Mapping[str, str]) -> Rank:
    """This process's place: torchrun's variables first, then those of a step of srun, else alone.

    UsageError where the variables contradict each other or are no numbers.
    """
    names = names_of(environment)
    if not names:
        return Rank(0, 1, 0)
    rank, world, local = (number(environment, name, 0) for name in names)
    sharing = max(number(environment, "LOCAL_WORLD_SIZE", 1), 1) if world > 1 else 1
    if world < 1 or rank >= world or local >= world:
        said = ", ".join(f"{name}={environment.get(name, 0)}" for name in names)
        raise UsageError(
            f"The environment says {said}, which is impossible: ranks go from 0 to the number of"
            " processes minus 1. Start the job with torchrun or srun, or unset them."
        )
    return Rank(rank, world, local, sharing)


def names_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The variables of rank, number of processes and local rank; none where no launcher set any."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if in_step(environment):
        tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
        return ("SLURM_PROCID", tasks, "SLURM_LOCALID")
    return ()


def conclusion(environment: Mapping[str, str]) -> str:
    """From what a process knows that there are others, and what to do where there are none.

    Empty where --devices started it, as that started the others too.
    """
    names = names_of(environment)[:2]
    if not names or LAUNCHED in environment:
        return ""
    said = " and ".join(f"{name}={environment[name]}" for name in names)
    return (
        f"{said} say that there are {environment[names[1]]} processes; if this is the only one,"
        f" unset {' and '.join(names)}."
    )


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started this process: then it drives one device, and --devices is done."""
    return LAUNCHED in environment or rank_of(environment).world > 1


def refuse_ranks(verb: str, environment: Mapping[str, str]) -> None:
    """UsageError for a command that would do all its work in each of several processes."""
    if rank_of(environment).world > 1:
        raise UsageError(
            f"{verb} runs in one process, and this is one of several: leave out torchrun or srun."
        )


def in_step(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process; a batch script or an salloc shell is one process."""
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID", ""))
    counted = {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"} & environment.keys()
    return "SLURM_PROCID" in environment and bool(counted) and step not in BATCH_STEPS


def number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A variable that counts something; UsageError where it is none of 0, 1, 2, ..."""
    text = environment.get(name, str(default))
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"The variable {name} is {text!r}; it must be a whole number, 0 or more.")
    return int(text)


def rendezvous_of(environment: Mapping[str, str]) -> Rendezvous:
    """Where the processes meet: MASTER_ADDR and MASTER_PORT, else the first host of the step.

    UsageError where neither is known.
    """
    host = environment.get("MASTER_ADDR") or None
    if "RANK" in environment and "WORLD_SIZE" in environment:
        if host is None or not environment.get("MASTER_PORT"):
            raise UsageError(
                "RANK and WORLD_SIZE say that this is one of several processes, but MASTER_ADDR and"
                " MASTER_PORT do not say where they meet. Start the job with torchrun, or unset"
                " RANK to run alone."
            )
        launch = launch_of(environment, "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
        served = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return Rendezvous(host, port_of(environment, 0), launch, served)
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID", "0"))
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    host = host or next(hosts(nodes), None)
    if host is None:
        raise UsageError(
            "SLURM_JOB_NODELIST is not set, so the machine of the first process is unknown. Set"
            " MASTER_ADDR to its name."
        )
    derived = number(environment, "SLURM_JOB_ID", 0) + 31 * (int(step) if step.isdecimal() else 0)
    launch = launch_of(environment, "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    port = port_of(environment, FIRST_PORT + derived % PORTS)
    return Rendezvous(host, port, launch, False)


def launch_of(environment: Mapping[str, str], *names: str) -> str:
    """The launch's name: what these variables say."""
    return ".".join(environment.get(name, "0").replace("/", "_") for name in names)


def port_of(environment: Mapping[str, str], derived: int) -> int:
    """MASTER_PORT, or the derived one; UsageError for what is no port."""
    port = number(environment, "MASTER_PORT", derived)
    if not 0 < port < 65_536:
        raise UsageError(f"MASTER_PORT is {port}; a port is 1 to 65535.")
    return port


def hosts(text: str) -> Iterator[str]:
    """Each name of a Slurm host list such as gpu[01-04,07],login1, in its order."""
    for part in HOST_PART.findall(text):
        pieces = HOST_PIECE.findall(part)
        choices = [list(bracket(inside)) if inside else [plain] for inside, plain in pieces]
        yield from ("".join(names) for names in product(*choices))


def bracket(text: str) -> Iterator[str]:
    """01, 02, 03, 07 for 01-03,07; UsageError for what Slurm does not write."""
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII)
        if found is None:
            raise UsageError(f"The Slurm host list has [{text}]; expected numbers and ranges.")
        first, last = found[1], found[2] or found[1]
        yield from (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
