"""Holds the options of an export."""

from __future__ import annotations

from dataclasses import dataclass

from latentcli.core.options import option
from latentcli.exports.formats import NAMES
from latentcli.jobs.settings import NO_STORE, FollowSettings


@dataclass(frozen=True, kw_only=True)
class ExportJob(FollowSettings):
    """A store to the files of a trainer."""

    store: str = option(
        "", "Folder or URL of a store.", argument=True, section="read", needed=NO_STORE
    )
    to: str | None = option(
        None,
        f"Format to write: {', '.join(NAMES)}. docs/guides/exports.md says whose each is.",
        section="write",
        choices=NAMES,
        metavar="FORMAT",
    )
    output: str | None = option(
        None,
        "Folder of the files; one that exists is gone on with. Default: <store name>.<format>.",
        section="write",
        metavar="DIR",
        flags=("--output", "-o"),
    )
    arch: str | None = option(
        None,
        "For which model the files are, where the format has several for one latent space, such as"
        " flux2_klein_4b. Default: the only one.",
        section="write",
        metavar="NAME",
    )
    check: str | None = option(
        None,
        "Compare an export with its store, value for value, and write nothing; the folder knows its"
        " format. Default: write.",
        section="verify",
        metavar="DIR",
    )
    latents: str | None = option(
        None,
        "State of the latents, of a format that leaves it open: raw, or the model's own (whitened"
        " or scaled). Default: the one that the format's trainer expects.",
        section="encode",
        choices=("whitened", "scaled", "raw"),
    )
    sample: int | None = option(
        None,
        "Write samples of the posterior, drawn with this seed, of a store of moments. Default: the"
        " mode.",
        section="encode",
        metavar="SEED",
    )
    file_dtype: str | None = option(
        None,
        "Of the latents, of a format that leaves it open: float32, bfloat16 or float16. Default:"
        " what the trainer itself writes.",
        section="write",
        choices=("float32", "bfloat16", "float16"),
        flags=("--dtype",),
    )
    labels: str = option(
        "auto",
        "Classes, of a format that has them: folder (the first folder of the name), the name of a"
        " field, or auto: the fields cls and label, else folder. Default: auto.",
        section="read",
        metavar="auto|folder|NAME",
    )
    samples_per_file: int | None = option(
        None,
        "Samples in a file, of a format that has several in one. Default: as the trainer's own"
        " writer.",
        section="write",
        least=1,
    )
    bytes_column: str = option(
        "",
        "Name of a column of bare float16 bytes to write besides, of mds. Default: none.",
        section="write",
        metavar="NAME",
    )
    workers: int | None = option(
        None,
        "Processes that write; 0 does it in the main one. Default: 0 for up to 16,384 latents, else"
        " one per CPU core, up to 8; at most 4 per core.",
        section="read",
        least=0,
    )
    link_images: bool = option(
        False,
        "Lay links to the pictures, and their captions as .txt files, where the trainer looks for"
        " them. Default: off.",
        section="write",
    )
    force: bool = option(
        False,
        "Write latents that the trainer is not made for: of another space, or another size than it"
        " will compute. Default: refuse.",
        section="model",
    )
