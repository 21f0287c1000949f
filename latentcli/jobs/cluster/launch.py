"""Starts one process per device of this machine, and gives the exit code of the whole job.

The processes are started plainly. torch's launcher is made for training, where one process that
ends badly ends all; here a rank that stops leaves the others their work. The launcher serves the
store where they meet, on a port that it never lets go.

Each process has a session of its own, so that Ctrl-C reaches it once, through the launcher. When
the launcher is killed Linux sends them SIGTERM; elsewhere they find the store gone, and end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product

from latentcli.core.errors import Interrupted, LatentCliError, UsageError
from latentcli.jobs.cluster.environment import LAUNCHED, is_launched
from latentcli.jobs.runtime.machine import carried, cores
from latentcli.jobs.runtime.process import STOPPING, stopped_by
from latentcli.jobs.runtime.signals import handled, held_back

OPTION = "--devices"
LOOK = 0.1
"""Seconds between two looks at the processes."""
PR_SET_PDEATHSIG = 1
"""Linux's prctl(2): which signal a process gets when its parent dies."""


def launch(
    words: Sequence[str],
    devices: str,
    gpus: int,
    variable: str | None,
    environment: Mapping[str, str],
    *,
    command: Sequence[str] = ("-m", "latentcli"),
) -> int:
    """Runs `latentcli words` once per device of this machine; the exit code of the whole job.

    `devices` is all, a number of processes, or GPUs such as 0,2,3; there are `gpus` of them, and
    `variable` chooses which a process sees. stdout is that of the first process. SIGINT, SIGTERM
    and SIGUSR1 are handed on and waited for: 75. Interrupted where no process could tell of it;
    UsageError where there are no such devices, and where the job is one of several already.
    """
    if is_launched(environment):
        raise UsageError(
            "--devices starts processes on this machine, but this is one of several already:"
            " torchrun and srun start one per device themselves. Leave it out."
        )
    count, visible = pick_devices(devices, gpus, environment.get(variable or ""))
    threads = str(max(cores() // count, 1))
    defaults = {"OMP_NUM_THREADS": threads, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    ours = {LAUNCHED: "1", "LATENTCLI_DEVICES": ""}
    ours |= {variable: visible} if variable and visible is not None else {}
    variables = {**defaults, **environment, **ours}
    came: list[int] = []
    with handled(lambda number, _: came.append(number)):
        codes = run_ranks(count, [*command, *without_devices(words)], variables, came)
    code = exit_code(codes, came)
    if code == Interrupted.exit_code and code not in codes:  # none of them lived to tell it
        raise Interrupted(f"{stopped_by(came[0])} Run the same command again.")
    return code


def pick_devices(devices: str, gpus: int, visible: str | None) -> tuple[int, str | None]:
    """How many processes, and the GPUs that they see (None: those that there are).

    There are `gpus` to use, which are named by `visible`. UsageError where that cannot be.
    """
    text = devices.strip()
    if text != "all" and not all(p.isascii() and p.isdecimal() for p in text.strip(",").split(",")):
        raise UsageError(
            f"--devices is {devices!r}; give all, a number of processes such as 2, or GPUs such as"
            " 0,2,3."
        )
    if "," in text:
        return listed(text, gpus, visible)
    if text == "all" and not gpus:
        raise UsageError(
            "--devices all starts one process per GPU, and there is none to use. Give the number of"
            " processes: --devices 2 --device cpu."
        )
    count = gpus if text == "all" else int(text)
    most = gpus or carried()
    if not 1 <= count <= most:
        there = f"GPUs here: {gpus}" if gpus else f"CPU cores here: {cores()}"
        raise UsageError(
            f"--devices is {text}; it must be at least 1 and at most {most} ({there})."
        )
    return count, None


def listed(text: str, gpus: int, visible: str | None) -> tuple[int, str]:
    """The GPUs of a list such as 0,2,3."""
    chosen = [int(part) for part in text.strip(",").split(",")]
    if len(set(chosen)) < len(chosen) or max(chosen) >= gpus:
        there = f"0 to {gpus - 1}, each once" if gpus else "none: there is no GPU to use"
        raise UsageError(f"--devices is {text}; allowed are {there}.")
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return len(chosen), ",".join(names[number].strip() for number in chosen)


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


def run_ranks(
    count: int, words: Sequence[str], variables: Mapping[str, str], came: Sequence[int]
) -> list[int]:
    """Runs `python words` as each rank and hands on the signals of `came`; the exit codes.

    LatentCliError where a rank cannot be started, Interrupted where one of `came` is there before.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    command = [sys.executable, "-m", __name__, str(os.getpid()), *words]
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        # A socket of our own: that of torch would hear the whole network.
        host, port = (place := socket.create_server(("127.0.0.1", 0))).getsockname()
        store = TCPStore(
            host, port, is_master=True, wait_for_workers=False, master_listen_fd=place.detach()
        )
        shared = {"MASTER_ADDR": store.host, "MASTER_PORT": str(store.port)}
        shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # how torch says that it is served
        if came:
            raise Interrupted(f"{stopped_by(came[0])} Run the same command again.")
        for rank in map(str, range(count)):
            env = {**variables, **shared, "RANK": rank, "LOCAL_RANK": rank}
            out = subprocess.DEVNULL if ranks else None
            with held_back():
                ranks.append(subprocess.Popen(command, env=env, stdout=out, start_new_session=True))
    except (OSError, RuntimeError) as error:  # torch's DistError is one of the latter
        reason = str(error).partition("\n")[0]
        raise LatentCliError(f"The processes could not be run: {reason}") from error
    return wait_for(ranks, came)


def wait_for(ranks: Sequence[subprocess.Popen[bytes]], came: Sequence[int]) -> list[int]:
    """Hands each signal of `came` on once until all have ended; their exit codes.

    Where the first is killed the others get SIGTERM, and finish their batch: before they have met
    it, they cannot know.
    """
    sent, killed = 0, 0
    while True:
        codes = [rank.poll() for rank in ranks]
        if codes[0] and codes[0] < 0 and not killed:
            killed = -codes[0]
            tell_killed(killed)
        ended = [code for code in codes if code is not None]
        if len(ended) == len(ranks):
            return ended
        asked = [*came] or [signal.SIGTERM] * bool(killed)
        for rank, number in product(ranks, asked[sent:]):
            rank.send_signal(number)
        sent = len(asked)
        time.sleep(LOOK)


def tell_killed(number: int) -> None:
    """Says what killed the first process, unless somebody asked it to stop."""
    if number not in STOPPING:
        print(
            f"error: The first process was ended by {signal.Signals(number).name}. The others"
            " finish their batch; run the same command again to finish the rest.",
            file=sys.stderr,
        )


def exit_code(codes: Sequence[int], came: Sequence[int]) -> int:
    """The job's exit code, of those of its processes, first the leader's."""
    if came and any(code in (Interrupted.exit_code, *(-n for n in STOPPING)) for code in codes):
        return Interrupted.exit_code
    return max(codes[0], 0) or int(any(codes))


def become(words: Sequence[str], parent: int) -> None:
    """Turns this process into `python words`, which Linux sends SIGTERM when its parent dies.

    A parent with threads may bring several at once. Ends here where the parent is dead already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:
        os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    become(sys.argv[2:], int(sys.argv[1]))
