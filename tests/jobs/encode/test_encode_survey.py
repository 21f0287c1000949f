"""What a job finds to do in a store after each kind of change, told before anything is written."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path

import fsspec
import pytest
from surveykit import PER_SHARD, SPEC, Job, counts, ten_pictures

from latentcli.core.errors import StoreError
from latentcli.jobs.encode.survey import survey
from latentcli.jobs.encode.worklist import finish_list
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.shards.layout import record_path, shard_path
from latentcli.shards.storage.paths import path_of


@pytest.fixture
def job(tmp_path):
    """As `ten_pictures`."""
    return ten_pictures(tmp_path)


def test_new_store(job):
    seen = job.look()
    assert (counts(seen), seen.todo, seen.to_encode) == ({"new": 10}, [0, 1, 2], 10)
    assert seen.reasons["new"].examples == ("a00", "a01", "a02") and seen.frozen is None


def test_units_that_are_done_and_left(job):
    job.encode(1)
    seen = job.look()
    assert counts(seen) == {"done": 3, "failed": 1, "left": 6}
    assert (seen.todo, seen.to_encode) == ([0, 2], 6)
    assert seen.reasons["failed"].examples == ("a07",)
    assert seen.reasons["left"].examples == ("a00", "a01", "a02")
    job.encode()
    assert counts(job.look()) == {"done": 9, "failed": 1}
    assert (job.plan().todo, job.plan().failed) == ((), 1)


def test_failed_inputs_again(job):
    job.encode()
    seen = job.look(retry="failed")
    assert (counts(seen), seen.todo, seen.failed) == ({"done": 9, "failed": 1}, [1], 0)
    assert job.look().failed == 1


def test_new_inputs(job):
    job.encode()
    job.write("a05b.jpg", "new")
    job.write("b.jpg", "new")
    seen = job.look()
    assert counts(seen) == {"new": 2, "done": 9, "failed": 1}
    assert (seen.todo, seen.to_encode) == ([3], 2)
    assert seen.reasons["new"].examples == ("a05b", "b")
    notes: list[str] = []
    assert job.plan(reporter=Reporter(note=notes.append)).todo == (3,)
    assert "made: 2; appended" in notes[0]


def test_inputs_that_are_gone_stay_and_are_told(job):
    job.encode()
    (job.folder / "a00.jpg").unlink()
    seen = job.look()
    assert counts(seen) == {"done": 8, "failed": 1, "gone": 1} and seen.todo == []
    assert seen.reasons["gone"].examples == ("a00",)
    notes: list[str] = []
    assert job.plan(reporter=Reporter(note=notes.append)).gone == 1
    assert "a00.jpg" in notes[0] and "latentcli sync" in notes[0]


def test_changed_inputs_are_encoded_again_alone(job):
    job.encode()
    job.write("a00.jpg", "longer than it was before")
    seen = job.look()
    assert counts(seen) == {"changed": 1, "done": 8, "failed": 1}
    assert (seen.todo, seen.parts, seen.to_encode, seen.kept) == ([0], {0: (0,)}, 1, [])
    whole = job.look(whole=True)
    assert (whole.todo, whole.parts, whole.to_encode) == ([0], {}, 4)
    job.encode()
    assert counts(job.look()) == {"done": 9, "failed": 1}


def test_changed_inputs_may_be_kept(job):
    job.encode()
    job.write("a00.jpg", "longer than it was before")
    seen = job.look(retry="none")
    assert (seen.todo, [row.key for row in seen.kept]) == ([], ["a00"])
    notes: list[str] = []
    assert job.plan(Reporter(note=notes.append), retry="none").changed == 1
    assert "a00.jpg" in notes[0] and "other bytes" in notes[0]
    assert counts(job.look()) == {"changed": 1, "done": 8, "failed": 1}


def test_a_list_is_changed_only_once_its_inputs_are_encoded_again(job):
    job.encode()
    job.write("a00.jpg", "longer than it was before")
    job.plan()
    assert job.look().parts == {0: (0,)}


def test_an_input_with_another_time_is_read_and_found_to_be_the_same(job):
    job.encode()
    os.utime(job.folder / "a00.jpg", ns=(5, 5))
    seen = job.look()
    assert counts(seen) == {"done": 9, "failed": 1} and seen.todo == []
    assert [row.mtime_ns for row in seen.at_end.values()] == [5]
    job.encode()
    assert job.look().at_end == {}


def test_digests_tell_changes_that_size_and_time_do_not(job):
    job.encode()
    swapped = job.folder / "a09.jpg"
    info = swapped.stat()
    swapped.write_text("bytes of A09.jpg")
    os.utime(swapped, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert "changed" not in counts(job.look())
    seen = job.look(compare="digest")
    assert seen.reasons["changed"].examples == ("a09",) and seen.parts == {2: (1,)}
    job.encode(compare="digest")
    assert "changed" not in counts(job.look(compare="digest"))


def test_without_a_recorded_digest_size_and_time_decide(job):
    job.encode()
    for path in (job.store / "shards").glob("*.json"):
        text = path.read_text()
        path.write_text(
            text.replace('"sha256": "', '"sha_old": "').replace('"sha_old"', '"sha256"', 1)
        )
    os.utime(job.folder / "a00.jpg", ns=(5, 5))
    assert job.look().reasons["changed"].examples == ("a00",)


def test_what_cannot_be_read_keeps_its_latent_and_is_told(job):
    job.encode()
    for name, target in (("a00.jpg", "/proc/self/mem"), ("a01.jpg", "nowhere"), ("a02.jpg", ".")):
        (job.folder / name).unlink()
        (job.folder / name).symlink_to(target)
    (job.folder / "a07.jpg").unlink()
    (job.folder / "a07.jpg").symlink_to("/proc/self/mem")
    for options in ({}, {"compare": "digest"}, {"retry": "failed"}):
        seen = job.look(**options)
        assert seen.reasons["gone"].examples == ("a00", "a01", "a02")
        # There is no latent that could be lost.
        assert (counts(seen), seen.parts) == ({"done": 6, "changed": 1, "gone": 3}, {1: (3,)})
        assert [row.key for row in seen.at_end.values()] == ["a07"]


def test_a_unit_is_not_written_anew_before_it_is_encoded_as_a_whole(job):
    job.encode()
    (job.folder / "a00.jpg").rename(job.folder / "z.jpg")
    assert job.plan().outdated == (0,)
    job.write("a01.jpg", "longer than it was before")
    work = job.plan(whole=True)
    assert (work.todo, work.parts, work.outdated) == ((0,), {}, ())
    assert not record_path(job.store, 0).exists()


def test_whole_shards_lose_nothing_that_is_gone(job):
    job.encode()
    (job.folder / "a00.jpg").unlink()
    job.write("a01.jpg", "longer than it was before")
    assert job.look(whole=True).parts == {0: (1,)}


@pytest.mark.parametrize("times", ["kept", "new"])
def test_a_moved_dataset_is_the_same_one(job, tmp_path, times):
    job.encode()
    (shutil.move if times == "kept" else shutil.copytree)(job.folder, tmp_path / "moved")
    if times == "new":
        for path in (tmp_path / "moved").iterdir():
            os.utime(path, ns=(7, 7))
    job.folder = tmp_path / "moved"
    seen = job.look()
    assert counts(seen) == {"done": 9, "failed": 1} and seen.moved
    notes: list[str] = []
    work = job.plan(reporter=Reporter(note=notes.append))
    assert "moved" in notes[0] and str(job.folder) in notes[0]
    assert all(row.source.startswith(str(job.folder)) for row in work.inputs)
    finish_list(job.store, work)
    again = job.look()
    assert counts(again) == {"done": 9, "failed": 1} and not again.moved and not again.at_end
    (job.folder / "a03.jpg").rename(job.folder / "a03b.jpg")
    assert job.look().reasons["renamed"].examples == ("a03b",)


def test_a_dataset_of_the_same_names_is_another_one(job, tmp_path):
    job.encode()
    shutil.copytree(job.folder, tmp_path / "other")
    job.folder = tmp_path / "other"
    for path in job.folder.iterdir():
        path.write_text(path.read_text().replace("bytes", "BYTES"))
    with pytest.raises(StoreError, match="other inputs"):
        job.look()


@pytest.mark.parametrize("harm", ["cut", "no_shard", "garbled", "spec"])
def test_damage(job, harm):
    job.encode()
    shard, record = shard_path(job.store, 1), record_path(job.store, 1)
    if harm == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif harm == "no_shard":
        shard.unlink()
    elif harm == "garbled":
        record.write_text("{")
    else:
        record.write_text(record.read_text().replace(SPEC, "6" * 64))
    seen = job.look()
    assert (counts(seen), seen.todo) == ({"done": 6, "damaged": 4}, [1])
    assert seen.reasons["damaged"].examples == ("a04", "a05", "a06")
    job.encode()
    assert counts(job.look()) == {"done": 9, "failed": 1}
    record.unlink()
    assert counts(job.look()) == {"done": 6, "left": 4}


def test_a_record_that_is_out_of_reach_is_not_damaged(job, monkeypatch):
    job.encode()
    whole = Path.read_bytes

    def read_bytes(path):
        if path == record_path(job.store, 1):
            raise TimeoutError(errno.ETIMEDOUT, "timed out")
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(StoreError, match=r"000001\.json cannot be read: timed out"):
        survey(job.store, SPEC, job.found(), PER_SHARD)


def test_a_store_of_other_inputs_is_refused(job, tmp_path):
    job.encode()
    job.folder = tmp_path / "other"
    job.write("x.jpg", "other")
    with pytest.raises(StoreError, match="other inputs"):
        job.look()


def test_tars(tmp_path):
    job = Job(tmp_path / "in", tmp_path / "store", [f"{i}.tar" for i in range(4)])
    assert job.look().todo == [0, 1, 2, 3]
    job.encode(0, 1)
    seen = job.look()
    assert counts(seen) == {"failed": 2, "left": 2} and seen.todo == [2, 3]
    assert seen.failed == 2 and seen.reasons["failed"].examples == ("0", "1")
    job.encode()
    os.utime(job.folder / "0.tar", ns=(5, 5))
    job.write("1.tar", "other bytes")
    seen = job.look()
    assert seen.reasons["changed"].examples == ("1",)
    assert (seen.todo, seen.parts) == ([1], {})
    (job.folder / "2.tar").rename(job.folder / "2b.tar")
    seen = job.look()
    assert seen.reasons["renamed"].examples == ("2b",) and seen.outdated == [2]
    job.encode()
    assert counts(job.look()) == {"failed": 4}
    job.write("0a.tar", "new")
    job.write("0/b.tar", "new")
    work = job.plan()
    assert [row.key for unit in work.todo for row in work.inputs.rows(unit)] == ["0a", "0~2/b"]


def test_store_in_remote_storage(tmp_path):
    url = f"memory://{uuid.uuid4().hex}"
    job = Job(tmp_path / "in", path_of(f"{url}/store"), [f"a{i:02d}.jpg" for i in range(10)])
    try:
        job.encode(0, 1)
        assert counts(job.look()) == {"done": 7, "failed": 1, "left": 2}
        fsspec.filesystem("memory").pipe(f"{url}/store/shards/000000.safetensors", b"cut")
        assert counts(job.look()) == {"done": 3, "failed": 1, "damaged": 4, "left": 2}
    finally:
        fsspec.filesystem("memory").rm(url, recursive=True)
