"""Stands in for CUDA in torch, where there is none: tensors of a device whose values lie here.

What the package does with a GPU runs as it is, and computes what it computes on a CPU; what torch
is asked for on the way is noted, with the thread that asked. Only torch is played, none of our
code. Nothing runs beside the host, so it says nothing of times; but copies on a stream of their own
may be done as late as can be, when somebody waits for them. A graph does its operators again on
the very tensors that it was captured with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Allow = Callable[["Call"], None]
"""Is shown every call before it is done, and may raise."""


@dataclass(frozen=True, slots=True)
class Call:
    """Something that torch was asked for."""

    what: str
    """pin, to device, to host, mark, event (a mark without a time), wait for event (of a stream),
    wait (of the host), or an operator's name."""
    thread: str
    """main, or the name of another thread."""
    allocates: bool = False
    """Whether it takes memory of the device."""
    pinned: bool = False
    """Of a copy: whether the host's side of it is pinned memory, so that nobody waits for it."""
    stream: int | None = None
    """Of a copy to the host: on which stream, where it is not the one that all works go to."""
    device: int | None = None
    """Of a mark: in the work of which device."""
    moved: int | None = None
    """Of work of the device: bytes that it reads and writes. Views are none, and copies to and from
    the host are not counted."""


@dataclass
class FakeGpu:
    """One of them; `calls` are in order, of all threads."""

    allow: Allow = lambda call: None
    calls: list[Call] = field(default_factory=list)
    capability: tuple[int, int] = (9, 0)
    late: bool = True
    """Whether copies on a stream of their own are done when somebody waits, and not at once."""
    current: dict[str, int] = field(default_factory=dict)
    """The device that a thread has chosen, by its name."""

    def note(self, what: str, **more: Any) -> None:
        """Notes a call, and lets it be refused."""
        here = threading.current_thread()
        name = "main" if here is threading.main_thread() else here.name
        call = Call(what, name, **more)
        self.calls.append(call)
        self.allow(call)

    def work(self) -> list[Call]:
        """What the device had to do, but for copies to and from the host."""
        return [call for call in self.calls if call.moved is not None]

    def count(self, what: str) -> int:
        """How often something was asked for."""
        return sum(call.what == what for call in self.calls)


GPU = FakeGpu()


class OnDevice(Tensor):
    """A tensor that says that it is on cuda; its values lie in the host's memory."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor, device: torch.device) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=device,
        )
        made.values = values
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return dispatch(func, args, kwargs or {})

    def __getitem__(self, index: Any) -> OnDevice:
        """torch's own looks for a real device before it asks for an operator."""
        parts = index if isinstance(index, tuple) else (index,)
        chosen = any(isinstance(part, Tensor) for part in parts)
        out = self.values[tree_map(plain, index)]
        if chosen:
            captured(lambda: out.copy_(self.values[tree_map(plain, index)]))
        GPU.note("index", allocates=chosen, moved=2 * size(out) if chosen else None)
        with torch.inference_mode(False):
            return OnDevice(out, self.device)

    def __setitem__(self, index: Any, value: Any) -> None:
        """As above."""
        GPU.note("set")
        if not isinstance(value, OnDevice):
            from_host()
        captured(lambda: self.values.__setitem__(tree_map(plain, index), plain(value)))
        self.values[tree_map(plain, index)] = plain(value)

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        """As above."""
        return self.clone(memory_format=memory_format)

    def copy_(self, source: Tensor, non_blocking: bool = False) -> Tensor:
        """As above."""
        return dispatch(torch.ops.aten.copy_.default, (self, source), {})

    def __invert__(self) -> Tensor:
        """As above."""
        return self.bitwise_not()

    def __repr__(self) -> str:
        """As above."""
        return f"OnDevice({self.values!r})"

    def tolist(self) -> Any:
        """As above."""
        GPU.note("to host")
        waits()
        return self.values.tolist()


