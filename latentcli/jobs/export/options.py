"""Holds the options of an export."""

from __future__ import annotations

from dataclasses import dataclass

from latentcli.core.errors import UsageError
from latentcli.core.options import option
from latentcli.exports.formats import NAMES
from latentcli.jobs.settings.follow import FollowSettings
from latentcli.jobs.settings.store import store_argument


@dataclass(frozen=True, kw_only=True)
class ExportJob(FollowSettings):
    """A store to the files of a trainer."""

    store: str = store_argument("Folder or URL of a store.")
    to: str | None = option(
        None,
        f"Format to write: {', '.join(NAMES)}. docs/guides/exports.md describes them.",
        section="write",
        daily=True,
        choices=NAMES,
        metavar="FORMAT",
    )
    output: str | None = option(
        None,
        "Folder of the files; one that exists is resumed. Default: <store name>.<format>.",
        section="write",
        daily=True,
        metavar="DIR",
        flags=("--output", "-o"),
    )
    arch: str | None = option(
        None,
        "Model that the files are for, such as flux2_klein_4b, if the format has several for one"
        " latent space. Default: the only one.",
        section="write",
        daily=True,
        metavar="NAME",
    )
    check: str | None = option(
        None,
        "Write nothing, but compare an export with its store, value for value. The folder knows its"
        " format. Default: write.",
        section="verify",
        daily=True,
        metavar="DIR",
    )
    latents: str | None = option(
        None,
        "State of the latents, if the format leaves it open: raw, or the model's own (whitened or"
        " scaled). Default: the one that the format's trainer expects.",
        section="encode",
        daily=True,
        choices=("whitened", "scaled", "raw"),
    )
    sample: int | None = option(
        None,
        "Write samples of the posterior, drawn with this seed; needs a store of moments. Default:"
        " the mode.",
        section="encode",
        metavar="SEED",
    )
    file_dtype: str | None = option(
        None,
        "Data type of the latents, if the format leaves it open: float32, bfloat16 or float16."
        " Default: what the trainer itself writes.",
        section="write",
        choices=("float32", "bfloat16", "float16"),
        flags=("--dtype",),
        metavar="DTYPE",
    )
    labels: str = option(
        "auto",
        "Where class labels come from, if the format has them: folder (the first folder of the"
        " name), the name of a field, or auto: the fields cls and label, else folder. Default:"
        " auto.",
        section="read",
        panel="encode",
        offers=lambda: ("auto", "folder"),
        metavar="auto|folder|NAME",
    )
    samples_per_file: int | None = option(
        None,
        "Samples in a file, if the format has several in one. Default: as the trainer's own"
        " writer.",
        section="write",
        least=1,
    )
    bytes_column: str = option(
        "",
        "Only mds: also write a column of this name with bare float16 bytes. Default: none.",
        section="write",
        metavar="NAME",
    )
    workers: int | None = option(
        None,
        "Processes that write; 0: the main process does it. At most 4 per core. Default: 0 for up"
        " to 16,384 latents, else one per CPU core, up to 8.",
        section="read",
        panel="batch",
        daily=True,
        least=0,
    )
    link_images: bool = option(
        False,
        "Also put links to the images, and their captions as .txt files, where the trainer looks"
        " for them. Default: off.",
        section="write",
    )
    force: bool = option(
        False,
        "Write even latents that the trainer is not made for: of another latent space, or of sizes"
        " that it would not compute. Default: refuse.",
        section="model",
        panel="trouble",
    )


def check_format(job: ExportJob) -> None:
    """UsageError where an export is to be written and nobody said in which format."""
    if job.to is None and job.check is None:
        raise no_format()


def no_format() -> UsageError:
    """The error where nobody said in which format."""
    return UsageError(f"Give the format with --to: {', '.join(NAMES)}.")
