"""Bench cases: resolution x batch x op, and the rows of the published tables."""

from __future__ import annotations

import pytest

from latentcli.core.errors import UsageError
from latentcli.jobs.bench.cases import Case, cases_of, preset_document
from latentcli.jobs.bench.config import BenchJob


def test_by_default_both_ops_at_256():
    assert cases_of(BenchJob()) == [
        Case(op, (256, 256), batch) for op in ("encode", "decode") for batch in (1, 8)
    ]


def test_width_comes_first():
    job = BenchJob(op="encode", resolution=("64x32",), batch=(2,))
    assert [str(case) for case in cases_of(job)] == ["encode of 64x32, batch 2"]


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("encode", [("256x256", 128), ("512x512", 32)]),
        ("decode", [("512x512", 1), ("1024x1024", 1), ("2048x2048", 1)]),
    ],
)
def test_a_preset_table_is_the_published_rows(table, rows):
    cases = cases_of(BenchJob(preset_table=table))
    assert {case.op for case in cases} == {table}
    assert [(case.resolution, case.batch) for case in cases] == rows
    smaller = cases_of(BenchJob(preset_table=table, batch=(3,)))
    assert [(case.resolution, case.batch) for case in smaller] == [(name, 3) for name, _ in rows]


def test_the_document_says_that_the_batches_are_others():
    assert preset_document(BenchJob()) is None
    told = preset_document(BenchJob(preset_table="encode", batch=(4,)))
    assert told == {"name": "encode", "published_batch": "128 and 32", "batch": 4}
    assert preset_document(BenchJob(preset_table="decode"))["batch"] is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"resolution": ("256",)}, "has its own resolutions, 256, 512; leave out --resolution"),
        ({"batch": (1, 2)}, "give one --batch, or none for 128 and 32"),
        ({"op": "decode"}, "leave out --op decode"),
    ],
)
def test_what_a_preset_table_refuses(settings, told):
    with pytest.raises(UsageError) as caught:
        cases_of(BenchJob(preset_table="encode", **settings))
    assert told in str(caught.value)
