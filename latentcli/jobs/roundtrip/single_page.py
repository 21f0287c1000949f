"""Chooses the pictures that a page of one file holds, and checks the place of such a page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.output_paths import local
from latentcli.jobs.runtime.report_folder import FILES, PAGE_SUFFIX, check_page_file
from latentcli.reports.viewer import Embedded

MOST_PICTURES = 2000
MOST_BYTES = 40_000_000
"""Bytes of the pictures that are whole in a page; of all others it has the thumbnails."""
ADVICE = "Leave out --single-file, or take fewer with --limit."


def check_single_page(job: RoundtripJob) -> None:
    """UsageError where --single-file has no file to write, or one that is no page of latentcli."""
    if job.report is None:
        raise UsageError("--single-file is for --report: name the page, such as report.html.")
    if not job.report.lower().endswith(PAGE_SUFFIX):
        raise UsageError(
            f"--report is {job.report!r}; with --single-file it names the page itself, and ends in"
            f" {PAGE_SUFFIX}."
        )
    if job.csv is not None and local(job.csv) == local(job.report):
        raise UsageError(f"--csv and --report both name {job.csv}. Name another file.")
    check_page_file(job.report)


def check_count(count: int) -> None:
    """UsageError where there are more inputs than a page of one file shows."""
    if count > MOST_PICTURES:
        raise UsageError(
            f"--single-file holds at most {MOST_PICTURES:,} pictures, and there are {count:,}."
            f" {ADVICE}"
        )


def refuse_more(index: int) -> None:
    """StoreError for a picture beyond the most: of clips and tars the number shows late."""
    if index >= MOST_PICTURES:
        raise StoreError(
            f"There is no page: --single-file holds at most {MOST_PICTURES:,} pictures, and there"
            f" are more. {ADVICE}"
        )


def embedded(folder: Path, rows: Callable[[], Iterator[dict[str, Any]]]) -> Embedded:
    """The pictures of a report's folder as one page holds them: the first ones whole."""
    there, indices = files_by_index(folder), [row["index"] for row in rows()]
    sizes = (sum(path.stat().st_size for path in there[index]) for index in indices)
    whole = {
        index for index, end in zip(indices, accumulate(sizes), strict=True) if end <= MOST_BYTES
    }

    def files() -> Iterator[tuple[str, bytes]]:
        for index in indices:
            for path in there[index]:
                if index in whole or ".thumb." in path.name:
                    yield path.name, path.read_bytes()

    return Embedded(files, frozenset(whole), len(indices) - len(whole))


def files_by_index(folder: Path) -> dict[int, list[Path]]:
    """The files of each picture, by name."""
    found = defaultdict[int, list[Path]](list)
    for path in sorted((folder / FILES).glob("[0-9]*/[0-9]*.*")):
        found[int(path.name.partition(".")[0])].append(path)
    return found
