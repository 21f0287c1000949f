"""What a unit's record has for the inputs that are listed for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.core.types import InputRow, Row
from latentcli.shards.store.commit import CommitRecord
from latentcli.shards.store.unit_state import is_current, row_pairs


def record_of(rows, **more):
    return CommitRecord(
        unit=0,
        spec_hash="",
        shard="000000.safetensors",
        bytes=0,
        sha256="",
        inputs=len(rows),
        encoded=len(rows),
        failed=0,
        channels=None,
        rows=tuple(rows),
        **more,
    )


def a_row(name, digest):
    return Row(name, f"/in/{name}", "ok", sha256=digest)


def listed(row, name=None):
    """As the list has an input that keeps its name, or gets another one."""
    if name is None:
        return InputRow(row.key, row.source, 0)
    return InputRow(name, f"/in/{name}", 0, sha256=row.sha256)


def found(rows, inputs):
    pairs = row_pairs(record_of(rows), inputs)
    return None if pairs is None else [(old.key, new.key, new.source) for old, new in pairs]


NAMES = "abcdef"
digests = st.sampled_from(["1", "2", "3"])
records = st.lists(digests, min_size=1, max_size=6).map(
    lambda given: [a_row(name, digest) for name, digest in zip(NAMES, given, strict=False)]
)


@given(records, st.data())
def test_every_input_gets_a_row_of_its_bytes(rows, data):
    """Any inputs are dropped, and any get other names, also those that others had."""
    kept = [row for row in rows if data.draw(st.booleans())]
    renamed = [row for row in kept if data.draw(st.booleans())]
    free = [n for n in NAMES + "xyz" if n not in {row.key for row in kept if row not in renamed}]
    names = dict(zip([r.key for r in renamed], data.draw(st.permutations(free)), strict=False))
    inputs = [listed(row, names.get(row.key)) for row in kept]
    pairs = row_pairs(record_of(rows), inputs)
    assert pairs is not None
    for row, item, (old, new) in zip(kept, inputs, pairs, strict=True):
        assert old in rows and old.sha256 == row.sha256
        assert new == replace(old, key=item.key, source=item.source)
        if item.sha256 is None:
            assert old == row
    # Nothing is taken twice.
    assert len({old.key for old, _ in pairs}) == len(pairs)


@given(records, st.data())
def test_inputs_of_equal_bytes_keep_what_is_their_own(rows, data):
    """Where no input is dropped, each keeps its own row: it may have a caption of its own."""
    names = [data.draw(st.sampled_from([None, f"new{i}"])) for i in range(len(rows))]
    pairs = row_pairs(record_of(rows), [listed(*pair) for pair in zip(rows, names, strict=True)])
    assert [old for old, _ in pairs] == rows


def test_of_equal_bytes_the_latent_stays():
    """One failed, say on a device that was out of order, and one did not."""
    rows = [replace(a_row("a", "1"), status="failed"), a_row("b", "1")]
    assert found(rows, [listed(rows[1], "c")]) == [("b", "c", "/in/c")]
    assert found(rows, [listed(rows[0], "c"), listed(rows[1], "d")]) == [
        ("a", "c", "/in/c"),
        ("b", "d", "/in/d"),
    ]


@given(records)
def test_an_input_that_the_record_lacks_is_no_part_of_it(rows):
    assert found(rows, [*map(listed, rows), InputRow("new", "/in/new", 0)]) is None
    assert found(rows, [InputRow("new", "/in/new", 0, sha256="other")]) is None


def test_names_that_go_round():
    rows = [a_row("a", "1"), a_row("b", "2"), a_row("c", "3")]
    inputs = [listed(row, name) for row, name in zip(rows, "bca", strict=True)]
    assert [pair[:2] for pair in found(rows, inputs)] == [("a", "b"), ("b", "c"), ("c", "a")]


def test_an_input_that_was_encoded_again_after_it_was_renamed():
    """The list is told last: until then it has the digest of what was there before."""
    rows = [a_row("a", "new"), a_row("b", "2")]
    inputs = [replace(listed(rows[0]), sha256="old"), listed(rows[1], "x")]
    assert [pair[:2] for pair in found(rows, inputs)] == [("a", "a"), ("b", "x")]


def test_rows_without_a_digest_are_known_by_their_source():
    rows = [a_row("a", None), a_row("b", None)]
    assert found(rows, [listed(rows[1])]) == [("b", "b", "/in/b")]
    assert found(rows, [InputRow("x", "/in/a", 0)]) == [("a", "x", "/in/a")]
    assert found(rows, [listed(rows[0], "x")]) is None


def test_what_is_current():
    rows = [a_row("a", "1"), a_row("b", "2")]
    inputs = [listed(row) for row in rows]
    assert is_current(record_of(rows), inputs)
    for other in (inputs[:1], inputs[::-1], [inputs[0], listed(rows[1], "x")]):
        assert not is_current(record_of(rows), other)
        assert row_pairs(record_of(rows), other) is not None


def tar_record(**more):
    rows = [Row(f"t/{name}", f"/in/t.tar::{name}", "ok") for name in ("x", "y")]
    return record_of(rows, source="/in/t.tar", sha256_source="1", **more)


@pytest.mark.parametrize("key", ["u", "deep/er/u", ""])
def test_a_tar_under_another_name(key):
    item = InputRow(key, "/in/u.tar", 0, sha256="1")
    before = f"{key}/" if key else ""
    pairs = row_pairs(tar_record(key="t"), [item])
    assert [(old.key, new.key, new.source) for old, new in pairs] == [
        ("t/x", f"{before}x", "/in/u.tar::x"),
        ("t/y", f"{before}y", "/in/u.tar::y"),
    ]


def test_a_tar_is_known_by_its_digest_or_source():
    record = tar_record(key="t")
    same = InputRow("t", "/in/t.tar", 0)
    assert is_current(record, [same]) and len(row_pairs(record, [same])) == 2
    assert row_pairs(record, [replace(same, key="other")]) is not None
    assert row_pairs(record, [InputRow("u", "/in/u.tar", 0, sha256="2")]) is None
    assert row_pairs(record, []) is None
    # Records of before do not say what the keys begin with.
    assert is_current(tar_record(), [same])
    assert row_pairs(tar_record(), [InputRow("u", "/in/u.tar", 0, sha256="1")]) is None
