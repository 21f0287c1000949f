"""A command line and a choice of devices in, one process per device, the job's exit code out.

torch's elastic launcher starts the processes and serves the place where they meet. It is made for
training, where one process that ends badly ends all. Here a rank that stops leaves the others their
work, so each process runs below a small watcher (this module, run as a program): it notes the exit
code, hands signals on, and itself always ends well.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from latentcli.core.errors import Interrupted, LatentCliError, UsageError
from latentcli.jobs.cluster.environment import LAUNCHED, is_launched
from latentcli.jobs.runtime.signals import STOPPING

OPTION = "--devices"
SIGNALS = "signals"
"""The file that holds a byte per signal that came."""
LOOK = 0.1
"""Seconds between two looks of a watcher."""


def launch(
    words: Sequence[str],
    devices: str,
    device: str,
    environment: Mapping[str, str],
    *,
    command: Sequence[str] = ("-m", "latentcli"),
) -> int:
    """Runs `latentcli words` once per device of this machine; the exit code of the whole job.

    `devices` is all, a number of processes, or GPUs such as 0,2,3; `device` is --device. stdout is
    that of the first process. SIGINT, SIGTERM and SIGUSR1 are handed on and waited for: 75.
    Interrupted where no process could tell of it; UsageError where there are no such devices, and
    where the job is one of several already.
    """
    if is_launched(environment):
        raise UsageError(
            "--devices starts processes on this machine, but this is one of several already:"
            " torchrun and srun start one per device themselves. Leave it out."
        )
    gpus = "" if device == "cpu" else environment.get("CUDA_VISIBLE_DEVICES")
    count, visible = pick_devices(devices, device, gpus)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max((cores or 1) // count, 1))
    defaults = {"OMP_NUM_THREADS": threads, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    ours = {LAUNCHED: "1", "LATENTCLI_DEVICES": ""}
    ours |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    with tempfile.TemporaryDirectory(prefix="latentcli-") as folder:
        notes = Path(folder)
        with passed_on(notes / SIGNALS) as came:
            program = [*command, *without_devices(words)]
            run_elastic(count, notes, program, {**defaults, **environment, **ours})
        codes = codes_in(notes, count)
    code = exit_code(codes, came)
    if code == Interrupted.exit_code and code not in codes:  # none of them lived to tell it
        name = signal.Signals(came[0]).name
        raise Interrupted(f"Stopped by {name}. Run the same command again.")
    return code


def pick_devices(devices: str, device: str, visible: str | None) -> tuple[int, str | None]:
    """How many processes, and the GPUs that they see (None: those that there are). Loads torch.

    `visible` is CUDA_VISIBLE_DEVICES. UsageError where that cannot be.
    """
    text = devices.strip()
    if device not in ("auto", "cuda", "cpu"):
        raise UsageError(f"--device {device} is one device; with --devices give auto, cuda or cpu.")
    if text != "all" and not all(p.isascii() and p.isdecimal() for p in text.strip(",").split(",")):
        raise UsageError(
            f"--devices is {devices!r}; give all, a number of processes such as 2, or GPUs such as"
            " 0,2,3."
        )
    gpus = 0 if device == "cpu" else count_gpus()
    if "," in text:
        return listed(text, gpus, visible)
    if text == "all" and not gpus:
        raise UsageError(
            "--devices all starts one process per GPU, and there is none to use. Give the number of"
            " processes: --devices 2 --device cpu."
        )
    count = gpus if text == "all" else int(text)
    if count < 1 or 0 < gpus < count:
        raise UsageError(f"--devices is {text}; it must be at least 1 and at most {gpus or 'any'}.")
    return count, None


def listed(text: str, gpus: int, visible: str | None) -> tuple[int, str]:
    """The GPUs of a list such as 0,2,3."""
    chosen = [int(part) for part in text.strip(",").split(",")]
    if len(set(chosen)) < len(chosen) or max(chosen) >= gpus:
        there = f"0 to {gpus - 1}, each once" if gpus else "none: there is no GPU to use"
        raise UsageError(f"--devices is {text}; allowed are {there}.")
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return len(chosen), ",".join(names[number].strip() for number in chosen)


def count_gpus() -> int:
    """GPUs that torch sees."""
    import torch

    return torch.cuda.device_count()


def without_devices(words: Sequence[str]) -> list[str]:
    """The words less --devices and its value."""
    end = words.index("--") if "--" in words else len(words)
    kept: list[str] = []
    skip = False
    for word in words[:end]:
        if not skip and word != OPTION and not word.startswith(f"{OPTION}="):
            kept.append(word)
        skip = not skip and word == OPTION
    return [*kept, *words[end:]]


@contextmanager
def passed_on(path: Path) -> Iterator[list[int]]:
    """Signals that come meanwhile, in a list, and as bytes in a file that the watchers read."""
    came: list[int] = []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        os.write(handle, bytes([number]))

    before = {}
    with suppress(ValueError):  # not the main thread: nobody sends it signals
        before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(handle)


def run_elastic(
    count: int, notes: Path, words: Sequence[str], variables: Mapping[str, str]
) -> None:
    """Starts the watchers and waits for them; LatentCliError where torch's launcher gives up."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        signals_to_handle="SIGQUIT",  # the others are ours
    )
    watcher = ["-m", __name__, str(notes), str(os.getpid()), *words]
    reporter = logging.getLogger("torch.distributed")
    quiet, propagate = logging.NullHandler(), reporter.propagate
    reporter.addHandler(quiet)
    reporter.propagate = False
    before = dict(os.environ)
    try:
        os.environ |= variables
        elastic_launch(config, sys.executable)(*watcher)
    except (ChildFailedError, SignalException, RuntimeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise LatentCliError(f"The processes could not be run: {reason}") from error
    finally:
        os.environ.clear()
        os.environ |= before
        reporter.removeHandler(quiet)
        reporter.propagate = propagate


def codes_in(notes: Path, count: int) -> list[int]:
    """Exit code of each process; 1 where its watcher noted none."""
    paths = [notes / str(rank) for rank in range(count)]
    return [int(path.read_text()) if path.is_file() else 1 for path in paths]


def exit_code(codes: Sequence[int], came: Sequence[int]) -> int:
    """The job's exit code, of those of its processes, first the leader's."""
    if came and any(code in (Interrupted.exit_code, *(-n for n in STOPPING)) for code in codes):
        return Interrupted.exit_code
    leader = codes[0]
    if leader:
        return leader if leader > 0 else 1
    return 1 if any(codes) else 0


def watch(notes: Path, parent: int, words: Sequence[str], rank: int) -> None:
    """Runs one process: hands on the signals of the file, and notes the exit code.

    Without its launcher, or with the first process killed, it goes on until the batch is done: the
    process gets SIGTERM.
    """
    stop = [0]
    for number in STOPPING:
        signal.signal(number, lambda number, _: stop.__setitem__(0, number))
    out = subprocess.DEVNULL if rank else None
    # Its own session: a launcher that signals this one's whole group must not reach it twice.
    process = subprocess.Popen([sys.executable, *words], stdout=out, start_new_session=True)
    sent = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(LOOK)
            break
        came = (notes / SIGNALS).read_bytes()[sent:] if (notes / SIGNALS).is_file() else b""
        alone = os.getppid() != parent or was_killed(notes)
        if not came and not sent and (alone or stop[0]):
            came = bytes([stop[0] or signal.SIGTERM])
        for each in came:
            process.send_signal(each)
        sent += len(came)
    if notes.is_dir():
        (notes / f"{rank}.part").write_text(str(code))
        (notes / f"{rank}.part").rename(notes / str(rank))
    if os.getppid() != parent:
        clear_up(notes, int(os.environ["LOCAL_WORLD_SIZE"]))
    if code < 0 and not rank and code not in (-number for number in STOPPING):
        print(
            f"error: The first process was ended by {signal.Signals(-code).name}. The others finish"
            " their batch; run the same command again to finish the rest.",
            file=sys.stderr,
        )


def clear_up(notes: Path, count: int) -> None:
    """The last of `count` watchers deletes the notes where the launcher cannot do it any more."""
    if sum(path.name.isdecimal() for path in notes.glob("*")) == count:
        shutil.rmtree(notes, ignore_errors=True)


def was_killed(notes: Path) -> bool:
    """Whether the first process was: before it has met the others, they cannot know it."""
    note = notes / "0"
    return note.is_file() and note.read_text().startswith("-")


if __name__ == "__main__":
    watch(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:], int(os.environ["LOCAL_RANK"]))
