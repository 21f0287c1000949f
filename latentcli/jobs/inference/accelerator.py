"""Answers what depends on the kind of device: names, defaults, copies, times, memory, facts.

A kind of device is a class and its row in ACCELERATORS. Nothing else in the package names one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.core.words import listed
from latentcli.jobs.inference import nvidia_smi
from latentcli.jobs.inference.cpu_bf16 import multiplies_bf16
from latentcli.jobs.inference.out_of_memory import is_out_of_memory
from latentcli.jobs.runtime.background_thread import nothing

BF16_SINCE = (8, 0)
"""Compute capability of CUDA devices that know bfloat16."""


@dataclass(frozen=True)
class Accelerator:
    """A device. What stands here holds for every GPU that torch drives as `torch.<name>`; a kind
    says what it does otherwise.
    """

    index: int | None = None
    """Which one of its kind; None is the one that torch takes by itself."""

    name: ClassVar[str]
    """Of its kind, as --device and torch say it."""
    visible: ClassVar[str | None] = None
    """The variable that lists those of its kind that a process may see, where there is one."""
    gpu: ClassVar[bool] = True
    """Whether it works beside the host, in memory of its own."""
    batch_size: ClassVar[int] = 32
    """Pictures at once, unless the user says otherwise."""
    batch_pixels: ClassVar[int | None] = 2**23
    """Pixels at once where pictures are encoded for a store; None: `batch_size`, whatever their
    size. The published tables are measured so: 128 of 256x256, 32 of 512x512. No tensor of a
    network reaches 2^31 values, beyond which kernels are slow or missing."""
    matrix_side: ClassVar[int] = 8192
    """Of the largest square matrices that `bench` multiplies to find out how fast it can."""
    jpeg_backends: ClassVar[tuple[str, ...]] = ()
    """What decodes JPEG files on it, by nvImageCodec's names; nothing, for most kinds."""
    groups: ClassVar[int] = 8
    """Groups of frames that a network for features sees at once."""
    recorder: ClassVar[str] = ""
    """The class in `torch.<name>` that records work and does it again; empty without one."""
    memory_counted: ClassVar[str] = "torch allocator: the weights, the inputs and what the op adds"
    """What the peak memory of `bench` counts."""

    @classmethod
    def available(cls) -> bool:
        """Whether there is one that torch can use."""
        return bool(torch.get_device_module(cls.name).is_available())

    @classmethod
    def count(cls) -> int:
        """How many of them torch sees."""
        return int(torch.get_device_module(cls.name).device_count())

    @property
    def device(self) -> torch.device:
        """As torch takes it."""
        return torch.device(self.name if self.index is None else f"{self.name}:{self.index}")

    @property
    def _torch(self) -> Any:
        return torch.get_device_module(self.name)

    def describe(self) -> str:
        """Its name, as the maker says it."""
        return str(self._torch.get_device_name(self.device))

    def has_bf16(self) -> bool:
        """Whether it computes in bfloat16 itself."""
        return True

    @classmethod
    def auto_dtype(cls) -> str:
        """What --dtype auto means on one of this kind that computes in bfloat16 itself."""
        return "bf16"

    def use(self) -> None:
        """Makes it the current device of this thread: each has one of its own."""
        if self.index is not None:  # torch refuses a device without one
            self._torch.set_device(self.device)

    def prepare(self) -> None:
        """Makes it this process's own, set as every job needs it."""
        self.use()

    def pinned(self, host: Tensor) -> Tensor:
        """A tensor of the host in memory from which the device copies by itself.

        It takes the host milliseconds. Where there is no such memory left, the tensor stays where
        it is, and its copy is waited for.
        """
        try:
            return host if host.is_pinned() else host.pin_memory()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return host

    def staging(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """An empty tensor of the host, where it can be in memory as of `pinned`."""
        try:
            return torch.empty(*shape, dtype=dtype, pin_memory=True)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return torch.empty(*shape, dtype=dtype)

    def stacked(self, items: Sequence[Tensor]) -> Tensor:
        """Tensors [...] of the host as one [N, ...], which is where `staging` is: copied once."""
        whole = self.staging((len(items), *items[0].shape), items[0].dtype)
        return torch.stack(list(items), out=whole)

    def to_host(self, tensor: Tensor) -> Tensor:
        """A tensor of the device on the host, copied while the host goes on.

        It may be read once a `mark` that is made after this has passed.
        """
        try:
            return tensor.to("cpu", non_blocking=True)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return tensor.cpu()

    def pin_in_place(self, host: Tensor) -> Callable[[], None]:
        """Has memory of the host pinned where it lies, if that can be; what it gives undoes it.

        Where it cannot be, `pinned` copies what is in it.
        """
        return nothing

    def to_device(self, tensor: Tensor) -> Tensor:
        """A tensor on the device, copied there while the host goes on."""
        if tensor.device.type != "cpu":
            return tensor.to(self.device)
        return self.pinned(tensor).to(self.device, non_blocking=True)

    def start_copying(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        """Begins to copy tensors of the device into ones of the host, pinned ones if it is to go on
        meanwhile: after the work that it was given so far, and beside what it is given next.

        What it gives waits until they are there; until then the tensors must be kept.
        """
        worked, copied = self._torch.Event(), self._torch.Event(blocking=True)
        worked.record(self._torch.current_stream(self.device))
        self._copies.wait_event(worked)
        with self._torch.stream(self._copies):
            for source, target in pairs:
                target.copy_(source, non_blocking=True)
        copied.record(self._copies)
        return copied.synchronize  # type: ignore[no-any-return]

    @cached_property
    def _copies(self) -> Any:
        """The stream of copies to the host."""
        return self._torch.Stream(self.device)

    def mark(self) -> Any:
        """A moment in the device's work, for `seconds`."""
        event = self._torch.Event(enable_timing=True)
        event.record(self._torch.current_stream(self.device))
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """Between two marks; waits for the second."""
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    def is_over(self, mark: Any) -> bool:
        """Whether the device has come as far as a mark; does not wait. Any thread may ask."""
        return bool(mark.query())

    def synchronize(self) -> None:
        """Waits until all work is done."""
        self._torch.synchronize(self.device)

    def watch_memory(self) -> Callable[[], int]:
        """From now on; what it gives tells the most bytes that came to those of now."""
        before = self._torch.memory_allocated(self.device)
        self._torch.reset_peak_memory_stats(self.device)
        return lambda: int(self._torch.max_memory_allocated(self.device) - before)

    def facts(self) -> dict[str, Any]:
        """What `bench` tells of its libraries, driver and switches; None where there is none."""
        return dict.fromkeys(("cuda", "cudnn", "driver", "flags"))

    def clocks(self) -> dict[str, float | None] | None:
        """Clocks now and at most, power and temperature; None where nothing tells."""
        return None


class Cuda(Accelerator):
    """A GPU of NVIDIA, or of AMD, of which torch says cuda too."""

    name = "cuda"
    recorder = "CUDAGraph"
    visible = "CUDA_VISIBLE_DEVICES"
    jpeg_backends = ("HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU")

    def has_bf16(self) -> bool:
        """Since Ampere; before, torch has a slow way round for some operators and none for others,
        and cuDNN has no convolution. It counts AMD's kinds from 9.0 on."""
        return tuple(self._torch.get_device_capability(self.device)) >= BF16_SINCE

    def prepare(self) -> None:
        """Also: float32 means float32, and the same batch gives the same bits every time."""
        super().prepare()
        torch.backends.cuda.matmul.allow_tf32 = False
        # Else long sums may be cut into parts that are added in bfloat16.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False

    def pin_in_place(self, host: Tensor) -> Callable[[], None]:
        self.use()
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        if int(runtime.cudaHostRegister(host.data_ptr(), host.nbytes, 0)):
            # The runtime keeps the error for whoever looks next, which is a kernel's launch.
            with suppress(RuntimeError):
                torch.zeros(1, device=self.device)
            return nothing

        def unpin() -> None:
            # A job that ends early leaves copies under way. After an error of the device nothing
            # of all this works, and the error is told of already.
            with suppress(RuntimeError):
                self.synchronize()
                runtime.cudaHostUnregister(host.data_ptr())

        return unpin

    def facts(self) -> dict[str, Any]:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        return {
            "cuda": torch.version.cuda,
            "cudnn": cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": nvidia_smi.driver(self._uuid()),
            "flags": {
                "matmul_tf32": matmul.allow_tf32,
                "matmul_bf16_sums": matmul.allow_bf16_reduced_precision_reduction,
                "cudnn_tf32": cudnn.allow_tf32,
                "cudnn_deterministic": cudnn.deterministic,
                "cudnn_benchmark": cudnn.benchmark,
            },
        }

    def clocks(self) -> dict[str, float | None] | None:
        return nvidia_smi.clocks(self._uuid())

    def _uuid(self) -> str | None:
        try:
            return str(torch.cuda.get_device_properties(self.device).uuid)
        except (AttributeError, RuntimeError, AssertionError):
            return None


class Cpu(Accelerator):
    """The host itself: what it is given is done when the call returns, in the host's memory."""

    name = "cpu"
    gpu = False
    batch_size = 8
    batch_pixels = None  # every core is busy with a picture of its own
    matrix_side = 1024
    groups = 1
    memory_counted = (
        "the model's weights, its inputs and the most that torch's allocator held during one"
        " untimed call; not counted is what oneDNN and other libraries take for themselves"
    )

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def describe(self) -> str:
        return self.name

    @classmethod
    def auto_dtype(cls) -> str:
        """Every processor knows bfloat16, but without a unit that multiplies in it, it is slow."""
        return "bf16" if multiplies_bf16() else "fp32"

    def use(self) -> None:
        """Nothing to do."""

    def pinned(self, host: Tensor) -> Tensor:
        return host

    def staging(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*shape, dtype=dtype)

    def to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)

    def start_copying(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        for source, target in pairs:
            target.copy_(source)
        return nothing

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        return end - begin

    def is_over(self, mark: float) -> bool:
        return True

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def watch_memory(self) -> Callable[[], int]:
        """Counts nothing: other programs and threads share the host's memory."""
        return lambda: 0


ACCELERATORS: dict[str, type[Accelerator]] = {kind.name: kind for kind in (Cuda, Cpu)}
"""By name. The first that is there is what auto means."""


class DeviceTimer:
    """Context manager: how long a device works on what a block gives it.

    A GPU works on while the block is left, so `seconds` may be asked for only after its results
    have been copied to the host.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._marks: list[Any] = []

    def __enter__(self) -> Self:
        self._marks.append(self._accelerator.mark())
        return self

    def __exit__(self, *_: object) -> None:
        self._marks.append(self._accelerator.mark())

    def seconds(self) -> float:
        """Between the beginning and the end of the block's work."""
        return self._accelerator.seconds(*self._marks)

    def is_over(self) -> bool:
        """Whether the device has done the block's work."""
        return self._accelerator.is_over(self._marks[1])


def pick_device(choice: str) -> Accelerator:
    """auto, or a kind such as cpu, or one device such as cuda:1; UsageError where there is none."""
    if choice == "auto":
        return next(kind for kind in ACCELERATORS.values() if kind.available())()
    kind, index = named(choice)
    label = kind.name.upper()
    if not kind.available():
        raise UsageError(
            f"--device is {choice!r}, but torch {torch.__version__} sees no {label} device;"
            f" use --device cpu, or install a {label} build of torch."
        )
    if kind.gpu and (index or 0) >= kind.count():
        raise UsageError(f"--device is {choice!r}, but there are {kind.count()} {label} devices.")
    return kind(index)


def pick_dtype(choice: str, accelerator: Accelerator) -> str:
    """bf16 or fp32 for auto: what the device is made for; UsageError for what it does not know."""
    if choice == "auto":
        return accelerator.auto_dtype() if accelerator.has_bf16() else "fp32"
    if choice == "bf16" and not accelerator.has_bf16():
        raise UsageError(
            "--dtype is bf16 (given, or kept from the existing store), but"
            f" {accelerator.describe()} does not support bfloat16; use --dtype fp32 (and another"
            " -o if the store exists), or another device."
        )
    return choice


def named(choice: str) -> tuple[type[Accelerator], int | None]:
    """(Kind, index) of a name such as cpu or cuda:1; UsageError for any other."""
    name, colon, number = choice.partition(":")
    if name in ACCELERATORS and (not colon or (number.isascii() and number.isdecimal())):
        return ACCELERATORS[name], int(number) if colon else None
    numbered = [f"{name}:N" for name, kind in ACCELERATORS.items() if kind.gpu]
    allowed = listed(sorted(["auto", *ACCELERATORS, *numbered]), "and")
    raise UsageError(f"--device is {choice!r}; allowed are {allowed}.")


def own_device(choice: str, local: int, world: int) -> str:
    """The device of a process: its own GPU of its machine, where there are any.

    `choice` is --device; the process is number `local` on its machine, of `world` in all.
    UsageError for one GPU's name among several processes.
    """
    if world == 1:
        return choice
    if choice not in ("auto", *ACCELERATORS):
        raise UsageError(
            f"--device is {choice}, and {world} processes run: they would share one device."
            f" Leave --device out, or give {listed([*ACCELERATORS], 'or')}."
        )
    kind, count = gpus_of(choice)
    return choice if kind is None else f"{kind.name}:{local % count}"


def devices_to_share(choice: str) -> tuple[int, str | None]:
    """(GPUs that torch sees, the variable by which a process sees some of them alone).

    `choice` is --device; UsageError where it is one device.
    """
    if choice not in ("auto", *ACCELERATORS):
        allowed = listed(["auto", *ACCELERATORS], "or")
        raise UsageError(f"--device {choice} is one device; with --devices give {allowed}.")
    kind, count = gpus_of(choice)
    return count, None if kind is None else kind.visible


def gpus_of(choice: str) -> tuple[type[Accelerator] | None, int]:
    """(The first kind of GPU that is there and that `choice` allows, how many there are)."""
    for kind in ACCELERATORS.values():
        if kind.gpu and choice in ("auto", kind.name) and (count := kind.count()):
            return kind, count
    return None, 0


def kind_on_cluster(choice: str, gpus: float) -> type[Accelerator]:
    """What the processes of other machines, which have so many GPUs in all, run on.

    `choice` is --device; auto is the first kind of GPU, or a CPU where there are none. UsageError
    for a name of no kind.
    """
    if choice == "auto":
        return next(kind for kind in ACCELERATORS.values() if kind.gpu == (gpus > 0))
    return named(choice)[0]
