"""Tables out of files: whole ones, damaged ones, and such as are larger than the memory allowed."""

from __future__ import annotations

import io
import os
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentcli.core.errors import UsageError
from latentcli.shards.tables import json_lines
from latentcli.shards.tables.arrow import ArrowTable, load_pyarrow
from latentcli.shards.tables.json_lines import JsonTable
from latentcli.shards.tables.parquet import ParquetTable
from latentcli.shards.tables.table import Table, TableError

COUNT = 25


def table_of(count: int = COUNT) -> pa.Table:
    return pa.table({"image": [bytes([i]) * 50 for i in range(count)], "n": list(range(count))})


def parquet(table: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def arrow(table: pa.Table, form: str = "stream", batch: int = 4, **options: object) -> bytes:
    file = io.BytesIO()
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(file, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=batch)
    return file.getvalue()


def opened(kind: type[Table], data: bytes) -> Table:
    return kind(io.BytesIO(data), len(data))


def numbers(table: Table) -> list[int]:
    return [row.values["n"] for row in table.rows(["image", "n"])]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (ParquetTable, parquet(table_of(), row_group_size=7)),
        (ParquetTable, parquet(table_of(), compression="zstd", write_page_checksum=True)),
        (ArrowTable, arrow(table_of())),
        (ArrowTable, arrow(table_of(), "file")),
        (ArrowTable, arrow(table_of(), "file", options=pa.ipc.IpcWriteOptions(compression="zstd"))),
    ],
)
def test_rows_in_their_order(kind, data):
    table = opened(kind, data)
    taken = []
    for row in table.rows(["image", "n"]):
        assert row.values == {"image": bytes([row.number]) * 50, "n": row.number}
        taken.append(table.taken)
    assert len(taken) == COUNT and taken == sorted(taken)
    assert 0 < taken[0] < taken[-1] <= len(data)
    for number in (0, 13, COUNT - 1):
        assert opened(kind, data).row(number, "n").values == {"n": number}
    with pytest.raises(TableError, match=f"no row {COUNT}"):
        opened(kind, data).row(COUNT, "n")


@pytest.mark.parametrize("form", ["stream", "file"])
def test_every_cut_of_an_arrow_file_is_noticed(form):
    """At whatever byte it ends, the rows before are there, and the rest is told of."""
    data = arrow(table_of(9), form)
    end = data.index(b"\xff\xff\xff\xff\0\0\0\0", 600) + 8
    for size in range(0, end, 3):
        found = []
        with pytest.raises(TableError, match=r"not an Arrow file|damaged or cut short after row"):
            table = opened(ArrowTable, data[:size])
            for row in table.rows(["n"]):
                found.append(row.values["n"])
        assert found in ([], [0, 1, 2, 3], list(range(8)), list(range(9))), size
    # In the file format an index follows, without which nothing is lost.
    assert numbers(opened(ArrowTable, data[:end])) == list(range(9))


class Watched(io.BytesIO):
    """Knows how much was asked of it at once."""

    largest = 0

    def read(self, size=-1, /):
        self.largest = max(self.largest, size)
        return super().read(size)


def test_a_claimed_length_is_no_memory():
    data = bytearray(arrow(table_of()))
    data[4:8] = (2**31 - 8).to_bytes(4, "little")
    stream = Watched(bytes(data))
    with pytest.raises(TableError, match="not an Arrow file"):
        ArrowTable(stream, len(data))
    assert 0 < stream.largest <= len(data)


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -5])
def test_a_parquet_file_that_was_cut(cut):
    data = parquet(table_of())
    with pytest.raises(TableError, match="not a Parquet file, or it is damaged"):
        opened(ParquetTable, data[:cut] if cut else b"")


def test_a_damaged_page_of_a_parquet_file():
    data = bytearray(
        parquet(table_of(), row_group_size=10, write_page_checksum=True, compression="none")
    )
    at = data.index(bytes([15]) * 50)
    data[at] ^= 1
    table, found = opened(ParquetTable, bytes(data)), []
    with pytest.raises(TableError, match="damaged after row 10"):
        for row in table.rows(["image", "n"]):
            found.append(row.values["n"])
    assert found == list(range(10))


