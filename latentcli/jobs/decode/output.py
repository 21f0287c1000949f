"""Writes decoded pictures to files, and says why a sample must not be decoded or written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from latentcli.core.errors import SampleError, StoreError, UsageError
from latentcli.images.codec import SUFFIX_OF, encode_image
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.decode.decoded import Decoded
from latentcli.jobs.decode.latents import LatentSource
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.split_on_oom import SplitOnOom
from latentcli.jobs.runtime.failures import Failures
from latentcli.jobs.runtime.machine import cores, within_reach
from latentcli.jobs.runtime.meter import Meter, ignore
from latentcli.jobs.runtime.places import check_name
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.jobs.runtime.stdio import STDOUT
from latentcli.shards.sources.own_output import make_own_folder
from latentcli.shards.storage.atomic_write import atomic_write, write_error

MOST_THREADS = 8
"""That compress and write pictures, unless the user says otherwise."""
SUFFIXES = SUFFIX_OF | {"mp4": ".mp4"}


@dataclass(frozen=True, slots=True)
class DecodeRun:
    """What the functions below work with."""

    job: DecodeJob
    source: LatentSource
    engine: Engine
    output: Path
    meter: Meter
    stop: StopRequest
    format: str
    """Of the files: the job's, or the usual one."""
    split_on_oom: SplitOnOom
    """How many pictures the device takes at once."""
    failures: Failures
    team: Team
    lengths: list[int] = field(default_factory=list)
    """Frames of each clip that was decoded."""
    skipped: list[str] = field(default_factory=list)
    """Keys."""

    def path(self, key: str) -> Path:
        """Where a key's picture or clip goes."""
        return self.output / f"{key}{SUFFIXES[self.format]}"

    def units(self) -> Iterator[int]:
        """The units that this process decodes, as it asks for them."""
        return self.team.claimed(self.source.units)

    def fail(self, key: str, error: SampleError, unit: int | None = None) -> None:
        """Notes a sample that gives no file; the job ends here where its options say so.

        `unit` is the one of the store that the sample could not be read from.
        """
        where = {} if unit is None else {"unit": unit}
        why = f"{error.stage}: {error.reason}"
        self.failures.noted.append({"key": key, "error": error.reason} | where)
        self.failures.reasons.add(why, key)
        self.failures.judge(self.team.add("failed", 1), key, why)


def make_folder(path: Path) -> None:
    """The output folder, before anything costly is done; StoreError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"-o {path} is a file; name a folder.") from error
    except OSError as error:
        raise write_error(path, error) from error


def make_parent(path: Path, output: Path) -> None:
    """The folder of a file that is to be written below `output`; StoreError where it cannot be."""
    try:
        make_own_folder(path.parent, output)
    except (FileExistsError, NotADirectoryError) as error:
        blocker = next(above for above in path.parents if above.exists() and not above.is_dir())
        raise StoreError(
            f"{path} cannot be written: {blocker} exists and is not a folder. Move it away, or"
            " choose another -o."
        ) from error
    except OSError as error:
        raise write_error(path, error) from error


def writer_threads(job: DecodeJob, sharing: int = 1, note: Callable[[str], object] = ignore) -> int:
    """Threads that compress and write pictures, where so many processes share the cores.

    `note` is told where they are fewer than asked.
    """
    usual = max(min(cores() // sharing, MOST_THREADS), 1)
    return within_reach(job.workers or usual, sharing, note)


@contextmanager
def writing(run: DecodeRun) -> Iterator[Callable[..., None]]:
    """A pool of threads; the block's value queues a call, and waits where too many wait already.

    What a call raises comes out of a later one, or at the end.
    """
    threads = writer_threads(run.job, run.team.rank.sharing)
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="encode_image") as pool:

        def submit(call: Callable[..., None], *args: object) -> None:
            pending.append(pool.submit(call, *args))
            while len(pending) > 4 * threads:
                pending.popleft().result()

        yield submit
        while pending:
            pending.popleft().result()


def check_safe(run: DecodeRun, key: str, source: str | None) -> None:
    """SampleError where the picture or clip of a sample must not or cannot be written."""
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "\0" in key:
        raise SampleError("write", "the key would leave the output folder")
    path = run.path(key)
    # A tar stream takes names of any length.
    if run.output != Path(STDOUT):
        check_name(run.output, path)
    if source is not None and same_file(path, source):
        raise SampleError(
            "write", f"{path} is the file that the latent was made from; choose another -o"
        )
    # With --skip-existing, what is there stays.
    beside = source is not None and same_file(path.parent, str(Path(source).parent))
    if beside and path.exists() and not run.job.skip_existing:
        raise SampleError(
            "write", f"{path} is there already, in the folder of the inputs; choose another -o"
        )


def same_file(path: Path, source: str) -> bool:
    """Whether both are there and are one file."""
    try:
        return path.samefile(source)
    except OSError:
        return False


def unsound(latent: Tensor, engine: Engine) -> str | None:
    """Why a latent [..., C, h, w] cannot be decoded, or None."""
    if (reason := misshapen(latent.shape)) is not None:
        return reason
    channels, found = engine.model.spec.channels, latent.shape[-3]
    if found != channels:
        return f"the latent has {found} channels, the model takes {channels}"
    sides = [side * engine.model.spec.downscale for side in latent.shape[-2:]]
    if any(side % engine.model.spec.size_divisor for side in sides):
        return f"the picture would be {sides[1]}x{sides[0]}, which the model's size rule forbids"
    if not torch.isfinite(latent).all():
        return "the latent has values that are not finite"
    return None


def misshapen(shape: Sequence[int]) -> str | None:
    """Why a latent of this shape, [..., C, h, w], is none, or None."""
    if len(shape) >= 3 and 0 not in shape:
        return None
    return f"the latent has the shape {list(shape)}: it needs channels, height and width above 0"


def write_picture(run: DecodeRun, key: str, decoded: Decoded, index: int) -> None:
    """`save_picture`; a picture that the format cannot hold counts as failed."""
    try:
        save_picture(run, key, decoded, index)
    except SampleError as error:
        run.fail(key, error)


def save_picture(run: DecodeRun, key: str, decoded: Decoded, index: int) -> None:
    """encode_image and write, of one of some pictures: no half one is ever seen under its name.

    SampleError where the format cannot hold the picture.
    """
    pixels = decoded.pictures()[index]
    start = time.perf_counter()
    data = encode_image(pixels, run.format, run.job.quality)
    middle = time.perf_counter()
    path = run.path(key)
    make_parent(path, run.output)
    atomic_write(path, [data])
    run.meter.add("encode_image", middle - start, 1)
    run.meter.add("write", time.perf_counter() - middle, 1)
