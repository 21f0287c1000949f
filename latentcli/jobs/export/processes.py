"""Makes the steps of an export in several processes, each of which Python gives one core."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from multiprocessing.connection import Connection, wait

import torch

from latentcli.core.errors import LatentCliError, StoreError
from latentcli.jobs.export.steps import Made, Maker, Work
from latentcli.jobs.loader import fork_server
from latentcli.jobs.runtime.frames import wire_pair
from latentcli.jobs.runtime.machine import cores, within_reach

MOST = 8
"""Processes, where nobody says how many."""
FEW = 16384
"""Samples up to which no process is started: that takes as long as to write these."""
RUN = 8
"""Steps in a row that a process makes at a time: a shard is opened by each run that reads it."""
HELD = 3 << 30
"""Bytes that the files which are being made take together at most, as far as one takes no more."""


def made_steps(
    maker: Maker, todo: Sequence[int], workers: int | None, note: Callable[[str], object]
) -> Generator[list[Made]]:
    """Makes steps, some at a time and in any order; `workers` is how many processes do it.

    0 is this one alone, None as many as there are cores, where there is enough to do; `note` is
    told where the machine does not carry so many. StoreError as `Maker.make`, and where a process
    was killed.
    """
    runs = runs_of(maker.work, todo)
    wanted = processes(maker.work, len(todo)) if workers is None else workers
    count = min(within_reach(wanted, note=note), len(runs))
    if not count:
        yield from ([made] for made in maker.make(todo))
        return
    with team(maker, count) as members:
        try:
            yield from answers(members, runs)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise StoreError(
                "A process that writes files was killed, possibly because memory ran out. What"
                " was written is kept: run the same command again to finish the rest, with fewer"
                " --workers if memory is short."
            ) from error


def runs_of(work: Work, todo: Sequence[int]) -> list[Sequence[int]]:
    """The steps, as many at a time as a process makes."""
    length = 1 if work.format.group else RUN
    return [todo[start : start + length] for start in range(0, len(todo), length)]


def processes(work: Work, steps: int) -> int:
    """How many processes make so many steps."""
    if cores() < 2 or steps * work.step <= FEW:
        return 0
    return max(1, min(cores(), MOST, HELD // file_bytes(work)))


def file_bytes(work: Work) -> int:
    """About what a process holds: a step's latents as they are read, and as they are written."""
    shape = work.setting.shape or work.reading.largest
    values = work.setting.channels * prod(shape) * (1 + work.setting.mirrored)
    return max(1, min(work.step, work.count) * values * 4 * 2)


@contextmanager
def team(maker: Maker, count: int) -> Iterator[list[Connection]]:
    """Processes that make steps, by the connections to them; they end with the block.

    Each finishes what it has in hand before. A signal ends the export in the main process alone.
    """
    members: list[Connection] = []
    started: list[fork_server.Child] = []
    try:
        for _ in range(count):
            ours, theirs = wire_pair()
            members.append(Connection(ours.detach()))
            with theirs:
                started.append(fork_server.start(serve, theirs))
            members[-1].send(maker)
        yield members
    finally:
        for member in members:
            say_no_more(member)
        for member in members:
            wait_for_end(member)
        for process in started:
            process.end()


def say_no_more(member: Connection) -> None:
    """Closes the way to a process; the way back stays open."""
    with socket.socket(fileno=os.dup(member.fileno())) as wire, suppress(OSError):
        wire.shutdown(socket.SHUT_WR)


def wait_for_end(member: Connection) -> None:
    """Waits until a process has closed its end, which it does with its own."""
    with suppress(EOFError, OSError):
        while True:
            member.recv_bytes()


def answers(members: Sequence[Connection], runs: Sequence[Sequence[int]]) -> Iterator[list[Made]]:
    """What became of each run, in the order in which they are done.

    StoreError as `Maker.make`; EOFError and others of a connection where a process has ended.
    """
    left, busy = deque(runs), list(members)
    for member in members:
        member.send(left.popleft())
    while busy:
        ready = wait(busy)
        for member in [one for one in busy if one in ready]:
            answer = member.recv()
            if isinstance(answer, LatentCliError):
                raise answer
            if left:
                member.send(left.popleft())
            else:
                busy.remove(member)
            yield answer


def serve(wire: socket.socket) -> None:
    """Makes the runs that are ordered, until the main process closes its end or has ended.

    The first message is the Maker.
    """
    orders = Connection(wire.detach())
    torch.set_num_threads(1)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        maker: Maker = orders.recv()
        while True:
            orders.send(answer_to(maker, orders.recv()))


def answer_to(maker: Maker, run: Sequence[int]) -> list[Made] | LatentCliError:
    """The steps of a run, or why they could not be made."""
    try:
        return list(maker.make(run))
    except LatentCliError as error:
        return error
