"""Writes pictures or clips of latents as one tar stream on standard output, in order."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from latentcli.core.errors import SampleError, UsageError
from latentcli.core.member_names import member_name
from latentcli.core.types import Member
from latentcli.images.codec import encode_image
from latentcli.jobs.decode.clips import decode_clips
from latentcli.jobs.decode.decoded import Decoded
from latentcli.jobs.decode.latents import LatentClip, LatentSample
from latentcli.jobs.decode.output import SUFFIXES, DecodeRun, writer_threads
from latentcli.jobs.decode.stream import decoded_groups
from latentcli.jobs.runtime.stdio import Stdout, go_on
from latentcli.shards.sources.own_output import MARK
from latentcli.shards.tar.write import END, member_chunks

SHARE_SAMPLES = 256
"""Pictures that are held at most before all of them have gone out."""
SHARE_BYTES = 256 * 2**20
"""The same in bytes of latents, of what came with them, and of pixels."""
COPIED = 4 * 2**20
"""Bytes of a file that are in memory at once while it is copied to the stream."""
TAKEN = "source"
"""Begins the field of a member that came with a sample and is named like its picture."""


@dataclass(slots=True)
class Share:
    """Samples that are decoded together and written in their order."""

    run: DecodeRun
    stdout: Stdout
    failed_before: int
    samples: list[LatentSample] = field(default_factory=list)
    held: int = 0
    """Bytes of them."""
    files: dict[str, Future[bytes]] = field(default_factory=dict)
    """By key."""
    sent: int = 0
    """Samples that are written, or failed."""

    def take(self, samples: Iterable[LatentSample]) -> Iterator[LatentSample]:
        """Passes samples on until there are enough; their size is known once they are loaded."""
        for sample in samples:
            self.samples.append(sample)
            yield replace(sample, load=partial(self._load, sample))
            if len(self.samples) >= SHARE_SAMPLES or self.held >= SHARE_BYTES:
                return

    def _load(self, sample: LatentSample) -> Tensor:
        latent = sample.load()
        *_, height, width = latent.shape
        self.held += latent.nbytes + 3 * height * width * self.run.engine.model.spec.downscale**2
        self.held += sum(len(member.data) for member in sample.others())
        return latent

    def put(self, *, wait: bool) -> None:
        """Writes the samples that are next; without `wait`, up to the first that is not ready."""
        failed = {failure["key"] for failure in self.run.failures.noted[self.failed_before :]}
        while self.sent < len(self.samples):
            sample = self.samples[self.sent]
            file = self.files.get(sample.key)
            if not wait and (not file.done() if file else sample.key not in failed):
                return
            if file is not None:
                put_picture(self.run, self.stdout, sample, self.files.pop(sample.key))
            self.sent += 1


def decode_to_stdout(run: DecodeRun, stdout: Stdout) -> None:
    """Pictures or clips as members of one tar stream, in order, with what came beside them.

    The end mark says that the job came to its end; samples that failed are not in the stream.
    """
    if run.source.clips is not None:
        for clip in run.source.clips(run.units()):
            clip_to_stdout(run, stdout, clip)
    else:
        pictures_to_stdout(run, stdout)
    stdout.write([END])


def refuse_skipping(skip_existing: bool) -> None:
    """UsageError where pictures are to be passed over that a stream cannot have."""
    if skip_existing:
        raise UsageError("--skip-existing is for a folder of pictures; leave it out with -o -.")


def pictures_to_stdout(run: DecodeRun, stdout: Stdout) -> None:
    """Pictures in the order of their latents; some wait for others of their size, not for long."""
    samples = run.source.samples(run.units())
    with writers(run) as pool:
        while True:
            first = next(samples, None)
            if first is None:
                return
            share = Share(run, stdout, len(run.failures.noted))
            stdout.idle = partial(share.put, wait=False)
            taken = share.take(itertools.chain([first], samples))
            for decoded in decoded_groups(run, [taken]):
                for index, key in enumerate(decoded.keys):
                    share.files[key] = pool.submit(encode_picture, run, decoded, index)
                share.put(wait=False)
            share.put(wait=True)
            stdout.idle = go_on


@contextmanager
def writers(run: DecodeRun) -> Iterator[ThreadPoolExecutor]:
    """Threads for encode_image; what they have not begun is dropped where the block fails."""
    threads = writer_threads(run.job, run.team.rank.sharing)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="encode_image")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def encode_picture(run: DecodeRun, decoded: Decoded, index: int) -> bytes:
    """encode_image of one of some pictures; SampleError where the format cannot hold it."""
    pixels = decoded.pictures()[index]
    with run.meter.stage("encode_image", 1):
        return encode_image(pixels, run.format, run.job.quality)


def put_picture(run: DecodeRun, stdout: Stdout, sample: LatentSample, file: Future[bytes]) -> None:
    """encode_image's result and its companions to the stream; a failed one is noted."""
    try:
        data = file.result()
    except SampleError as error:
        run.fail(sample.key, error)
        return
    with run.meter.stage("write", 1):
        put(stdout, sample.key, [Member(SUFFIXES[run.format][1:], data), *sample.others()])


def put(stdout: Stdout, key: str, members: Sequence[Member], taken: Collection[str] = ()) -> None:
    """Writes the members of one sample; no two fields are alike, nor like those that are taken.

    Case does not tell fields apart, as for webdataset.
    """
    seen = set(taken)
    for member in members:
        name = member.field
        while name.lower() in seen:
            name = f"{TAKEN}.{name}"
        seen.add(name.lower())
        stdout.write(member_chunks(member_name(key, name), len(member.data), [member.data]))


def clip_to_stdout(run: DecodeRun, stdout: Stdout, clip: LatentClip) -> None:
    """One clip through a file of its own, since a video is not written from front to back."""
    with tempfile.TemporaryDirectory(prefix="latentcli-") as folder:
        source = replace(run.source, units=(), clips=lambda _: iter([clip]))
        decode_clips(replace(run, source=source, output=Path(folder)))
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        paths = sorted(path for path in files if path.name != MARK)
        if not paths:
            return
        with run.meter.stage("write", 0):
            for path in paths:
                key = str(path.relative_to(folder).with_suffix(""))
                name = member_name(key, path.suffix[1:])
                stdout.write(member_chunks(name, path.stat().st_size, pieces(path)))
            put(stdout, clip.key, clip.others(), taken=[SUFFIXES[run.format][1:]])


def pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file, in order."""
    with path.open("rb") as file:
        while piece := file.read(COPIED):
            yield piece
