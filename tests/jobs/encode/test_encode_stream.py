"""The encode stream on small jobs: figures, what is flushed when, and what changes no byte."""

from __future__ import annotations

import pytest
import tarjobkit
from encodekit import LINEAR, pictures, watch
from jobkit import encode, tree

from latentcli.jobs.runtime.meter import Meter, Snapshot
from latentcli.jobs.runtime.reporter import Reporter

SIZES = ((64, 48), (48, 64), (64, 64)) * 4


@pytest.fixture
def folder(tmp_path):
    return pictures(tmp_path / "in", SIZES, bad=(4,))


def seen_by(shots: list[Snapshot]) -> Reporter:
    """A listener that works out all that a display may ask for."""

    def look(shot: Snapshot) -> None:
        shot.stages(), shot.verdict(), shot.whole.verdict(), shot.eta, shot.finished
        shots.append(shot)

    return Reporter(progress=look)


@pytest.mark.parametrize("workers", [0, 1])
def test_figures_of_a_small_job(folder, tmp_path, workers):
    shots: list[Snapshot] = []
    told = encode(folder, tmp_path / "store", LINEAR, seen_by(shots), workers=workers)
    assert (shots[-1].done, shots[-1].total, shots[-1].failed) == (12, 12, 1)
    assert shots[-1].finished and told["bottleneck"] in told["stages"]
    items = {stage: entry["items"] for stage, entry in told["stages"].items()}
    assert items == {"read": 12, "decode_image": 12, "preprocess": 11, "encode": 11, "write": 11}


def test_figures_where_nobody_knows_the_total(tmp_path):
    tar = tarjobkit.make_tar(tmp_path / "a.tar", tarjobkit.members(7))
    shots: list[Snapshot] = []
    words = {"workers": 0, "samples_per_shard": None}
    told = encode(tar, tmp_path / "store", LINEAR, seen_by(shots), **words)
    assert all(shot.total is None and shot.eta is None and not shot.finished for shot in shots)
    assert shots[-1].done == 7 == told["stages"]["read"]["items"]


def test_figures_before_anything_came():
    for workers in (0, 2):
        meter = Meter("encode", None, workers=workers)
        shot = meter.snapshot()
        assert (shot.eta, shot.verdict(), shot.stages()) == (None, None, ())
        assert meter.bottleneck() is None and meter.bottleneck_reason() is None
        assert meter.final_rate == 0


def test_a_unit_waits_for_no_other(folder, tmp_path, monkeypatch):
    """What is left of a unit is encoded at its end, in smaller batches."""
    seen = watch(monkeypatch)
    encode(folder, tmp_path / "store", LINEAR, samples_per_shard=6, batch_size=2)
    shapes = [shape[0] for shape in seen.done]
    # 64x48, 48x64 and 64x64 in turn; number 4, a 48x64, is bad.
    assert shapes == [2, 2, 1, 2, 2, 2] and sum(shapes) == 11


def test_a_job_of_nothing_but_bad_inputs(tmp_path):
    folder = pictures(tmp_path / "in", SIZES[:5], bad=range(5))
    shots: list[Snapshot] = []
    told = encode(folder, tmp_path / "store", LINEAR, seen_by(shots), workers=0)
    assert (told["encoded"], told["failed"], shots[-1].failed) == (0, 5, 5)
    assert "encode" not in told["stages"]


def test_a_clock_on_the_wall_that_goes_back_changes_nothing(folder, tmp_path, monkeypatch):
    encode(folder, tmp_path / "one", LINEAR)
    ticks = iter(range(10**9, 0, -3600))
    monkeypatch.setattr("time.time", lambda: float(next(ticks)))
    told = encode(folder, tmp_path / "other", LINEAR)
    assert tree(tmp_path / "one") == tree(tmp_path / "other") and told["seconds"] >= 0


def test_nothing_is_left_in_the_temporary_folder(folder, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    encode(folder, tmp_path / "store", LINEAR, shard_format="webdataset", flip="both")
    assert list((tmp_path / "tmp").iterdir()) == []
