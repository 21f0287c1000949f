"""Lists the cases that a bench job times: op, size and batch, or the rows of a published table."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from latentcli.core.errors import UsageError
from latentcli.core.pixel_size import pixel_size
from latentcli.jobs.bench.config import BenchJob

RESOLUTION, BATCH = ("256",), (1, 8)
"""What is timed where nobody says."""

PRESET_TABLES: dict[str, tuple[tuple[int, int], ...]] = {
    "encode": ((256, 128), (512, 32)),
    "decode": ((512, 1), (1024, 1), (2048, 1)),
}
"""Side of the square pictures and batch size of each row in the published model cards."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to time."""

    op: str
    """encode or decode."""
    size: tuple[int, int]
    """(W, H)."""
    batch: int

    @property
    def resolution(self) -> str:
        """WIDTHxHEIGHT."""
        return "x".join(map(str, self.size))

    def __str__(self) -> str:
        return f"{self.op} of {self.resolution}, batch {self.batch}"


def cases_of(job: BenchJob) -> list[Case]:
    """The cases in the order of the table; UsageError for what a preset table has no room for."""
    if job.preset_table is not None:
        return preset_cases(job, job.preset_table)
    ops = [op for op in ("encode", "decode") if job.op in (None, "both", op)]
    sizes = [pixel_size(text, "--resolution") for text in job.resolution or RESOLUTION]
    return [Case(*each) for each in itertools.product(ops, sizes, job.batch or BATCH)]


def preset_cases(job: BenchJob, table: str) -> list[Case]:
    """The rows of a published table, with the job's batch size where it gives one."""
    rows = PRESET_TABLES[table]
    if job.op not in (None, table):
        raise UsageError(f"--preset-table {table} times only {table}; leave out --op {job.op}.")
    if job.resolution is not None:
        sides = ", ".join(str(side) for side, _ in rows)
        raise UsageError(
            f"--preset-table {table} has its own resolutions, {sides}; leave out --resolution,"
            " or leave out --preset-table."
        )
    if job.batch is not None and len(job.batch) > 1:
        raise UsageError(
            f"--preset-table {table} has one batch size a row; give one --batch, or none for"
            f" {published_batches(table)}."
        )
    return [Case(table, (side, side), job.batch[0] if job.batch else n) for side, n in rows]


def published_batches(table: str) -> str:
    """The batch sizes of a published table, such as 128 and 32."""
    return " and ".join(str(n) for n in dict.fromkeys(n for _, n in PRESET_TABLES[table]))


def preset_document(job: BenchJob) -> dict[str, object] | None:
    """What the document says of the preset table; None without one."""
    if job.preset_table is None:
        return None
    return {
        "name": job.preset_table,
        "published_batch": published_batches(job.preset_table),
        "batch": job.batch[0] if job.batch else None,
    }
