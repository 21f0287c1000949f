"""Reads Parquet files page by page, so that the size of a row group does not matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from latentcli.shards.tables.arrow import batch_rows, columns_of, load_pyarrow, telling
from latentcli.shards.tables.table import Table, TableError, TableRow

BATCH_BYTES = 4 * 2**20
"""About as many bytes are unpacked at once."""
BATCH_ROWS = 256
_BUFFER = 2**20


class ParquetTable(Table):
    """A Parquet file, of which a few pages and a small batch are in memory.

    Its writer decides how large a page is; pyarrow's has up to 1,024 rows in each.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._size = size
        parquet = load_pyarrow().parquet
        with telling("it is not a Parquet file, or it is damaged"):
            self._file = parquet.ParquetFile(
                file, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True
            )
            self.columns = columns_of(self._file.schema_arrow)

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """As the table's; all that follows a damaged page is lost."""
        first, total = 0, max(self._file.metadata.num_rows, 1)
        for group in range(self._file.num_row_groups):
            for row in self._group_rows(group, first, columns):
                self.taken = self._size * (row.number + 1) // total
                yield row
            first += self._file.metadata.row_group(group).num_rows

    def row(self, number: int, column: str) -> TableRow:
        """As the table's, from its row group alone."""
        first = 0
        for group in range(self._file.num_row_groups):
            count = self._file.metadata.row_group(group).num_rows
            if number < first + count:
                rows = self._group_rows(group, first, [column])
                return next(row for row in rows if row.number == number)
            first += count
        raise TableError(f"it has no row {number} any more")

    def _group_rows(self, group: int, first: int, columns: Sequence[str]) -> Iterator[TableRow]:
        batches = self._file.iter_batches(
            self._batch_rows(group), row_groups=[group], columns=list(columns), use_threads=False
        )
        number = first
        while True:
            with telling(f"the file is damaged after row {number:,}"):
                batch: Any = next(batches, None)
            if batch is None:
                return
            yield from batch_rows(batch, number)
            number += batch.num_rows

    def _batch_rows(self, group: int) -> int:
        info = self._file.metadata.row_group(group)
        each: int = info.total_byte_size // max(info.num_rows, 1)
        return max(1, min(BATCH_ROWS, BATCH_BYTES // max(each, 1)))