class OnFakeGpu(TorchDispatchMode):
    """Catches what makes tensors of the device from nothing, or from those of the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """An operator, done on the values; its results are where torch would have them."""
    leaves = tree_leaves((args, kwargs))
    given = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
    host = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnDevice)]
    asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    name = func._schema.name.removeprefix("aten::")
    copies = name in ("to", "_to_copy", "copy_")
    if given and not copies and any(tensor.dim() for tensor in host):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    if name == "copy_" and isinstance(args[1], OnDevice) and not isinstance(args[0], OnDevice):
        waits()
        return copy_to_host(args[0], args[1], func)
    if kwargs.get("pin_memory") and not given:
        return pin(func(*args, **kwargs | {"pin_memory": False}))
    out = func(*tree_map(plain, args), **tree_map(plain, kwargs))
    device = (
        (asked if asked.type != "cpu" else None) if asked else given[0].device if given else None
    )
    if device is None:
        if given:
            waits()
            GPU.note("to host", pinned=bool(kwargs.get("non_blocking")))
        return out
    if copies and any(tensor.dim() for tensor in host):
        from_host()
    captured(lambda: done_again(func, args, kwargs, out))
    moved = sum(size(tensor.values) for tensor in given)
    if name.endswith("_") and given:
        GPU.note(name, moved=moved + size(given[0].values))
        return given[0]
    if given and out is given[0].values:
        return given[0]
    old = {storage_of(tensor.values) for tensor in given}
    made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    allocates = any(storage_of(leaf) not in old for leaf in made)
    if copies and not given:
        GPU.note("to device", allocates=True, pinned=is_pinned(host[0]))
    else:
        works = allocates and name not in EMPTY
        GPU.note(name, allocates=allocates, moved=moved + sum(map(size, made)) if works else None)
    with torch.inference_mode(False):  # a view of a weight would be no tensor of inference
        return tree_map(lambda x: OnDevice(x, device) if isinstance(x, Tensor) else x, out)


def copy_to_host(target: Tensor, source: Tensor, func: Any) -> Tensor:
    """Into memory that is there; on a stream it is put off until somebody waits."""
    stream = STREAM.get(threading.get_ident())
    GPU.note("to host", pinned=is_pinned(target), stream=None if stream is None else id(stream))
    if stream is None or not GPU.late:
        return func(target, plain(source))
    stream.work.append(lambda: func(target, plain(source)))
    return target


def plain(leaf: Any) -> Any:
    """What an operator of the host takes: values, and the host for any device."""
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.values if isinstance(leaf, OnDevice) else leaf


EMPTY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
"""Operators that take memory and do nothing with it."""


def size(tensor: Tensor) -> int:
    """Bytes of a tensor; what is expanded counts once."""
    lengths = zip(tensor.shape, tensor.stride(), strict=True)
    return prod(length for length, stride in lengths if stride) * tensor.element_size()


def storage_of(tensor: Tensor) -> int:
    """What is the same of a tensor and its views; tensors without values have it too."""
    return tensor.untyped_storage()._cdata


PINNED: dict[int, Tensor] = {}
"""Tensors that are pinned, by their storage, which no other gets meanwhile."""


def pin(tensor: Tensor) -> Tensor:
    """Says of a tensor that its memory is pinned."""
    GPU.note("pin")
    PINNED[storage_of(tensor)] = tensor
    return tensor


class Graph:
    """Work that is done again, on the tensors that it was captured with."""

    def __init__(self) -> None:
        self.work: list[Callable[[], Any]] = []

    def capture_begin(self, capture_error_mode: str = "global") -> None:
        assert STREAM.get(threading.get_ident()) is not None and not CAPTURING
        GPU.note("capture")
        CAPTURING.append(self)

    def capture_end(self) -> None:
        assert CAPTURING.pop() is self

    def replay(self) -> None:
        GPU.note("replay")
        for work in self.work:
            work()


CAPTURING: list[Graph] = []
"""The graph that is being captured, if any."""


def captured(work: Callable[[], Any]) -> None:
    """Has the graph that is being captured do some work again at its replays."""
    if CAPTURING:
        CAPTURING[0].work.append(work)


def done_again(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """An operator once more, with its results where they were."""
    again = func(*tree_map(plain, args), **tree_map(plain, kwargs))
    for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
        if isinstance(old, Tensor) and storage_of(old) != storage_of(new):
            old.copy_(new)


def waits() -> None:
    """What makes the host wait is refused while a graph is captured."""
    if CAPTURING:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


from_host = waits
"""So is what takes values from the host, which would be those of the capture for ever."""


class Runtime:
    """The CUDA runtime, which pins memory where it lies."""

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        GPU.note("pin in place")
        REGISTERED.add(address)
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        GPU.note("unpin")
        REGISTERED.remove(address)
        return 0


REGISTERED: set[int] = set()
"""Addresses of storages that were pinned where they lie."""


def is_pinned(tensor: Tensor) -> bool:
    """Whether a tensor, or what it is a part of, was pinned."""
    if storage_of(tensor) in PINNED:
        return True
    return bool(REGISTERED) and tensor.untyped_storage().data_ptr() in REGISTERED


class Stream:
    """Work that is done in its order."""

    def __init__(self, device: Any = None) -> None:
        self.device = torch.device(device or "cuda:0")
        self.work: list[Callable[[], Any]] = []
        self.done = 0

    def wait_stream(self, stream: Any) -> None:
        """Nothing: works are done when they are asked for."""

    def wait_event(self, event: Event) -> None:
        assert event.recorded
        GPU.note("wait for event")

    def finish(self, until: int) -> None:
        for work in self.work[self.done : until]:
            work()
        self.done = max(self.done, until)


STREAM: dict[int, Stream] = {}
"""By thread: the stream that its work goes to, where it is not the usual one."""


@contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    """As torch.cuda.stream."""
    STREAM[threading.get_ident()] = stream
    try:
        yield
    finally:
        del STREAM[threading.get_ident()]


class Event:
    """A moment of the host's clock, and of a stream's work."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self.timed, self.recorded = enable_timing, False
        self.moment = 0.0
        self.stream: Stream | None = None
        self.until = 0

    def record(self, stream: Any = None) -> None:
        here = stream if isinstance(stream, Stream) else None
        device = here.device if here is not None else torch.device(stream or "cuda:0")
        GPU.note("mark" if self.timed else "event", device=device.index)
        self.recorded, self.moment = True, time.perf_counter()
        self.stream, self.until = here, len(here.work) if here is not None else 0

    def synchronize(self) -> None:
        GPU.note("wait")
        if self.stream is not None:
            self.stream.finish(self.until)

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: Event) -> float:
        return 1000 * (end.moment - self.moment)


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch, count: int = 1) -> Iterator[FakeGpu]:
    """Within the block torch has so many GPUs; it is this thread's to send work to them."""
    global GPU
    GPU = FakeGpu()
    PINNED.clear()
    REGISTERED.clear()
    CAPTURING.clear()

    answers = {
        "is_available": lambda: True,
        "device_count": lambda: count,
        "set_device": lambda device: GPU.current.update(
            {threading.current_thread().name: torch.device(device).index or 0}
        ),
        "current_stream": lambda device=None: device,
        "synchronize": lambda device=None: GPU.note("synchronize"),
        "get_device_name": lambda device=None: "Fake GPU",
        "get_device_capability": lambda device=None: GPU.capability,
        "is_bf16_supported": lambda including_emulation=True: True,
        "_lazy_init": lambda: None,
        "cudart": Runtime,
        "Event": Event,
        "Stream": Stream,
        "stream": on_stream,
        "CUDAGraph": Graph,
    }
    with monkeypatch.context() as patch:
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, answer)
        patch.setattr(Tensor, "pin_memory", lambda tensor, device=None: pin(tensor.clone()))
        patch.setattr(Tensor, "is_pinned", lambda tensor, device=None: is_pinned(tensor))
        with OnFakeGpu():
            yield GPU
