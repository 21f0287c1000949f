"""What a job that a signal ends says of its work: how much is kept, and what is done again."""

from __future__ import annotations

import os
import re
import signal

import pytest
from jobkit import encode, rows_of, toy_pictures

from latentcli.core.errors import Interrupted
from latentcli.jobs.encode.kept import sentence
from latentcli.jobs.runtime.meter import Snapshot
from latentcli.jobs.runtime.reporter import Reporter

AGAIN = "Run the same command again to finish the rest."


def stopped(source, store, model, after: int, **options) -> tuple[str, int]:
    """What a job says that gets a signal after so many pictures, and how many it had done then."""
    seen: list[int] = []

    def progress(snapshot: Snapshot) -> None:
        first = max(seen, default=0) < after <= snapshot.done
        seen.append(snapshot.done)
        if first:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as told:
        encode(source, store, model, Reporter(progress=progress), **options)
    return str(told.value), max(seen)


def test_shards_that_are_finished_are_kept(model, tmp_path):
    toy_pictures(tmp_path / "in", 60)
    for _ in range(2):  # what an earlier run has kept counts too
        had = len(rows_of(tmp_path / "store")) if (tmp_path / "store").exists() else 0
        told, done = stopped(tmp_path / "in", tmp_path / "store", model, 9)
        kept = len(rows_of(tmp_path / "store"))
        assert had < kept < 60
        assert told.startswith(f"Stopped by SIGTERM. {kept} of 60 images are kept")
        again = re.search(r"; (\d+) more w\w+ done and will be encoded again\.", told)
        assert done - (kept - had) == (int(again[1]) if again else 0)
        assert told.endswith(AGAIN) and "--samples-per-shard" not in told


def test_nothing_is_kept_of_a_shard_that_is_not_whole(model, tmp_path):
    toy_pictures(tmp_path / "in", 60)
    told, done = stopped(tmp_path / "in", tmp_path / "store", model, 9, samples_per_shard=1000)
    assert told == (
        "Stopped by SIGTERM. 0 of 60 images are kept: a shard is written whole"
        f" (--samples-per-shard 1000); {done} more were done and will be encoded again. {AGAIN}"
    )
    assert rows_of(tmp_path / "store") == []


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"kept": 9}, "All of 9 images are kept."),
        ({"kept": 8, "again": 1}, "8 of 9 images are kept; 1 more was done and will be"),
        ({"kept": 8, "again": 0, "per_shard": 4}, "8 of 9 images are kept."),
        ({"kept": 0, "again": 0, "per_shard": 4}, "0 of 9 images are kept."),
        ({"kept": 0}, "0 of 9 images are kept: a shard is written whole."),
        ({"kept": 2, "exact": False}, "So far 2 of 9 images are kept."),
        ({"kept": 0, "exact": False}, "So far 0 of 9 images are kept."),
    ],
)
def test_the_sentence(counts, told):
    assert sentence(counts.pop("kept"), 9, "images", **counts).startswith(told)
