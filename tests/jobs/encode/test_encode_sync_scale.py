"""Syncs of many inputs of which few are gone."""

from __future__ import annotations

from dataclasses import replace

from harness import scale_sync


def test_a_small_sync_opens_and_writes_the_shards_concerned(tmp_path):
    cases = scale_sync.run(tmp_path, 400, per_shard=20)
    assert [case.name for case in cases] == ["random", "clustered"]
    assert all(len(case.synced.opened) == len(case.shards) < 20 for case in cases)
    assert [case.too_much() for case in cases] == [[], []]
    fewer = replace(cases[0], shards=cases[0].shards[1:])
    assert [words.split()[-2:] for words in fewer.too_much()] == [
        ["was", "opened"],
        ["was", "written"],
        ["was", "written"],
    ]
