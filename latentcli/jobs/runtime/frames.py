"""Exchanges objects between processes of a job, over a socket: a length of 8 bytes and a pickle."""

from __future__ import annotations

import pickle
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

LENGTH = 8


def message_of(content: object) -> bytes:
    """A frame of an object."""
    data = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(LENGTH, "little") + data


def send_all(wire: socket.socket, buffers: Sequence[bytes | memoryview]) -> None:
    """Sends some buffers one after the other, in as few calls as the system allows."""
    rest = deque(memoryview(buffer) for buffer in buffers)
    while rest:
        sent = wire.sendmsg([*rest])
        while rest and sent >= len(rest[0]):
            sent -= len(rest.popleft())
        if rest and sent:
            rest[0] = rest[0][sent:]


def receive_into(wire: socket.socket, buffers: Sequence[memoryview]) -> None:
    """Fills all buffers; EOFError where the other end has gone."""
    rest = deque(buffers)
    while rest:
        got = wire.recvmsg_into([*rest], 0, socket.MSG_WAITALL)[0]
        if not got:
            raise EOFError
        while rest and got >= len(rest[0]):
            got -= len(rest.popleft())
        if rest and got:
            rest[0] = rest[0][got:]


def receive_message(wire: socket.socket) -> Any:
    """The next frame's object; EOFError where the other end has gone."""
    length = int.from_bytes(_received(wire, LENGTH), "little")
    return pickle.loads(_received(wire, length))


def _received(wire: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = wire.recv(size - len(data), socket.MSG_WAITALL)
        if not more:
            raise EOFError
        data += more
    return data
