"""Connects the processes of one launch to a common key-value store."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from latentcli.core.errors import LatentCliError
from latentcli.jobs.cluster.environment import Rank, Rendezvous

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

POLL = 0.2
"""Seconds between two looks."""
PATIENCE = 600.0
"""Seconds for all processes to be started; torch alone may take minutes from a shared disk."""
HANDOVER = 60.0
"""Seconds in which a launch before this one gives its place to the next."""
UNSERVED = 10.0
"""Seconds for a launcher's own server, which it opens before it starts a process, to answer."""
CALL = 60.0
"""Seconds after which a call to the store has failed."""


def connect(rank: Rank, at: Rendezvous, waiting: Callable[[], None]) -> Store:
    """The store of this launch, empty for the leader, and the same one for all others.

    Old launches may have left entries behind, or a server that is just closing: so the leader
    opens a new chapter of the store, and the others take the chapter in which a leader is alive.
    LatentCliError where that does not come to pass.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    name = f"latentcli/{at.launch}"
    if rank.leader:
        opened = PrefixStore(name, host(at, waiting))
        return PrefixStore(str(opened.add("chapters", 1)), opened)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        waiting()
        book: Store | None = None
        try:
            book = PrefixStore(name, client(at))
            return PrefixStore(str(live_chapter(book, until, waiting)), book)
        except (OSError, RuntimeError):  # nobody listens yet, or whoever did has just left
            if book is not None or at.served:
                until = min(until, time.monotonic() + limit(at))
            time.sleep(POLL)
    raise LatentCliError(
        f"Rank {rank.rank} of {rank.world} found no living rank 0 at {at.host}:{at.port}. Check"
        " that rank 0 was started there, that this machine can reach it, and that MASTER_ADDR and"
        " MASTER_PORT are the same for all."
    )


def live_chapter(book: Store, until: float, waiting: Callable[[], None]) -> int:
    """The chapter whose leader's counter rises, or else whose leader is done.

    TimeoutError where there is none in time.
    """
    before: tuple[int, int] | None = None
    while time.monotonic() < until:
        chapter = book.add("chapters", 0)
        beat = book.add(f"{chapter}/beat/0", 0)
        if before is not None and before[0] == chapter and before[1] < beat:
            return chapter
        if before is None or before[0] != chapter:
            before = chapter, beat
            until = min(until, time.monotonic() + HANDOVER) if chapter else until
        waiting()
        time.sleep(POLL)
    if before is not None and book.check([f"{before[0]}/done/0"]):
        return before[0]
    raise TimeoutError


def client(at: Rendezvous) -> Store:
    """A connection; OSError where nobody listens, which torch would tell with a page of noise."""
    socket.create_connection((at.host, at.port), timeout=5).close()
    return tcp_store(at.host, at.port, is_master=False)


def tcp_store(name: str, port: int, *, is_master: bool) -> Store:
    """torch's store, served (`is_master`) or spoken to."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    timeout = timedelta(seconds=CALL)
    return TCPStore(name, port, is_master=is_master, timeout=timeout, wait_for_workers=False)


def host(at: Rendezvous, waiting: Callable[[], None]) -> Store:
    """The leader's connection: to the launcher's server, or to one that it opens itself."""
    until = time.monotonic() + limit(at)
    while True:
        waiting()
        try:
            if at.served:
                return client(at)
            free_port(at.port)
            return tcp_store("localhost", at.port, is_master=True)
        except (OSError, RuntimeError) as error:
            if time.monotonic() > until:
                raise LatentCliError(unmet(at)) from error
            time.sleep(POLL)


def limit(at: Rendezvous) -> float:
    """Seconds without an answer after which there will be none."""
    return UNSERVED if at.served else HANDOVER


def free_port(port: int) -> None:
    """OSError where the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("", port))


def unmet(at: Rendezvous) -> str:
    """Why the leader found no place."""
    if at.served:
        return f"The launcher does not answer at {at.host}:{at.port}; start the job again."
    return (
        f"Port {at.port} of this machine is in use. Set MASTER_PORT to a free one, the same"
        " for all processes."
    )
