"""Prepares the place of a report: a folder that is empty or holds an earlier one, or a page."""

from __future__ import annotations

import shutil
from pathlib import Path

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.runtime.places import try_file, try_folder
from latentcli.reports.page import is_page
from latentcli.shards.sources.own_output import REPORT_MARK, REPORT_NOTE
from latentcli.shards.storage.paths import is_remote, path_of

PAGE_SUFFIX = ".html"
PAGE, FILES, MARK = "index.html", "files", REPORT_MARK
"""A report's page; the folder of its pictures; the note in it that tells whose folder it is."""


def report_folder(path: str | Path) -> Path:
    """The folder of a new report, made where it is missing, with an empty `files` folder in it.

    An earlier report (index.html and a files folder with this function's note, nothing else) is
    cleared. UsageError as `check_report_folder`; StoreError where it cannot be written.
    """
    folder = check_report_folder(path)
    try:
        return _cleared(folder)
    except OSError as error:
        raise report_error(folder, error) from error


def check_report_folder(path: str | Path) -> Path:
    """The folder, of which nothing is changed yet.

    UsageError where it holds anything but an earlier report, is a file or is remote, or where
    nothing can be written to it; StoreError where it cannot be looked into.
    """
    try_folder("--report", str(path))
    folder = path_of(str(path))
    assert isinstance(folder, Path)
    try:
        others = [entry.name for entry in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise report_error(folder, error) from error
    if others and not _is_report(folder, set(others)):
        foreign = [name for name in others if name not in (PAGE, FILES)] or others
        raise UsageError(
            f"--report {path} holds other things ({_some(foreign)}). Name a new or empty folder,"
            " or one that holds an earlier report, which is then replaced."
        )
    return folder


def check_page_file(text: str) -> Path:
    """The file of a report that is one page; nothing is changed yet.

    UsageError where it cannot be written, is remote, or is there and no page of latentcli.
    """
    if is_remote(text):
        raise UsageError(f"--report {text} is remote storage; name a place on this machine.")
    try_file("--report", text)
    page = path_of(text)
    assert isinstance(page, Path)
    if page.exists() and not is_page(page):
        raise UsageError(
            f"--report {text} exists, and is not a page of latentcli. Name another file."
        )
    return page


def report_error(folder: Path, error: OSError) -> StoreError:
    """The sentence for a refused write; a report is made anew, so nothing of it is kept."""
    reason = error.strerror or str(error)
    return StoreError(
        f"The report cannot be written to {folder}: {reason}. Make room or name another folder, and"
        " run the same command again."
    )


def _is_report(folder: Path, names: set[str]) -> bool:
    """Whether all that is there was written by a report before; a page alone may be anyone's."""
    files, page = folder / FILES, folder / PAGE
    return (
        names <= {PAGE, FILES}
        and not files.is_symlink()
        and _is_ours(files / MARK)
        and (page.is_file() or not page.exists())
    )


def _is_ours(note: Path) -> bool:
    """Whether a note is the one that reports write, and no other file of that name."""
    return note.is_file() and not note.is_symlink() and note.read_bytes() == REPORT_NOTE.encode()


def _cleared(folder: Path) -> Path:
    # The page goes first: one that is there must never show pictures that are gone.
    (folder / PAGE).unlink(missing_ok=True)
    files = folder / FILES
    if files.exists():
        # The note goes last: what an interrupted clearing leaves must still be known as a report.
        for entry in files.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != MARK:
                entry.unlink()
    files.mkdir(parents=True, exist_ok=True)
    (files / MARK).write_text(REPORT_NOTE, encoding="utf-8")
    return folder


def _some(names: list[str], most: int = 3) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more
