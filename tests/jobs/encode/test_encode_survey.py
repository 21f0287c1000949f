"""What a job finds to do in a store after each kind of change, told before anything is written."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentcli.core.errors import StoreError
from latentcli.core.types import Row
from latentcli.jobs.encode.findings import Ask, Survey
from latentcli.jobs.encode.survey import survey
from latentcli.jobs.encode.worklist import Work, finish_list, plan_work, relisted
from latentcli.jobs.loader.find_media import find_media
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.shards.layout import record_path, shard_path
from latentcli.shards.storage.paths import AnyPath, path_of
from latentcli.shards.store.commit import Contents, TarOrigin, commit_unit, read_record
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.rebuilt_list import rebuild_inputs
from latentcli.shards.store.roots import read_roots
from latentcli.shards.store.unit_state import row_pairs

SPEC, PER_SHARD = "5" * 64, 4
BAD = "a07"


class Job:
    """A folder of inputs and its store; it commits units as the encoder would."""

    def __init__(self, folder: Path, store: AnyPath, names: list[str]) -> None:
        self.folder, self.store = folder, store
        for name in names:
            self.write(name, f"bytes of {name}")
        (store / "shards").mkdir(parents=True)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def found(self):
        return find_media([str(self.folder)], "auto").inputs

    def look(self, **options: Any) -> Survey:
        before = tree(self.store)
        seen = survey(self.store, SPEC, self.found(), self.per_shard, Ask(**options))
        assert tree(self.store) == before
        return seen

    @property
    def per_shard(self) -> int:
        return 1 if self.found().packed else PER_SHARD

    def plan(self, reporter: Reporter = SILENT, **options: Any) -> Work:
        """Plans as the survey said it would."""
        seen, ask = self.look(**options), Ask(**options)
        work = plan_work(self.store, SPEC, self.found(), self.per_shard, ask, reporter)
        assert list(work.todo) == sorted(seen.todo)
        assert work.inputs_to_encode == seen.to_encode
        assert sum(reason.count for reason in seen.reasons.values()) == len(work.inputs)
        return work

    def encode(self, *units: int, **options: Any) -> Work:
        """Commits the given units, or all that are left."""
        work = self.plan(**options)
        for unit in units or sorted({*work.todo, *work.outdated}):
            rows, origin = [], None
            for item in work.inputs.rows(unit):
                path = Path(item.source)
                data = path.read_bytes() if path.exists() else b""
                sha256 = hashlib.sha256(data).hexdigest()
                if item.source.endswith(".tar"):
                    origin = TarOrigin(item.source, sha256, item.key)
                    names = [f"{item.key}/s0", f"{item.key}/{BAD}"]
                    rows += [row(name, f"{item.source}::{name}") for name in names]
                else:
                    rows.append(row(item.key, item.source, sha256))
            tensors = {f"{r.key}/latent": torch.zeros(1) for r in rows if r.status == "ok"}
            roots = work.inputs.roots
            contents = Contents(spec_hash=SPEC, rows=rows, origin=origin, roots=roots)
            commit_unit(self.store, unit, tensors, {}, contents)
        if not units:
            finish_list(self.store, work)
        return work


def row(key: str, source: str, sha256: str | None = None) -> Row:
    if key.endswith(BAD):
        return Row(key, source, "failed", stage="decode_image", error="cut", sha256=sha256)
    return Row(key, source, "ok", sha256=sha256)


def tree(store: AnyPath) -> dict[str, bytes]:
    if not isinstance(store, Path):
        return {path.url: path.read_bytes() for path, _ in store.find()} if store.exists() else {}
    return {str(path): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def counts(seen: Survey) -> dict[str, int]:
    return {name: reason.count for name, reason in seen.reasons.items() if reason.count}


@pytest.fixture
def job(tmp_path):
    """Ten pictures in three units of 4, 4 and 2; a07 of the second is damaged."""
    return Job(tmp_path / "in", tmp_path / "store", [f"a{i:02d}.jpg" for i in range(10)])


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


def test_a_renamed_input_keeps_its_latent(job):
    job.encode()
    (job.folder / "a00.jpg").rename(job.folder / "z.jpg")
    job.write("sub/c.jpg", "c")
    (job.folder / "a05.jpg").rename(job.folder / "sub" / "b.jpg")
    seen = job.look()
    assert counts(seen) == {"done": 7, "failed": 1, "renamed": 2, "new": 1}
    assert (seen.outdated, seen.todo, seen.to_encode) == ([0, 1], [3], 1)
    work = job.encode()
    assert [row.key for row in work.inputs.rows(0)] == ["z", "a01", "a02", "a03"]
    assert counts(job.look()) == {"done": 10, "failed": 1}


def test_a_file_of_the_same_bytes_beside_the_old_one_is_new(job):
    job.encode()
    shutil.copy(job.folder / "a00.jpg", job.folder / "z.jpg")
    assert counts(job.look()) == {"done": 9, "failed": 1, "new": 1}


def test_keys_are_those_of_a_new_store(job):
    job.encode()
    job.write("a00.png", "another")
    seen = job.look()
    assert seen.outdated == [0]
    assert [row.key for row in seen.at_once.values()] == ["a00.jpg"]
    assert [row.key for row in seen.new] == ["a00.png"]
    job.encode()
    (job.folder / "a00.jpg").unlink()
    seen = job.look()
    assert seen.reasons["gone"].examples == ("a00.jpg",)
    assert [row.key for row in seen.at_once.values()] == ["a00"]


def test_keys_of_what_is_not_encoded_yet_are_those_of_a_new_store(job):
    job.encode(1)
    job.write("a00.png", "another")
    work = job.plan()
    assert (work.outdated, work.todo) == ((), (0, 2, 3))
    assert [row.key for row in work.inputs.rows(0)] == ["a00.jpg", "a01", "a02", "a03"]


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


def test_what_cannot_be_read_keeps_its_key(job):
    """A file without a suffix has the key that its row had until then."""
    job.encode()
    (job.folder / "a00.jpg").unlink()
    (job.folder / "a00.jpg").symlink_to("/proc/self/mem")
    (job.folder / "a00").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    keys = [row.key for row in job.plan().inputs]
    assert keys[0] == "a00" and len(set(keys)) == len(keys) == 11


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


def test_another_input_may_get_the_old_name_before_the_shard_is_written_anew(job):
    job.encode()
    (job.folder / "a00.jpg").rename(job.folder / "z.jpg")
    job.plan()
    (job.folder / "a01.jpg").rename(job.folder / "a00.jpg")
    work = job.plan()
    pairs = row_pairs(read_record(job.store, 0, work.inputs.roots), work.inputs.rows(0))
    assert [(old.key, row.key) for old, row in pairs[:2]] == [("a00", "z"), ("a01", "a00")]


@pytest.mark.parametrize("whole", [False, True])
def test_an_input_that_is_encoded_again_is_known_by_its_name(job, whole):
    job.encode()
    (job.folder / "a00.jpg").rename(job.folder / "z.jpg")
    assert job.encode().inputs.rows(0)[0].sha256 is not None
    job.write("z.jpg", "longer than it was before")
    job.encode(whole=whole)
    assert job.plan().inputs.rows(0)[0].sha256 is None


def test_names_are_known_again_where_sizes_are_not_known(job):
    job.encode()
    (job.store / "inputs.jsonl").unlink()
    rebuild_inputs(job.store, read_roots(job.store))
    (job.folder / "a00.jpg").rename(job.folder / "z.jpg")
    assert counts(job.look()) == {"done": 8, "failed": 1, "renamed": 1}


def test_many_names_at_once(job):
    """Each is looked for among all of them: that must not take the square of the time."""
    many = [f"b{i:05d}.jpg" for i in range(8000)]
    for name in many:
        job.write(name, name)
    plan_work(job.store, SPEC, job.found(), 1000, Ask(), SILENT)
    job.encode()
    (job.folder / "sub").mkdir()
    for name, other in zip(many, reversed(many), strict=True):
        (job.folder / name).rename(job.folder / "sub" / other)
    began = time.process_time()
    seen = job.look()
    assert time.process_time() - began < 2
    assert (counts(seen)["renamed"], len(seen.outdated)) == (8000, 9)


def test_a_key_that_is_still_taken_is_not_given_twice(job):
    job.encode()
    (job.folder / "a00.jpg").unlink()
    job.write("a00.png", "another")
    seen = job.look()
    assert seen.reasons["gone"].examples == ("a00",)
    assert [row.key for row in seen.new] == ["a00.png"]


def keys_of(work: Work) -> list[str]:
    return [row.key for row in work.inputs]


def drop_gone(job: Job) -> None:
    """As sync does."""
    seen = job.look(retry="none")
    relisted(job.store, InputList.open(job.store / "inputs.jsonl"), seen, dropped=gone_from(seen))


def gone_from(seen: Survey) -> set[str]:
    return {row.source for row in seen.gone}


def test_a_key_is_free_once_no_row_keeps_it(job):
    """The row of what is gone keeps its key, so that the next one keeps its own, and so on."""
    job.encode()
    (job.folder / "a00.jpg").unlink()
    for number in (1, 2):
        (job.folder / f"a{number:02d}.jpg").rename(job.folder / f"a{number - 1:02d}.png")
    assert keys_of(job.encode())[:4] == ["a00", "a01", "a02", "a03"]
    drop_gone(job)
    assert keys_of(job.encode())[:3] == ["a00", "a01", "a03"]


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.permutations(range(12)), st.lists(st.sampled_from(["no", "jpg", "png"]), min_size=5))
def test_no_key_is_given_twice_and_in_the_end_they_are_those_of_a_new_store(
    tmp_path, order, suffixes
):
    """Any inputs go, and any get names like those of others, which may have gone or be others."""
    folder = tmp_path / uuid.uuid4().hex
    job = Job(folder / "in", folder / "store", ["kept.jpg", *(f"a{i:02d}.jpg" for i in range(5))])
    job.encode()
    for i in range(5):
        (job.folder / f"a{i:02d}.jpg").rename(job.folder / f"{i}.old")
    for i, (number, suffix) in enumerate(zip(order, suffixes[:5], strict=False)):
        target = job.folder / f"a{number % 6:02d}.{suffix}"
        if suffix != "no" and not target.exists():
            (job.folder / f"{i}.old").rename(target)
    keys = keys_of(job.encode())
    assert len(set(keys)) == len(keys)
    drop_gone(job)
    assert sorted(keys_of(job.encode())) == job.found().keys


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
