"""Stands in for a model with code that is compiled for the pieces of a job's full batches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import LatentCliError
from latentcli.core.posterior import AnyPosterior, posterior_of
from latentcli.jobs.inference.accelerator import Accelerator
from latentcli.jobs.inference.compiling import RECOMPILES, code_of, failed, reason
from latentcli.jobs.inference.likeness import unlike
from latentcli.jobs.inference.on_cores import piece_of
from latentcli.jobs.inference.out_of_memory import is_out_of_memory
from latentcli.jobs.inference.recording import can_record, recorded
from latentcli.jobs.runtime.meter import ignore
from latentcli.models.base import Autoencoder

logger = logging.getLogger(__name__)

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """Pictures that a model gets at once."""

    op: str
    """encode or decode."""
    count: int
    width: int
    height: int
    threads: int
    """Torch's, which code for a CPU is made for; 0 on a GPU."""


def piece(accelerator: Accelerator, op: str, count: int, size: tuple[int, int]) -> Piece:
    """What the model gets of a full batch of `count` pictures (W, H); the rest has other shapes."""
    if accelerator.gpu:
        return Piece(op, count, *size, threads=0)
    each, threads = piece_of(count, size[0] * size[1], alone=op == "encode")
    return Piece(op, min(each, count), *size, threads=threads)


def sample_pixels(piece: Piece) -> Tensor:
    """Noise, uint8 [N, 3, H, W], with which code for a piece is made before pictures are there."""
    shape = (piece.count, 3, piece.height, piece.width)
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)


@contextmanager
def threads_of(piece: Piece) -> Iterator[None]:
    """Within the block torch has the threads of a piece, which `on_cores` leaves as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(piece.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(slots=True)
class CompiledModel:
    """Encodes and decodes as the model, with compiled code where the call is one of the pieces.

    Of small batches on a GPU, where it is the launches that take long, the model's own work is
    recorded instead. All other calls, as the rest of a batch or what memory made smaller, are the
    model's own. So which code a picture meets depends on its batch alone. On a CPU threads may
    share it: code is made once.
    """

    model: Autoencoder
    accelerator: Accelerator
    dtype: str
    """bf16 or fp32."""
    pieces: frozenset[Piece]
    status: Callable[[str], None] = ignore
    """Told before code is made, which takes up to a minute."""
    _code: dict[tuple[str, Piece], Callable[..., Outputs]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def encode(self, images: Tensor) -> Tensor:
        """As `Autoencoder.encode`."""
        piece = self._piece("encode", len(images), *images.shape[-2:])
        if piece is None:
            return self.model.encode(images)
        (latents,) = self._run("encode", piece, images)
        return latents

    def encode_posterior(self, images: Tensor) -> AnyPosterior:
        """As `Autoencoder.encode_posterior`, with moments in float32."""
        piece = self._piece("encode", len(images), *images.shape[-2:])
        if piece is None:
            return self.model.encode_posterior(images)
        moments = self._run("moments", piece, images)
        return posterior_of(dict(zip(self.model.moments, moments, strict=True)))

    def decode(
        self,
        latents: Tensor,
        height: int,
        width: int,
        inference_config: Any = None,
        *,
        noise: Tensor | None = None,
    ) -> Tensor:
        """As `Autoencoder.decode`; a diffusion decoder needs the noise."""
        piece = self._piece("decode", len(latents), height, width)
        if piece is None:
            return self.model.decode(latents, height, width, inference_config, noise=noise)
        (images,) = self._run("decode", piece, latents, height, width, inference_config, noise)
        return images

    def _piece(self, op: str, count: int, height: int, width: int) -> Piece | None:
        """The one that a call is; None where there is no code for it."""
        threads = 0 if self.accelerator.gpu else torch.get_num_threads()
        found = Piece(op, count, width, height, threads)
        return found if found in self.pieces else None

    def _run(self, method: str, piece: Piece, *given: Any) -> Outputs:
        code = self._code.get((method, piece))
        if code is not None:
            return code(*given)
        with self._lock:
            if (method, piece) not in self._code:
                self._code[method, piece] = self._made(method, piece, given)
        return self._code[method, piece](*given)

    def _made(self, method: str, piece: Piece, given: tuple[Any, ...]) -> Callable[..., Outputs]:
        """The code of a piece, held against the model; LatentCliError where that is another."""
        what = f"{piece.op} of {piece.width}x{piece.height}, batch {piece.count}"
        plain = CALLS[method](self.model)
        if can_record(self.accelerator, piece.count * piece.width * piece.height):
            return self._recorded(plain, what, given)
        self.status(f"Compiling the network for {piece.width}x{piece.height} ({piece.op})")
        code = code_of(plain)
        expected = plain(*given)
        try:
            # Torch keeps a setting for each thread.
            with torch._dynamo.config.patch(recompile_limit=RECOMPILES):
                found = code(*given)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise failed(self.model.info.name, what, error) from error
        self._compare(found, expected, what)
        return code

    def _recorded(
        self, plain: Callable[..., Outputs], what: str, given: tuple[Any, ...]
    ) -> Callable[..., Outputs]:
        """A recording of the model's own work, which gives its bits; the model where there is none.

        So it makes no difference to a store which of them ran.
        """
        self.status(f"Recording the network's {what}")
        expected = plain(*given)
        try:
            code = recorded(plain, given, self.accelerator)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            logger.warning(
                "The network's %s could not be recorded, and runs without a recording: %s",
                what,
                reason(error),
            )
            return plain
        self._compare(code(*given), expected, what)
        return code

    def _compare(self, found: Outputs, expected: Outputs, what: str) -> None:
        """LatentCliError where code gives something else than the model."""
        for own, right in zip(found, expected, strict=True):
            if wrong := unlike(own.cpu(), right.cpu(), self.dtype):
                raise LatentCliError(
                    f"{self.model.info.name}, compiled, {what}: its output {wrong}. Leave out"
                    " --compile to run the eager network."
                )


def _encode(model: Autoencoder) -> Callable[..., Outputs]:
    return lambda images: (model.encode(images),)


def _moments(model: Autoencoder) -> Callable[..., Outputs]:
    return lambda images: tuple(model.encode_posterior(images).moments().values())


def _decode(model: Autoencoder) -> Callable[..., Outputs]:
    return lambda latents, height, width, config, noise: (
        model.decode(latents, height, width, config, noise=noise),
    )


CALLS: Mapping[str, Callable[[Autoencoder], Callable[..., Outputs]]] = {
    "encode": _encode,
    "moments": _moments,
    "decode": _decode,
}
"""What is compiled: tensors in, tensors out."""
