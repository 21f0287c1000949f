"""Defines the latents of another tool's file, and what is checked of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from latentcli.core.errors import SampleError, StoreError, UsageError
from latentcli.core.types import Member
from latentcli.shards.storage.paths import AnyPath

Space = tuple[str | None, str]
"""(latent space id or None, state)."""


@dataclass(frozen=True, slots=True)
class ForeignLatent:
    """One latent of another tool's file, not read yet."""

    key: str
    load: Callable[[], Tensor]
    """Reads it, [C, h, w] of floats; SampleError or StoreError where it cannot be read."""
    others: Callable[[], tuple[Member, ...]] = tuple
    """What the file says of it, such as its class."""


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """The latents of another tool's file."""

    path: AnyPath
    space: str | None
    """Latent space id without the state; None where neither name nor content tells it."""
    state: str
    """whitened, scaled or raw."""
    latents: Sequence[ForeignLatent]

    @property
    def described(self) -> str:
        """Whose latents they are, for people."""
        return described_latents(self.space, self.state)


def described_latents(space: str | None, state: str) -> str:
    """latents of sdxl#raw, or raw latents of a space that is not named."""
    if space is None:
        return f"{state} latents of a space that is not named"
    return f"latents of {space}#{state}"


def named(latent: ForeignLatent, path: AnyPath) -> ForeignLatent:
    """A latent whose `load` raises nothing but SampleError, with the file's name."""

    def load() -> Tensor:
        try:
            return latent.load()
        except (SampleError, StoreError) as error:
            reason = str(error).removesuffix(".")
            place = "" if str(path) in reason else f"{path}: "
            raise SampleError("read", f"{place}{reason}") from error

    return replace(latent, load=load)


def known_state(path: AnyPath, asked: str | None, own: str) -> str:
    """`own`; UsageError where another state is asked for than is known of a file."""
    if asked not in (None, own):
        raise UsageError(
            f"--latents is {asked!r}, but {path} holds {own} latents, as its name and channels"
            " show. Leave the option out."
        )
    return own


def state_of(path: AnyPath, asked: str | None, space: str | None, own: str) -> str:
    """`own` where the space is known, else what is asked for, or `own`; UsageError as above."""
    if space is not None:
        return known_state(path, asked, own)
    if asked == "moments":
        raise UsageError(
            f"--latents is 'moments', and {path} holds no moments: say whitened, scaled or raw."
        )
    return asked or own


def checked(latent: Tensor, name: str) -> Tensor:
    """A latent [C, h, w] as it is; SampleError where it has another rank, or is not of floats."""
    if not latent.is_floating_point():
        raise SampleError("read", f"{name} is of {latent.dtype}, which is not a latent")
    if latent.ndim != 3:
        raise SampleError("read", f"{name} is {list(latent.shape)}, and a latent is [C, h, w]")
    return latent
