"""Measures peak memory: the most bytes of tensors alive during a call."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from torch import Tensor, nn
from torch.autograd.profiler import profile

STDERR = 2


def peak_bytes(call: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """(output, most bytes that torch's CPU allocator held at once on behalf of the call).

    The output counts; weights and inputs, which were there before, do not. Every allocation of this
    thread is seen, also those inside an operator; what a library such as oneDNN takes from the
    system itself, and what pool threads take, is not.
    """
    profiler = profile(profile_memory=True)
    with quiet_stderr():
        profiler.__enter__()  # type: ignore[no-untyped-call]
    try:
        output = call()
    finally:
        with quiet_stderr():
            profiler.__exit__(None, None, None)  # type: ignore[no-untyped-call]
    results = profiler.kineto_results
    assert results is not None
    events = [event for event in results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return output, highest(event.nbytes() for event in events)  # type: ignore[attr-defined]


def highest(changes: Iterable[int]) -> int:
    """The largest running sum, at least 0."""
    return max(accumulate(changes, initial=0))


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Nothing reaches stderr meanwhile: torch's profiler writes there when it starts and stops."""
    try:
        kept = os.dup(STDERR)
    except OSError:
        yield  # stderr is closed
        return
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), STDERR)
    try:
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)


def own_bytes(model: nn.Module, inputs: Iterable[Tensor] = ()) -> int:
    """Bytes of a model's weights and of its inputs."""
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers(), *inputs))
