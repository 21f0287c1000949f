"""Digests that a thread makes: of all bytes, in their order, whatever the pieces."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import latentcli.shards.storage.hashing as hashing
from latentcli.shards.storage.hashing import HashingThread


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=9), max_size=60), st.integers(1, 20))
def test_it_is_the_digest_of_all(pieces, at_once):
    with pytest.MonkeyPatch.context() as patch, HashingThread() as digest:
        patch.setattr(hashing, "AT_ONCE", at_once)
        for piece in pieces:
            digest.add(memoryview(piece))
        assert digest.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hash")]


def test_little_needs_no_thread_and_much_leaves_none():
    with HashingThread() as digest:
        digest.add(memoryview(b"x" * 99))
        assert not threads()
        digest.add(memoryview(bytes(hashing.AT_ONCE)))
        assert len(threads()) == 1
    with pytest.raises(OSError, match="full"), HashingThread() as digest:
        for _ in range(20):
            digest.add(memoryview(bytes(hashing.AT_ONCE)))
        raise OSError("full")
    assert not threads()
