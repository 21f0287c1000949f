"""Damaged files through real jobs, as scripts/fuzz_inputs.py has them, and what its checks see."""

from __future__ import annotations

import json
import os

import pytest
from harness import fuzz, fuzz_files
from harness.scripts import run_script

MEMORY = 1500
LIMIT = 240


def test_a_hundred_damaged_pictures(model, tmp_path):
    report = fuzz.fuzz_pictures(tmp_path / "fuzz", model, 100, 1, MEMORY, LIMIT, False)
    assert report.problems == () and report.slow == ()
    assert report.rows == report.inputs == 105
    assert 30 < report.failed < 95 and set(report.stages) == {"read", "decode_image"}


def test_fifteen_damaged_tars(model, tmp_path):
    report = fuzz.fuzz_tars(tmp_path / "fuzz", model, 15, 1, MEMORY, LIMIT, False)
    assert report.problems == () and report.slow == ()
    assert report.rows > 30 and report.failed > 5


def test_the_same_seed_makes_the_same_files():
    one, other = (list(fuzz_files.strange_pictures(40, 7)) for _ in range(2))
    assert one == other != list(fuzz_files.strange_pictures(40, 8))
    assert list(fuzz_files.strange_tars(10, 7)) == list(fuzz_files.strange_tars(10, 7))
    assert len({name for name, _ in one}) == 40


def test_undamaged_files_are_all_read(model, tmp_path):
    from jobkit import encode

    for name, data in fuzz_files.good_pictures().items():
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / name).write_bytes(data)
    done = encode(tmp_path / "pictures", tmp_path / "store", model, size="64")
    assert done["failed"] == 0 and done["encoded"] == len(fuzz_files.good_pictures())


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"status": "ok"}, ""),
        ({"status": "failed", "stage": "read", "error": "the file is not there"}, ""),
        ({"status": "failed", "stage": "read", "error": ""}, "without a stage or a reason"),
        ({"status": "failed", "stage": None, "error": "x"}, "without a stage or a reason"),
        ({"status": "lost"}, "has the status"),
        *(
            ({"status": "failed", "stage": "read", "error": error}, "not plain")
            for error in (
                "cannot identify <_io.BytesIO object at 0x7f1e>",
                "Traceback (most recent call last)",
                'File "codec.py", line 3',
                "two\nlines",
                "x" * 2000,
            )
        ),
    ],
)
def test_rows_that_are_not_as_they_should(row, words):
    found = "; ".join(fuzz.wrong_rows([{"key": "a"} | row]))
    assert words in found and bool(words) == bool(found)


def test_what_the_checks_see(tmp_path):
    ended = fuzz.Ran(0, "", 1.0, 100.0, 100.0, True)
    assert list(fuzz.wrong_end(ended, False, MEMORY)) == []
    bad = fuzz.Ran(None, "Traceback", 1.0, 100.0, 2000.0, False)
    assert len(list(fuzz.wrong_end(bad, True, MEMORY))) == 4
    assert "two rows" in next(fuzz.wrong_rows([{"key": "a", "status": "ok"}] * 2))
    (tmp_path / "shards").mkdir()
    (tmp_path / "inputs.jsonl").write_text('{"key": "t", "source": "/t.tar"}\n')
    tars = {"/t.tar": fuzz_files.StrangeTar("t.tar", b"x", frozenset({"s0"}))}
    record = {"source": "/t.tar", "rows": [{"key": "t/s0", "source": "/t.tar::s0.jpg"}]}
    (tmp_path / "shards" / "000000.json").write_text(json.dumps(record))
    assert list(fuzz.lost_samples(tmp_path, tars)) == []
    (tmp_path / "shards" / "000000.json").write_text(json.dumps(record | {"rows": []}))
    assert len(list(fuzz.lost_samples(tmp_path, tars))) == 2
    before = fuzz.seen_from_outside(tmp_path)
    (tmp_path / "shards" / "000000.json").write_text("{}")
    os.mkfifo(tmp_path / "escaped")
    changed = {path for path, _ in before.items() ^ fuzz.seen_from_outside(tmp_path).items()}
    assert {str(tmp_path / "escaped"), str(tmp_path / "shards" / "000000.json")} <= changed


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_thousand_pictures_and_three_hundred_tars():
    assert run_script("fuzz_inputs.py") == 0
