"""Lists the formats that a store can be exported to; loads none of them, and no torch."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from latentcli.core.errors import UsageError

if TYPE_CHECKING:
    from latentcli.exports.format import ExportFormat, Variant

NAMES = (
    "kohya",
    "musubi",
    "simpletuner",
    "ai-toolkit",
    "comfyui",
    "mds",
    "litdata",
    "webdataset",
    "webshart",
    "parquet",
    "fastvideo",
    "lightningdit",
    "edm2",
    "repa",
    "fast-dit",
    "mar",
)
"""Formats, as --to calls them; each is the module of its name."""


@cache
def export_format(name: str) -> ExportFormat:
    """The format of this name, whose module is loaded; UsageError for another name."""
    if name not in NAMES:
        raise UsageError(f"There is no export format {name!r}; there are {', '.join(NAMES)}.")
    module = import_module(f"latentcli.exports.{name.replace('-', '_')}")
    found: ExportFormat = module.FORMAT
    return found


def variant_for(
    format: ExportFormat, space: str, states: tuple[str, ...], arch: str | None, force: bool
) -> Variant:
    """The variant that latents of a space are written as.

    `states` are those that the space has, `arch` is the name of the wanted one. UsageError where
    the format cannot hold them, with both spaces named, or where several could and none is wanted.
    """
    if arch is not None and arch not in {one.name for one in format.variants}:
        raise UsageError(
            f"--arch is {arch!r}; {format.name} has {', '.join(v.name for v in format.variants)}."
        )
    fits = [one for one in format.variants if not one.spaces or space in one.spaces]
    wanted = [one for one in fits if arch in (None, one.name)]
    if len(wanted) == 1:
        return wanted[0]
    if wanted:
        choices = ", ".join(f"{one.name} ({one.suits})" for one in wanted)
        raise UsageError(
            f"{format.name} holds latents of {space} for several models, and a file says for which:"
            f" add --arch with one of {choices}."
        )
    if not force:
        held = sorted({f"{one.name} ({', '.join(one.spaces)})" for one in format.variants})
        raise UsageError(
            f"The store's latents are of the space {space}, and {format.name} holds those of"
            f" {spaces_of(format, arch)}: a trainer would train on them in the wrong scale,"
            f" without an error. Allowed are {', '.join(held)}. Encode with a model of that space"
            " (latentcli models lists them), or name another format; --force with --arch writes"
            " them anyway."
        )
    if arch is None:
        raise UsageError(
            f"--force needs --arch, to say as what: {', '.join(v.name for v in format.variants)}."
        )
    return next(one for one in format.variants if one.name == arch)


def spaces_of(format: ExportFormat, arch: str | None) -> str:
    """The spaces that a format, or one variant of it, may hold."""
    rows = [one.spaces for one in format.variants if arch in (None, one.name)]
    return " or ".join(sorted({space for spaces in rows for space in spaces}))
