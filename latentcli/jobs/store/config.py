"""Holds the jobs of sharing a store, its card and its push, as dataclasses; loads no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from latentcli.core.errors import UsageError
from latentcli.core.options import like, option
from latentcli.jobs.config import VerifyJob

UNKNOWN = "unknown"
"""The licence of a card where nobody says one: that of the latents is that of the pictures."""

NEEDED = "Give the repository as OWNER/NAME, such as someone/cats-latents."

_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def check_repo(text: str) -> None:
    """UsageError where a text does not name a repository as OWNER/NAME."""
    if not text:
        raise UsageError(NEEDED)
    if not _REPO.fullmatch(text):
        raise UsageError(
            f"{text!r} is no repository of the Hub: write OWNER/NAME, such as someone/cats-latents."
        )


@dataclass(frozen=True, kw_only=True)
class CardJob:
    """A store to the card of a dataset on the Hub."""

    store: str = like(VerifyJob, "store", section="")
    output: str | None = option(
        None,
        "Where the card goes; - prints it. Its pictures are in a folder beside it, and - has none."
        " Default: README.md in the store.",
        metavar="FILE",
        flags=("--output", "-o"),
    )
    license: str | None = option(
        None,
        "Licence of the latents, as the Hub calls it, such as cc-by-4.0. Default: the one that the"
        " card has, else unknown, which is to be filled in.",
        metavar="ID",
    )
    pictures: int = option(
        12,
        "Latents that are shown in colours, evenly over the store; 0 shows none. Default: 12.",
        least=0,
        most=200,
    )
    force: bool = option(
        False,
        "Write the card anew, also where a person wrote or changed it. Default: off.",
        flags=("--force",),
    )


@dataclass(frozen=True, kw_only=True)
class PushJob:
    """A store to a dataset repository on the Hub."""

    store: str = like(VerifyJob, "store", section="")
    repo: str = option(
        "",
        "Dataset repository, OWNER/NAME; it is made where it does not exist.",
        argument=True,
        metavar="OWNER/NAME",
        needed=NEEDED,
        check=check_repo,
    )
    private: bool = option(
        False,
        "Make the repository private; one that exists and is public is refused. Default: off,"
        " which is as your account or organisation has it.",
        flags=("--private",),
    )
    branch: str | None = option(
        None,
        "Branch to push to; it is made where it does not exist. Default: main.",
        metavar="BRANCH",
        flags=("--branch", "--revision"),
    )
    message: str | None = option(
        None,
        "What the commits say. Default: how many latents there are, and of which latent space.",
        metavar="TEXT",
    )
    allow_partial: bool = option(
        False,
        "Push what is there of a store that is not whole. Default: off; it is refused.",
        flags=("--allow-partial",),
    )
    force: bool = option(
        False,
        "Replace the store of another spec that the repository holds. Default: refuse.",
        flags=("--force",),
    )
    show_sources: bool = option(
        False,
        "Push although sources are named by shell commands, or by URLs with parameters, which may"
        " hold secrets. Default: off; it is refused.",
        flags=("--show-sources",),
    )
