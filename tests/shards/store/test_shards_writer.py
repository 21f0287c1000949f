"""The life of a store: manifest, spec, lock, commit, finish, verify."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import storekit
import torch
from hypothesis import given
from hypothesis import strategies as st
from storekit import done_units, manifest, run_job, tree

from latentcli.core.errors import StoreError
from latentcli.core.types import Row
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import record_path, shard_name, shard_path
from latentcli.shards.storage.json_fields import from_object, to_object
from latentcli.shards.storage.json_files import one_line, pretty
from latentcli.shards.store.commit import CommitRecord, Contents, commit_unit, read_record
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.manifest import (
    Manifest,
    differing_fields,
    read_manifest,
    spec_hash,
    write_manifest,
)
from latentcli.shards.store.verify import verify_shards
from latentcli.shards.store.writer import check_folder, finish, open_for_writing


@pytest.fixture
def store(tmp_path):
    run_job(tmp_path / "store")
    return tmp_path / "store"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_pretty_json_says_the_same(value):
    assert json.loads(pretty(value)) == value
    assert pretty(value).isascii() and "\n" not in one_line(value)


def test_json_has_no_nan():
    assert (
        one_line({"psnr": float("inf"), "x": (float("nan"), 1.5)})
        == '{"psnr": null, "x": [null, 1.5]}'
    )


def test_spec_hash_is_of_the_content():
    assert spec_hash({"a": 1, "b": (1, 2)}) == spec_hash({"b": [1, 2], "a": 1})
    assert spec_hash({"a": 1}) != spec_hash({"a": 2})
    assert len(spec_hash({})) == 64


def test_differing_fields_are_named_with_both_values():
    old = {"size": 16, "model": {"name": "a", "rev": None}, "t": (1, 2)}
    new = {"size": 16, "model": {"name": "b", "rev": None}, "t": [1, 2], "more": True}
    assert differing_fields(old, new) == [("model.name", "a", "b"), ("more", None, True)]


def test_manifest_comes_back(tmp_path):
    description = replace(manifest(), channels={"mean": [0.1, 1e-30], "std": [1.0, 2.0]})
    write_manifest(tmp_path, description)
    assert read_manifest(tmp_path) == description
    text = (tmp_path / "manifest.json").read_text()
    assert '"mean": [0.1, 1e-30]' in text and '  "status": "running"' in text


def test_what_is_no_store_is_said(tmp_path, store):
    with pytest.raises(StoreError, match=r"it has no manifest\.json\. Name the folder"):
        read_manifest(tmp_path)
    with pytest.raises(StoreError, match="no such folder"):
        read_manifest(tmp_path / "nowhere")
    good = (store / "manifest.json").read_text()
    for old, new, words in [
        ('"format_version": 2', '"format_version": 4', "update latentcli"),
        ('"size": 16', '"size": 17', "the spec was changed"),
        ('"complete"', '"odd"', "status is 'odd'"),
        ('"failed": 1', '"failed": "1"', "failed is '1', expected int"),
        ('"tool"', '"loot"', "tool is absent"),
        ("{", "", "not JSON"),
    ]:
        assert old in good
        (store / "manifest.json").write_text(good.replace(old, new, 1))
        with pytest.raises(StoreError, match=words):
            read_manifest(store)


def test_finished_store(store):
    done = read_manifest(store)
    assert done.status == "complete"
    assert (done.totals.inputs, done.totals.encoded, done.totals.failed) == (10, 9, 1)
    sizes = [path.stat().st_size for path in (store / "shards").glob("*.safetensors")]
    assert (done.totals.shards, done.totals.bytes) == (3, sum(sizes))
    failures = [json.loads(line) for line in (store / "failures.jsonl").read_text().splitlines()]
    assert [(row["unit"], row["key"], row["error"]) for row in failures] == [
        (0, "img/0003", "truncated")
    ]
    sums = ChannelSums()
    for i in range(10):
        if i != 3:
            sums.add(storekit.latent(f"img/{i:04d}")[None])
    assert done.channels["mean"] == pytest.approx(sums.mean, abs=1e-12)
    assert done.channels["std"] == pytest.approx(sums.std, abs=1e-12)


def test_commit_record_is_one_row_a_line(store):
    lines = (store / "shards" / "000000.json").read_text().splitlines()
    rows = [json.loads(line.strip().rstrip(",")) for line in lines if '"key"' in line]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "failed"]
    assert rows[0]["latent_shape"] == [4, 2, 3] and "error" not in rows[0]
    assert rows[3]["stage"] == "decode_image"


row_values = st.builds(
    Row,
    key=st.text(),
    source=st.text(),
    status=st.sampled_from(["ok", "failed"]),
    stage=st.none() | st.text(),
    error=st.none() | st.text(),
    original_size=st.none() | st.tuples(st.integers(), st.integers()),
    resized_size=st.none() | st.tuples(st.integers(), st.integers()),
    crop=st.none() | st.tuples(*[st.integers()] * 4),
    latent_shape=st.none() | st.lists(st.integers(), min_size=1, max_size=4).map(tuple),
    notes=st.lists(st.text(), max_size=2).map(tuple),
)


@given(row_values)
def test_rows_come_back(row):
    assert from_object(Row, json.loads(one_line(to_object(row)))) == row


def damage_row(**change):
    def damage(document):
        document["rows"][0].update(change)

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d.pop("sha256"), "sha256 is absent, expected str"),
        (lambda d: d.update(bytes="12"), "bytes is '12', expected int"),
        (lambda d: d.update(unit=True), "unit is True"),
        (lambda d: d.update(unit=1), "record of unit 1"),
        (lambda d: d.update(shard="../x"), "record of unit 0 and ../x"),
        (lambda d: d.update(encoded=4), "but lists 4, 3, 1, 0"),
        (lambda d: d["rows"].pop(), "but lists 3, 3, 0, 0"),
        (lambda d: d["rows"].append(5), "a row is 5"),
        (damage_row(status="odd"), "status is 'odd'"),
        (damage_row(crop=[1, 2]), "expected 4 integers"),
        (damage_row(latent_shape=["4"]), "expected some integers"),
        (damage_row(notes=[1]), "expected texts"),
        (damage_row(key="img/0001"), "lists a key twice"),
    ],
)
def test_a_damaged_record_is_named_and_done_again(store, damage, words):
    path = record_path(store, 0)
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"000000\.json is damaged") as caught:
        read_record(store, 0)
    assert words in str(caught.value)
    inputs = InputList.open(store / "inputs.jsonl")
    assert done_units(store, manifest().spec_hash, inputs) == {1, 2}


def test_done_units(store):
    inputs = InputList.open(store / "inputs.jsonl")
    digest = manifest().spec_hash
    assert done_units(store, digest, inputs) == {0, 1, 2}
    assert done_units(store, "0" * 64, inputs) == set()
    with shard_path(store, 0).open("ab") as file:
        file.write(b"x")
    record_path(store, 1).write_text("{")
    assert done_units(store, digest, inputs) == {2}
    shard_path(store, 2).unlink()
    assert done_units(store, digest, inputs) == set()


def test_a_record_of_other_inputs_is_not_done(store):
    inputs = (store / "inputs.jsonl").read_text()
    (store / "inputs.jsonl").write_text(inputs.replace("img/0001.jpg", "img/other.jpg"))
    changed = InputList.open(store / "inputs.jsonl")
    assert done_units(store, manifest().spec_hash, changed) == {1, 2}


def test_tensors_must_be_those_of_the_encoded_rows(tmp_path):
    (tmp_path / "shards").mkdir()
    tensors = {"a/latent": storekit.latent("a")}
    ok, failed = Row("a", "/a", "ok"), Row("a", "/a", "failed")
    for rows in ([], [failed], [ok, Row("b", "/b", "ok")], [ok, ok]):
        with pytest.raises(ValueError):
            commit_unit(tmp_path, 0, tensors, {}, Contents(spec_hash="x", rows=rows))
    assert tree(tmp_path) == {"shards": None}
    commit_unit(tmp_path, 0, {}, {}, Contents(spec_hash="x", rows=[failed]))
    assert read_record(tmp_path, 0).encoded == 0
    assert shard_path(tmp_path, 0).stat().st_size >= 10


def test_an_old_record_never_stands_beside_a_new_shard(store):
    def interrupt(*_):
        raise KeyboardInterrupt

    inputs = InputList.open(store / "inputs.jsonl")

    class Unwritable:
        dtype, shape = torch.bfloat16, (1,)
        pieces = interrupt

        def element_size(self):
            return 2

    rows = [storekit.row(item) for item in inputs.rows(0)]
    tensors = {f"{r.key}/latent": Unwritable() for r in rows if r.status == "ok"}
    with pytest.raises(KeyboardInterrupt):
        commit_unit(store, 0, tensors, {}, Contents(spec_hash="x", rows=rows))
    assert done_units(store, manifest().spec_hash, inputs) == {1, 2}


def test_finish_needs_every_unit(store):
    record_path(store, 1).unlink()
    before = tree(store)
    with pytest.raises(StoreError, match=r"000001\.json"):
        finish(store, manifest(), range(3), ChannelSums())
    with pytest.raises(StoreError, match=r"unit 0 of .* another spec"):
        finish(store, manifest(size=32), range(3), ChannelSums())
    assert tree(store) == before


def test_a_foreign_folder_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / ".tmp-mine").write_text("also mine")
    before = tree(tmp_path)
    with pytest.raises(
        StoreError, match=r"is not empty and is not a latent store \(it holds thesis\.tex"
    ):
        run_job(tmp_path)
    assert tree(tmp_path) == before
    with pytest.raises(StoreError, match="is a file"):
        run_job(tmp_path / "thesis.tex")
    with pytest.raises(StoreError, match="is a file"):
        check_folder(tmp_path / "thesis.tex", manifest())
    assert tree(tmp_path) == before


def test_another_spec_is_refused_by_name(store):
    before = tree(store)
    with pytest.raises(StoreError) as caught:
        open_for_writing(store, manifest(size=32, filter="box"))
    assert "filter is None in the store and 'box' now; size is 16 in the store and 32 now." in str(
        caught.value
    )
    assert "-o" in str(caught.value)
    assert tree(store) == before
    many = manifest(**{f"option{i}": i for i in range(20)})
    with pytest.raises(StoreError, match="and 12 more"):
        check_folder(store, many)


def test_another_model_is_refused_with_both_named(store):
    before = tree(store)
    spec = {"family": "other", "weights_sha256": "b" * 64}
    told = {"name": "other", "weights_sha256": "b" * 64}
    other = replace(manifest(model=spec), model=told)
    with pytest.raises(
        StoreError, match=r"was made with toy, and the model is other \(weights b{12}\)"
    ):
        open_for_writing(store, other)
    both = replace(manifest(model=spec, size=32), model=told)
    with pytest.raises(StoreError, match=r"Also different: size\. Use the same model"):
        open_for_writing(store, both)
    assert tree(store) == before


def test_new_old_and_empty_folders(tmp_path, store):
    assert check_folder(tmp_path / "new", manifest())
    assert not (tmp_path / "new").exists()
    assert open_for_writing(tmp_path / "new", replace(manifest(), status="complete"))
    assert read_manifest(tmp_path / "new").status == "running"
    assert not open_for_writing(tmp_path / "new", manifest())
    assert not open_for_writing(store, manifest())
    assert read_manifest(store).status == "complete"


LOCK_AND_WAIT = """
import sys
from pathlib import Path
from latentcli.shards.store.lock import StoreLock
with StoreLock(Path(sys.argv[1])) as lock:
    print(lock.held, flush=True)
    sys.stdin.read()
