"""Exchanges objects between processes of a job, over a socket: a length of 8 bytes and a pickle."""

from __future__ import annotations

import fcntl
import pickle
import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

LENGTH = 8
AT_ONCE = 1024
"""Buffers that the system takes in one call."""
FIRST = 3
"""The first descriptor that is not a standard stream."""


def wire_pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets that lead to each other, of which none takes the place of a standard stream.

    Where those are closed, the next file that is opened gets their numbers, and a message on
    standard error would go there.
    """
    first, second = socket.socketpair()
    return _beyond_streams(first), _beyond_streams(second)


def _beyond_streams(wire: socket.socket) -> socket.socket:
    if wire.fileno() >= FIRST:
        return wire
    with wire:
        return socket.socket(fileno=fcntl.fcntl(wire, fcntl.F_DUPFD_CLOEXEC, FIRST))


def message_of(content: object) -> bytes:
    """A frame of an object."""
    data = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(LENGTH, "little") + data


def send_all(wire: socket.socket, buffers: Sequence[bytes | memoryview]) -> None:
    """Sends some buffers one after the other, in as few calls as the system allows."""
    rest = deque(memoryview(buffer) for buffer in buffers)
    while rest:
        sent = wire.sendmsg([*islice(rest, AT_ONCE)])
        while rest and sent >= len(rest[0]):
            sent -= len(rest.popleft())
        if rest and sent:
            rest[0] = rest[0][sent:]


def receive_into(wire: socket.socket, buffers: Sequence[memoryview]) -> None:
    """Fills all buffers; EOFError where the other end has gone."""
    rest = deque(buffer for buffer in buffers if buffer)  # nothing comes for an empty one
    while rest:
        got = wire.recvmsg_into([*islice(rest, AT_ONCE)], 0, socket.MSG_WAITALL)[0]
        if not got:
            raise EOFError
        while rest and got >= len(rest[0]):
            got -= len(rest.popleft())
        if rest and got:
            rest[0] = rest[0][got:]


def receive_message(wire: socket.socket, begun: bytes = b"") -> Any:
    """The next frame's object; EOFError where the other end has gone.

    `begun` are its first bytes, up to 8, where they were received already.
    """
    length = int.from_bytes(_received(wire, LENGTH, begun), "little")
    return pickle.loads(_received(wire, length))


def _received(wire: socket.socket, size: int, begun: bytes = b"") -> bytes:
    data = begun
    while len(data) < size:
        more = wire.recv(size - len(data), socket.MSG_WAITALL)
        if not more:
            raise EOFError
        data += more
    return data
