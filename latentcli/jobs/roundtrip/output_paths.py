"""Refuses output folders of a roundtrip that lie in its sources or in each other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from latentcli.core.errors import UsageError
from latentcli.jobs.config import RoundtripJob
from latentcli.shards.storage.paths import is_remote, path_of


def check_output_paths(job: RoundtripJob) -> None:
    """UsageError where a next run would take this one's pictures for inputs or be refused.

    A report's folder holds nothing but the report, and is cleared before it is written.
    """
    report = None if job.single_file else local(job.report)
    folders = {"--report": report, "--save": local(job.save)}
    for option, folder in folders.items():
        if folder is not None:
            check_beside(option, folder, job.sources)
    for option, other in {"--save": folders["--save"], "--csv": local(job.csv)}.items():
        if report is not None and other is not None and other.is_relative_to(report):
            raise UsageError(
                f"{option} {other} is in the folder of --report, which may hold only the page and"
                " its pictures. Name another place."
            )


def check_beside(option: str, folder: Path, sources: Iterable[str]) -> None:
    """UsageError where a folder of pictures to write lies in a source, or a source in it."""
    for text in sources:
        source = local(text)
        if source is None:
            continue
        if source.is_dir() and seen_from(source, folder):
            raise UsageError(
                f"{option} {folder} is in the source {text}: the next run would take what is"
                " written there as inputs. Name another folder."
            )
        if option == "--report" and source.is_relative_to(folder):
            raise UsageError(
                f"The source {text} is in --report {folder}, which is cleared before it is"
                " written. Name another folder."
            )


def seen_from(source: Path, folder: Path) -> bool:
    """Whether a search of a source finds a folder's files; it passes over hidden folders."""
    if not folder.is_relative_to(source):
        return False
    return not any(part.startswith(".") for part in folder.relative_to(source).parts)


def local(text: str | None) -> Path | None:
    """The whole path that a word names on this machine, or None where it names none."""
    if text is None or is_remote(text):
        return None
    path = path_of(text)
    return path.resolve() if isinstance(path, Path) else None