@pytest.mark.parametrize("kind", [ParquetTable, ArrowTable])
def test_what_is_no_such_file(kind):
    for data in (b"<!doctype html><p>404", os.urandom(5000), b"PAR1" + bytes(1000) + b"PAR1"):
        with pytest.raises(TableError, match=r"it is not an? (Parquet|Arrow) file"):
            opened(kind, data)


def test_text_that_is_no_utf8_and_times_beyond_reckoning():
    text = pa.array([b"caf\xe9", b"ok"], pa.binary()).view(pa.string())
    times = pa.array([2**62, 0], pa.int64()).view(pa.timestamp("s"))
    table = opened(ArrowTable, arrow(pa.table({"text": text, "time": times})))
    first, second = table.rows(["text", "time"])
    assert first.values["text"] == "caf\udce9" and second.values["text"] == "ok"
    assert first.values["time"] == str(2**62)


def test_a_large_row_group_is_not_held():
    """A few pages are, in pyarrow's memory and in what it asks of the file at once.

    Its own writer puts 1,024 rows into each.
    """
    each, count = 4000, 12_000
    values = pa.table({"image": [os.urandom(each) for _ in range(count)]})
    data = parquet(values, row_group_size=count)
    del values
    file, before, most = Watched(data), pa.total_allocated_bytes(), 0
    table = ParquetTable(file, len(data))
    assert table._file.num_row_groups == 1
    for row in table.rows(["image"]):
        if row.number % 64 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 4 * 1024 * each < count * each / 2
    assert 0 < file.largest < 2 * 1024 * each


def test_json_lines(tmp_path):
    data = b'\xef\xbb\xbf{"n": 0}\r\n\n{"n": 2, "more": [1]}\n  \n{"n": 4}'
    assert [(row.number, row.values) for row in opened(JsonTable, data).rows(["n"])] == [
        (0, {"n": 0}),
        (2, {"n": 2, "more": [1]}),
        (4, {"n": 4}),
    ]
    assert opened(JsonTable, data).row(4, "n").values == {"n": 4}


def test_json_lines_of_which_some_are_none():
    data = b'oops\n{"n": 1}\n[2]\n{}\n\xff\xfe\n{"n": 5'
    rows = list(opened(JsonTable, data).rows(["n"]))
    assert [(row.number, row.problem is None) for row in rows] == [
        *((0, False), (1, True), (2, False), (3, False), (4, False), (5, False))
    ]
    assert rows[0].problem is not None and rows[0].problem.startswith("line 1 is not JSON (")
    assert rows[2].problem == "line 3 is not a JSON object with fields"


@pytest.mark.parametrize("data", [b"", b"\n\n", b"<html>\n404\n", b'["a"]\n' * 200])
def test_what_is_no_file_of_json_lines(data):
    with pytest.raises(TableError, match="it is not a file of JSON lines"):
        opened(JsonTable, data)


def test_a_line_without_end_is_not_held(monkeypatch):
    monkeypatch.setattr(json_lines, "LONGEST_LINE", 1000)
    monkeypatch.setattr(json_lines, "_CHUNK", 4096)
    data = b'{"n": 0}\n{"n": "' + b"x" * 5_000_000 + b'"}\n{"n": 2}\n'
    tracemalloc.start()
    rows = list(opened(JsonTable, data).rows(["n"]))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.values for row in rows] == [{"n": 0}, {}, {"n": 2}]
    assert rows[1].problem == "line 2 is longer than 1,000 bytes"
    assert most < 200_000


def test_reading_that_fails_is_told_behind_the_rows_before():
    class Failing(io.BytesIO):
        def read(self, size=-1, /):
            data = super().read(size)
            if not data:
                raise OSError(5, "the disk is gone")
            return data

    found = []
    with pytest.raises(TableError, match="after line 2: the disk is gone"):
        for row in JsonTable(Failing(b'{"n": 0}\n{"n": 1}\n'), 18).rows(["n"]):
            found.append(row.number)
    assert found == [0, 1]


def test_pyarrow_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'latentcli\[tables\]'"):
        load_pyarrow()
