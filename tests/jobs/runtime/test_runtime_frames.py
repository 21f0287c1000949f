"""Messages arrive whole, however many buffers they have and whatever is open."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

from latentcli.jobs.runtime.frames import message_of, receive_into, receive_message, send_all
from latentcli.jobs.runtime.open_files import is_open, open_files


def test_more_buffers_than_the_system_takes_at_once():
    ours, theirs = socket.socketpair()
    sent = [bytes([number % 256]) * (number % 3) for number in range(3001)] + [b"x"]
    got = [bytearray(len(buffer)) for buffer in sent]
    with ours, theirs:
        sender = threading.Thread(target=send_all, args=(ours, sent))
        sender.start()
        receive_into(theirs, [memoryview(buffer) for buffer in got])
        sender.join()
    assert got == sent


def test_a_message_of_which_the_first_bytes_have_come():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for count in range(9):
            send_all(ours, [message_of({"of": count})])
            assert receive_message(theirs, theirs.recv(count) if count else b"") == {"of": count}


def test_a_wire_takes_the_place_of_no_stream():
    code = (
        "import os; os.closerange(0, 3);"
        "from latentcli.jobs.runtime.frames import wire_pair; ours, theirs = wire_pair();"
        "ours.send(b'x'); os._exit(min(ours.fileno(), theirs.fileno()) + (theirs.recv(1) != b'x'))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 3


def test_all_open_files_are_found_without_a_list_of_them(monkeypatch):
    def gone(path):
        raise FileNotFoundError(path)

    mine = os.open(os.devnull, os.O_RDONLY)
    listed = {number for number in open_files() if is_open(number)}
    monkeypatch.setattr(os, "listdir", gone)
    found = {number for number in open_files() if is_open(number)}
    os.close(mine)
    assert mine in listed and found >= listed - {max(listed)}
