"""--max-bad and --on-error: when a job with bad inputs stops, what stays, and how it goes on."""

from __future__ import annotations

import json

import pytest
import tarjobkit
from encodekit import LINEAR, pictures
from jobkit import cli, encode, failures_of, rows_of, tree

from latentcli.core.errors import LatentCliError, TooManyFailures, UsageError
from latentcli.jobs.runtime.failures import FEWEST_SEEN, allowed_failures

COUNT = 20
BAD = (5, 9, 13, 17)
"""One in each unit of 4 but the first."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "in", ((64, 48),) * COUNT, bad=BAD)


@pytest.fixture(scope="module")
def store(tmp_path_factory, folder):
    store = tmp_path_factory.mktemp("store") / "whole"
    encode(folder, store, LINEAR)
    return store


def units(store):
    return sorted(path.stem for path in (store / "shards").glob("*.json"))


def test_without_it_the_job_goes_on_to_the_end(store):
    assert len(rows_of(store)) == COUNT and set(failures_of(store)) == {f"{n:04d}" for n in BAD}


def test_the_job_stops_as_soon_as_more_failed(folder, store, tmp_path):
    with pytest.raises(TooManyFailures) as caught:
        encode(folder, tmp_path / "store", LINEAR, max_bad="10%")
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert "3 inputs failed, and --max-bad 10% allows 2 of 20" in message
    assert f"{folder / '0013.png'}, at decode_image: " in message
    # What was committed stays, and the rest was not tried.
    assert units(tmp_path / "store") == ["000000", "000001", "000002"]
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["status"] == "running"
    # Failures of the earlier run count: the third one stops it again.
    with pytest.raises(TooManyFailures, match=r"3 inputs failed, .* allows 2 of 20"):
        encode(folder, tmp_path / "store", LINEAR, max_bad="10%")
    told = encode(folder, tmp_path / "store", LINEAR, max_bad="20%")
    assert (told["failed"], told["skipped"]) == (4, 10)
    assert tree(tmp_path / "store") == tree(store)


@pytest.mark.parametrize(("value", "stops"), [("3", True), ("4", False), ("0", True)])
def test_numbers(folder, tmp_path, value, stops):
    if stops:
        with pytest.raises(TooManyFailures, match=f"{int(value) + 1} inputs? failed"):
            encode(folder, tmp_path / "store", LINEAR, max_bad=value)
        return
    assert encode(folder, tmp_path / "store", LINEAR, max_bad=value)["failed"] == 4


@pytest.mark.parametrize("value", ["100%", " 100% ", "100.0%"])
def test_a_hundred_percent_never_stops(tmp_path, value):
    folder = pictures(tmp_path / "in", ((64, 48),) * 3, bad=range(3))
    assert encode(folder, tmp_path / "store", LINEAR, max_bad=value)["failed"] == 3


def test_latents_that_are_not_finite_count(tmp_path, monkeypatch):
    from latentcli.models.linear import LinearAutoencoder

    inner = LinearAutoencoder.encode
    monkeypatch.setattr(LinearAutoencoder, "encode", lambda self, x: inner(self, x) / 0)
    folder = pictures(tmp_path / "in", ((64, 48),) * 12)
    with pytest.raises(TooManyFailures, match=r"at encode: .* not finite"):
        encode(folder, tmp_path / "store", LINEAR, max_bad="1")


def test_retried_failures_do_not_count_twice(folder, store, tmp_path):
    encode(folder, tmp_path / "store", LINEAR)
    told = encode(folder, tmp_path / "store", LINEAR, retry="failed", max_bad="4")
    assert told["failed"] == 4 and tree(tmp_path / "store") == tree(store)


def test_of_tars_a_thousand_samples_are_taken_for_granted(tmp_path, monkeypatch):
    assert FEWEST_SEEN == 1000
    for number in range(4):
        files = tarjobkit.members(10, number * 10, (64, 48), bad_every=5)
        tarjobkit.make_tar(tmp_path / "in" / f"{number}.tar", files)
    # Two of ten fail in each tar.
    assert encode(tmp_path / "in", tmp_path / "all", LINEAR, samples_per_shard=None, max_bad="1%")
    monkeypatch.setattr("latentcli.jobs.runtime.failures.FEWEST_SEEN", 10)
    with pytest.raises(TooManyFailures, match=r"2 inputs failed, .* allows 1 of 10"):
        encode(tmp_path / "in", tmp_path / "few", LINEAR, samples_per_shard=None, max_bad="15%")
    words = {"samples_per_shard": None, "max_bad": "20%"}
    assert encode(tmp_path / "in", tmp_path / "most", LINEAR, **words)["failed"] == 8


def test_samples_of_earlier_runs_are_seen(tmp_path, monkeypatch):
    """A store that is added to is judged as a whole, as the exit code judges it."""
    monkeypatch.setattr("latentcli.jobs.runtime.failures.FEWEST_SEEN", 4)
    files = tarjobkit.members(20, 0, (64, 48), bad_every=10)
    tarjobkit.make_tar(tmp_path / "in" / "a.tar", files)
    words = {"samples_per_shard": None, "max_bad": "15%"}
    with pytest.raises(TooManyFailures):  # the fourth sample of the new tar
        pictures = tarjobkit.members(4, 20, (64, 48), bad_every=24)
        tarjobkit.make_tar(tmp_path / "alone" / "b.tar", pictures)
        encode(tmp_path / "alone", tmp_path / "other", LINEAR, **words)
    encode(tmp_path / "in", tmp_path / "store", LINEAR, samples_per_shard=None)
    (tmp_path / "alone" / "b.tar").rename(tmp_path / "in" / "b.tar")
    told = encode(tmp_path / "in", tmp_path / "store", LINEAR, **words)
    assert (told["failed"], told["inputs"]) == (3, 24)


def test_clips_are_counted_by_files_and_not_by_frames(tmp_path):
    import clipkit

    clipkit.clips_in(tmp_path / "in", [30, 30, 2, 2])
    for name in ("c02.mp4", "c03.mp4"):
        (tmp_path / "in" / name).write_bytes(b"no clip")
    with pytest.raises(TooManyFailures, match=r"2 inputs failed, .* allows 1 of 4"):
        encode(tmp_path / "in", tmp_path / "store", LINEAR, max_bad="30%")
    assert encode(tmp_path / "in", tmp_path / "store", LINEAR, max_bad="50%")["failed"] == 2


def test_on_error_stop_stops_at_the_first(folder, tmp_path):
    with pytest.raises(LatentCliError, match=r"0005.png failed at decode_image") as caught:
        encode(folder, tmp_path / "store", LINEAR, on_error="stop")
    assert caught.value.exit_code == 1 and units(tmp_path / "store") == ["000000"]


def test_percentages_are_exact():
    assert allowed_failures("0.57%", 10_000) == 57
    assert allowed_failures("0.5%", 199) == 0
    assert allowed_failures("32.3%", 1000) == 323
    assert allowed_failures("1e3", 5) == 1000
    for wrong in ("nan", "inf", "-1", "101%", "many", "", "%", "1/2"):
        with pytest.raises(UsageError, match="--max-bad"):
            allowed_failures(wrong, 10)


def test_exit_codes(folder, tmp_path):
    words = ("encode", folder, "--model", LINEAR, "--device", "cpu", "--workers", 0, "--quiet")
    words += ("--no-self-check", "--samples-per-shard", 4, "-o", tmp_path / "store")
    stopped = cli(*words, "--max-bad", "10%")
    assert stopped.returncode == 3 and "3 inputs failed" in stopped.stderr
    assert cli(*words, "--on-error", "stop").returncode == 1
    assert cli(*words).returncode == 3  # to the end, but not all is well
    assert cli(*words, "--max-bad", "100%").returncode == 0
    assert cli(*words, "--max-bad", "3").returncode == 3
    assert cli(*words, "--max-bad", "200%").returncode == 2
