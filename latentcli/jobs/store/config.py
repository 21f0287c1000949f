"""Holds the jobs of showing and sharing a store, as dataclasses of options; loads no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from latentcli.core.errors import UsageError
from latentcli.core.options import like, option
from latentcli.jobs.runtime.given_names import check_inspected
from latentcli.jobs.settings.follow import FollowSettings
from latentcli.jobs.settings.model import ModelSettings
from latentcli.jobs.settings.store import NO_STORE, store_argument

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
            f"{text!r} is not a repository of the Hub: write OWNER/NAME, such as"
            " someone/cats-latents."
        )


@dataclass(frozen=True, kw_only=True)
class VerifyJob(FollowSettings):
    """Re-check a store: every digest and count, and a few inputs encoded again."""

    store: str = store_argument("Folder of a store.")
    samples: int = option(
        8,
        "Inputs to encode again and compare; 0: check only the files. Default: 8.",
        section="verify",
        least=0,
    )
    repair: bool = option(
        False,
        "Mark damaged shards; the encode command, run again, encodes them again. Default: off.",
        section="verify",
    )
    weights: str | None = like(ModelSettings, "weights")
    device: str = like(ModelSettings, "device")


@dataclass(frozen=True, kw_only=True)
class InspectJob:
    """Describe a latent store, or the latents of another tool."""

    store: str = option(
        "",
        "Folder of a store, one of its shards, or the cache of a trainer: a file or a folder.",
        argument=True,
        panel="read",
        needed=NO_STORE,
        exists=check_inspected,
    )
    report: str | None = option(
        None,
        "Write an HTML page with figures and images of the latents into this folder; an earlier"
        " report there is replaced.",
        panel="write",
        metavar="DIR",
    )
    report_samples: int | None = option(
        None,
        "Samples to read for the report, evenly over the store; 0 reads all. Default: 2000, or all"
        " if the store does not hold its own means.",
        panel="write",
    )


@dataclass(frozen=True, kw_only=True)
class CardJob:
    """A store to the card of a dataset on the Hub."""

    store: str = like(VerifyJob, "store", section="")
    output: str | None = option(
        None,
        "File of the card; its images go into a folder beside it. - prints the card, without"
        " images. Default: README.md in the store.",
        panel="write",
        metavar="FILE",
        flags=("--output", "-o"),
    )
    license: str | None = option(
        None,
        "Licence of the latents, as the Hub calls it, such as cc-by-4.0. Default: the one in the"
        " card, else unknown, for you to fill in.",
        metavar="ID",
    )
    pictures: int = option(
        12,
        "Latents that the card shows as colour images, evenly over the store; 0 shows none."
        " Default: 12.",
        least=0,
        most=200,
    )
    force: bool = option(
        False,
        "Overwrite the card even if a person wrote or changed it. Default: off.",
        flags=("--force",),
    )


@dataclass(frozen=True, kw_only=True)
class PushJob:
    """A store to a dataset repository on the Hub."""

    store: str = like(VerifyJob, "store", section="")
    repo: str = option(
        "",
        "Dataset repository, OWNER/NAME; it is created if it does not exist.",
        argument=True,
        panel="write",
        metavar="OWNER/NAME",
        needed=NEEDED,
        check=check_repo,
    )
    private: bool = option(
        False,
        "Create a private repository; one that exists and is public is refused. Default: off, which"
        " is what your account or organisation has set.",
        flags=("--private",),
    )
    branch: str | None = option(
        None,
        "Branch to push to; it is created if it does not exist. Default: main.",
        metavar="BRANCH",
        flags=("--branch", "--revision"),
    )
    message: str | None = option(
        None,
        "Message of the commits. Default: the number of latents and their latent space.",
        metavar="TEXT",
    )
    allow_partial: bool = option(
        False,
        "Push a store that is not complete. Default: off; it is refused.",
        flags=("--allow-partial",),
    )
    force: bool = option(
        False,
        "Replace a store of another spec in the repository. Default: refuse.",
        flags=("--force",),
    )
    show_sources: bool = option(
        False,
        "Push even if sources are named by shell commands, or by URLs with parameters, which may"
        " hold secrets. Default: off; it is refused.",
        flags=("--show-sources",),
    )
