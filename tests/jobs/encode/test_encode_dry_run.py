"""What a plan says, against what the job then does; and that it leaves no trace."""

from __future__ import annotations

import json
import os
import signal

import clipkit
import pytest
import tarjobkit
from encodekit import LINEAR, pictures
from jobkit import cli, encode, tree

from latentcli.core.errors import Interrupted, StoreError, UsageError
from latentcli.jobs.encode.cost_probe import PROBED
from latentcli.shards.store.lock import StoreLock

SIZES = ((64, 48), (48, 64), (96, 32))


def plan(source, store, model=LINEAR, **options):
    """A plan that writes nothing."""
    before = tree(store.parent)
    there = store.exists()
    document = encode(source, store, model, dry_run=True, **options)
    assert tree(store.parent) == before and store.exists() == there
    return document


def reasons(document):
    told = document["reasons"].items()
    return {name: reason["inputs"] for name, reason in told if reason["inputs"]}


@pytest.fixture
def folder(tmp_path):
    return pictures(tmp_path / "in", SIZES * 4, bad=(5,))


@pytest.fixture
def store(tmp_path, folder):
    """Twelve inputs in units of four, all done; 0005 failed."""
    encode(folder, tmp_path / "stores" / "s", LINEAR)
    return tmp_path / "stores" / "s"


def rewritten(path, data, *, stat_as_before=False):
    info = path.stat()
    path.write_bytes(data)
    if stat_as_before:
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_every_reason(folder, store):
    assert reasons(plan(folder, store)) == {"done": 11, "failed": 1}
    pictures(folder / "more", SIZES[:2])
    rewritten(folder / "0010.png", tarjobkit.picture(50, (80, 80)))
    (store / "shards" / "000000.json").unlink()
    told = plan(folder, store)
    assert reasons(told) == {"new": 2, "left": 4, "changed": 1, "failed": 1, "done": 6}
    assert told["reasons"]["changed"]["examples"] == ["0010"]
    assert (told["to_encode"], told["shards"], told["inputs"]) == (7, 3, 14)
    shard = store / "shards" / "000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert reasons(plan(folder, store)) == {
        "new": 2,
        "left": 4,
        "damaged": 4,
        "changed": 1,
        "done": 3,
    }
    assert plan(folder, store)["to_encode"] == 11
    assert plan(folder, store, whole_shards=True)["to_encode"] == 14
    assert plan(folder, store, retry="none")["to_encode"] == 10
    done = encode(folder, store, LINEAR)
    assert done["encoded"] == 10
    assert reasons(plan(folder, store)) == {"done": 13, "failed": 1}
    assert plan(folder, store, retry="failed")["to_encode"] == 1


def test_changes_by_digest(folder, store):
    os.utime(folder / "0001.png", (1, 1))
    data = bytearray((folder / "0002.png").read_bytes())
    data[-1] ^= 1  # of the end mark's checksum: another file of the same size
    rewritten(folder / "0002.png", data, stat_as_before=True)
    assert "changed" not in reasons(plan(folder, store))
    told = plan(folder, store, compare="digest")
    assert told["reasons"]["changed"]["examples"] == ["0002"]
    assert encode(folder, store, LINEAR, compare="digest", whole_shards=True)["encoded"] == 4


def test_another_spec_lists_the_fields(folder, store):
    told = plan(folder, store, size="64x32", batch_size=5)
    fields = {item["field"]: (item["there"], item["now"]) for item in told["refused"]}
    assert fields["preprocess.size"] == (None, [64, 32])
    assert fields["encode.batch_size"] == (3, 5)
    assert (told["to_encode"], told["probe"], told["inputs"]) == (0, None, 0)
    with pytest.raises(StoreError, match="not a latent store"):
        plan(folder, folder)


