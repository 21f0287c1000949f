"""Checks the folder that an export is written to, and the pictures of its latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from latentcli.core.errors import UsageError
from latentcli.core.types import Row
from latentcli.exports.format import ExportFormat, Setting
from latentcli.jobs.export.samples import name_of


def check_surroundings(
    format: ExportFormat, setting: Setting, rows: Sequence[Row], packed: bool
) -> None:
    """UsageError where the trainer would not find the files, or would take others for them."""
    if problem := format.problem(setting):
        raise UsageError(
            f"The trainer would not find these files: {problem}. --force writes them anyway."
        )
    folder = Path(setting.folder)
    if not folder.is_dir():
        return
    for row in rows:
        other = format.hides(name_of(row, packed), setting)
        if other and (folder / other).exists():
            raise UsageError(
                f"{folder / other} is there already, and {format.name} reads it in place of the"
                f" file that {row.key!r} would get. Delete or move it; --force writes anyway."
            )


def warnings_of(
    format: ExportFormat,
    setting: Setting,
    rows: Sequence[Row],
    others: Sequence[Row],
    packed: bool,
) -> list[str]:
    """What a person should know before training; `others` are inputs without a latent."""
    # Where the pictures of the latents are linked to, the others are not.
    there = setting.root == root_of(rows, packed)
    found = mistaken_pictures(format, rows, others, packed) if there else []
    if setting.mirrored and not format.flips:
        found.append(
            f"The latents of mirrored pictures are left out: {format.name} has no place for them."
        )
    return found


def forced_warnings(setting: Setting, problem: str | None) -> list[str]:
    """What was written all the same; `problem` is that of the sizes, where there is one."""
    found = []
    if setting.forced:
        found.append("Forced: the trainer is not made for latents of this space.")
    if problem:
        found.append(f"Forced: the trainer will compute other sizes, because {problem}.")
    return found


def mistaken_pictures(
    format: ExportFormat, rows: Sequence[Row], others: Sequence[Row], packed: bool
) -> list[str]:
    """A sentence on pictures without a latent that the trainer would take for others."""
    if not others:
        return []
    names = [name_of(row, packed) for row in rows]
    found = format.mistaken(names, [name_of(row, packed) for row in others])
    if not found:
        return []
    name, other = next(iter(found.items()))
    return [
        f"Some pictures without a latent ({len(found):,}) have a name that another picture's name"
        f" begins with, such as {name!r} and {other!r}: {format.name} would give the first the"
        " size of the second. Move them out of the folder."
    ]


def root_of(rows: Sequence[Row], packed: bool) -> str:
    """The folder of pictures that names are relative to; "" where there is none on this machine."""
    if packed or not rows:
        return ""
    source, name = Path(rows[0].source), PurePosixPath(name_of(rows[0], packed))
    if not source.is_absolute() or len(source.parents) < len(name.parts):
        return ""
    root = source.parents[len(name.parts) - 1]
    inside = source.relative_to(root).with_suffix("").as_posix()
    return str(root) if inside == str(name) else ""
