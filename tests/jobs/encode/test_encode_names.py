"""Inputs that have other names by now keep their latents, and no key is given twice."""

from __future__ import annotations

import shutil
import uuid

import pytest
from harness.processor import processor_seconds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from surveykit import SPEC, Job, counts, ten_pictures

from latentcli.jobs.encode.findings import Ask, Survey
from latentcli.jobs.encode.worklist import Work, plan_work, relisted
from latentcli.jobs.runtime.reporter import SILENT
from latentcli.shards.store.commit import read_record
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.rebuilt_list import rebuild_inputs
from latentcli.shards.store.roots import read_roots
from latentcli.shards.store.unit_state import row_pairs


@pytest.fixture
def job(tmp_path):
    """As `ten_pictures`."""
    return ten_pictures(tmp_path)


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


def test_what_cannot_be_read_keeps_its_key(job):
    """A file without a suffix has the key that its row had until then."""
    job.encode()
    (job.folder / "a00.jpg").unlink()
    (job.folder / "a00.jpg").symlink_to("/proc/self/mem")
    (job.folder / "a00").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    keys = [row.key for row in job.plan().inputs]
    assert keys[0] == "a00" and len(set(keys)) == len(keys) == 11


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
    """Each is looked for among all of them: that must not take the square of the time.

    Looking at as many names that are known tells how quick the machine is: these take four times as
    long, and would take many times as long if each name were held against all.
    """
    many = [f"b{i:05d}.jpg" for i in range(8000)]
    for name in many:
        job.write(name, name)
    plan_work(job.store, SPEC, job.found(), 1000, Ask(), SILENT)
    job.encode()
    known = processor_seconds(job.look)
    (job.folder / "sub").mkdir()
    for name, other in zip(many, reversed(many), strict=True):
        (job.folder / name).rename(job.folder / "sub" / other)
    seen = job.look()
    assert (counts(seen)["renamed"], len(seen.outdated)) == (8000, 9)
    assert processor_seconds(job.look) < 8 * known


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