"""


def test_one_writer_at_a_time(tmp_path):
    store = tmp_path / "store"
    command = [sys.executable, "-c", LOCK_AND_WAIT, store]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with pytest.raises(StoreError, match="another job is writing to"), StoreLock(store):
            pass
        assert [path.name for path in store.iterdir()] == ["holder.json"]
        other.kill()
    with StoreLock(store) as lock:
        assert lock.held
        with pytest.raises(StoreError, match="another job"), StoreLock(store):
            pass
    assert not lock.held
    with StoreLock(store):
        pass


def test_a_sound_store_has_no_problems(store):
    assert list(verify_shards(store)) == []
    assert list(verify_shards(store, {"latent"})) == []
    kinds = {problem.kind for problem in verify_shards(store, {"mean", "logsnr"})}
    assert kinds == {"tensors"}


def flip_last_byte(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def rewrite(store, unit, tensors=None, rows=None):
    """Another unit in the place of one, with a record that fits it."""
    old = read_record(store, unit)
    sources = {row.key: storekit.latent(row.key) for row in old.rows if row.status == "ok"}
    named = {f"{key}/latent": value for key, value in sources.items()} | (tensors or {})
    commit_unit(
        store,
        unit,
        {name: value for name, value in named.items() if value is not None},
        {},
        Contents(
            spec_hash=old.spec_hash,
            rows=rows(old.rows) if rows else old.rows,
            channels=old.channels,
        ),
    )


def edit(store, unit, **changes):
    path = record_path(store, unit)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES = {
    "record": lambda s: record_path(s, 1).unlink(),
    "record ": lambda s: edit(s, 1, spec_hash="0" * 64),
    "shard size": lambda s: os.truncate(shard_path(s, 1), 100),
    "size shard ": lambda s: shard_path(s, 1).write_bytes(b""),
    "shard": lambda s: shard_path(s, 1).unlink(),
    "digest": lambda s: flip_last_byte(shard_path(s, 1)),
    "tensors": lambda s: rewrite(s, 1, {"img/0005/mean": storekit.latent("x")}),
    "tensors ": lambda s: rewrite(
        s, 1, {"img/0005/latent": None, "img/0005/mean": storekit.latent("x")}
    ),
    "shape": lambda s: rewrite(s, 1, {"img/0005/latent": storekit.latent("x")[:, :1]}),
    "inputs": lambda s: rewrite(s, 1, rows=lambda rows: rows[::-1]),
    "totals": lambda s: (s / "failures.jsonl").write_text(""),
    "totals ": lambda s: write_manifest(s, replace(read_manifest(s), status="running")),
    "stray": lambda s: (s / "shards" / "000007.safetensors").touch(),
}


@pytest.mark.parametrize("kinds", DAMAGES)
def test_damage_is_found(store, kinds):
    DAMAGES[kinds](store)
    found = list(verify_shards(store))
    kinds_found = {problem.kind for problem in found} - (
        {"totals"} if "totals" not in kinds else set()
    )
    assert kinds_found == set(kinds.split())
    assert all(problem.what.endswith(".") for problem in found)
    if kinds.strip() not in ("totals", "stray"):
        assert 1 in {problem.unit for problem in found}


def test_a_key_in_two_units_is_found(store):
    path = store / "inputs.jsonl"
    path.write_text(path.read_text().replace('"img/0009"', '"img/0001"'))
    found = [problem for problem in verify_shards(store) if problem.kind == "duplicate"]
    assert [(problem.key, problem.unit) for problem in found] == [("img/0001", 2)]


def test_names_of_shards():
    assert [shard_name(unit) for unit in (0, 123, 1_234_567)] == [
        "000000.safetensors",
        "000123.safetensors",
        "1234567.safetensors",
    ]


def test_records_and_manifests_check_themselves():
    with pytest.raises(ValueError, match="unit is absent"):
        CommitRecord.from_json({})
    with pytest.raises(ValueError, match="allowed are running, complete"):
        replace(manifest(), status="done")
    assert from_object(Manifest, manifest().to_json()) == manifest()