SHAPES = {
    "fixed size": {"size": "64x32"},
    "own size": {},
    "buckets": {"resize": None, "area": "96", "bucket_step": 16},
    "flip": {"size": "64x32", "flip": "both"},
    "tar shards": {"shard_format": "webdataset", "flip": "both"},
    "moments": {"latents": "moments", "size": "64"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_bytes_are_those_that_are_written(tmp_path, model, name):
    folder = pictures(tmp_path / "in", SIZES * 8, bad=(5, 11))
    words = {"samples_per_shard": 16, **SHAPES[name]}
    told = plan(folder, tmp_path / "store", model, **words)
    assert told["probe"]["seconds"] >= 0 and told["probe"]["encode_ms"] > 0
    assert told["probe"]["images_per_second"] > 0 and told["probe"]["prepare_ms"] > 0
    assert told["probe"]["inputs"] == 22
    done = encode(folder, tmp_path / "store", model, **words)
    assert told["bytes"] == pytest.approx(done["bytes"], rel=0.05)


@pytest.mark.parametrize("shard_format", ["safetensors", "webdataset"])
def test_tars_are_guessed(tmp_path, model, shard_format):
    for number in range(6):
        files = tarjobkit.members(25, 25 * number, (64, 48))
        tarjobkit.make_tar(tmp_path / "in" / f"{number}.tar", files)
    words = {"samples_per_shard": None, "shard_format": shard_format}
    told = plan(tmp_path / "in", tmp_path / "store", model, **words)
    assert (told["tars"], told["shards"], told["inputs_are_guess"]) == (6, 6, True)
    assert told["to_encode"] == pytest.approx(150, rel=0.1)
    assert reasons(told) == {"new": 6}
    done = encode(tmp_path / "in", tmp_path / "store", model, **words)
    assert told["bytes"] == pytest.approx(done["bytes"], rel=0.1)


def test_small_tars_are_guessed_too(tmp_path):
    for number in range(5):
        files = tarjobkit.members(2, 2 * number, (64, 48))
        tarjobkit.make_tar(tmp_path / "in" / f"{number}.tar", files)
    told = plan(tmp_path / "in", tmp_path / "store", samples_per_shard=None)
    assert told["to_encode"] == 10


def test_the_probe_looks_at_the_whole_list(tmp_path):
    """Large pictures at the end of the list weigh as much as small ones at its beginning."""
    folder = pictures(tmp_path / "in", ((32, 32),) * 100 + ((128, 128),) * 100)
    words = {"samples_per_shard": 50, "batch_size": 8}
    told = plan(folder, tmp_path / "store", **words)
    assert told["probe"]["inputs"] == PROBED
    whole = encode(folder, tmp_path / "store", LINEAR, **words)["bytes"]
    assert told["bytes"] == pytest.approx(whole, rel=0.05)
    for unit in (0, 3):
        (tmp_path / "store" / "shards" / f"{unit:06d}.json").unlink()
    pictures(folder / "more", ((128, 128),) * 100)
    told = plan(folder, tmp_path / "store", **words)
    assert (told["to_encode"], told["shards"]) == (200, 4)
    done = encode(folder, tmp_path / "store", LINEAR, **words)["bytes"] - whole / 2
    assert told["bytes"] == pytest.approx(done, rel=0.05)


def test_what_memory_holds_of_a_probe_is_bounded(tmp_path, monkeypatch):
    folder = pictures(tmp_path / "in", ((64, 48),) * 12)
    monkeypatch.setattr("latentcli.jobs.encode.cost_probe.PROBED_BYTES", 5 * 64 * 48 * 3 - 1)
    assert plan(folder, tmp_path / "store")["probe"]["inputs"] == 5


def test_a_probe_in_little_memory(tmp_path, monkeypatch):
    from encodekit import watch

    folder = pictures(tmp_path / "in", ((64, 48),) * 12)
    watch(monkeypatch, most=1)
    assert plan(folder, tmp_path / "store")["probe"]["inputs"] == 12


def test_clips(tmp_path):
    clipkit.clips_in(tmp_path / "in", [3, 2])
    told = plan(tmp_path / "in", tmp_path / "store", samples_per_shard=None)
    assert (told["media"], told["to_encode"], told["shards"]) == ("clips", 2, 1)
    assert told["bytes"] is None and told["probe"] is None


def test_nothing_readable(tmp_path):
    folder = pictures(tmp_path / "in", SIZES, bad=range(3))
    told = plan(folder, tmp_path / "store")
    assert (told["to_encode"], told["bytes"], told["probe"]) == (3, None, None)
    with pytest.raises(UsageError):
        (tmp_path / "empty").mkdir()
        plan(tmp_path / "empty", tmp_path / "store")


def test_a_store_at_work_can_be_planned(folder, store):
    with StoreLock(store):
        assert reasons(plan(folder, store)) == {"done": 11, "failed": 1}


@pytest.mark.parametrize("tars", [False, True])
def test_a_signal_ends_the_probe(tmp_path, monkeypatch, tars):
    source = pictures(tmp_path / "in", SIZES * 4)
    if tars:
        source = tarjobkit.make_tar(tmp_path / "a.tar", tarjobkit.members(12))
    from latentcli.jobs.loader import prepare as intake

    taken = []
    inner = intake.preprocess

    def signalled(*words):
        taken.append(words)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(*words)

    monkeypatch.setattr(intake, "preprocess", signalled)
    with pytest.raises(Interrupted):
        plan(source, tmp_path / "store", samples_per_shard=None if tars else 4)
    assert len(taken) == 2


def test_with_devices_it_is_still_a_plan(folder, tmp_path):
    words = ("--model", LINEAR, "--device", "cpu", "--devices", 2, "--max-bad", 1)
    told = cli("plan", folder, "-o", tmp_path / "store", *words, "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["devices"] == 2
    assert not (tmp_path / "store").exists()


def test_on_a_cluster_it_is_still_a_plan(folder, tmp_path):
    assert plan(folder, tmp_path / "store", engine="ray", devices="3")["devices"] == 3
    assert plan(folder, tmp_path / "store", engine="ray", devices="all")["devices"] == 1


@pytest.mark.parametrize("devices", ["0", "some"])
def test_devices_that_cannot_be(folder, tmp_path, devices):
    with pytest.raises(UsageError, match="--devices"):
        plan(folder, tmp_path / "store", devices=devices)


def test_the_command(folder, store):
    words = (folder, "-o", store, "--model", LINEAR, "--device", "cpu", "--resize", "none")
    words += ("--samples-per-shard", 4)
    told = cli("plan", *words, "--json", cwd=store.parent)
    document = json.loads(told.stdout)
    assert document["dry_run"] and document["refused"] == [] and document["inputs"] == 12
    assert document == plan(folder, store, batch_size=None)
    shown = cli("encode", *words, "--dry-run")
    assert "Nothing to encode: 12 images, all done before." in shown.stdout
    other = cli("plan", *words, "--flip", "both")
    assert other.returncode == 1 and "latents.flip: None in the store, True now" in other.stdout
