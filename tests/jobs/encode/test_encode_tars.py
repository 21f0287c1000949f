"""Encodes tars of pictures to stores of both formats: every sample counts, none is lost or half."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from harness.slow import slow
from jobkit import decode, encode, failures_of, interrupt_after, latents_of, rows_of, tree
from tarjobkit import (
    Forked,
    encode_words,
    has_end,
    latents_in,
    make_tar,
    members,
    picture,
    read_tar,
    tar_bytes,
    unpacked,
)

import latentcli.jobs.encode.stream as encode_stream
from latentcli import LatentDataset, open_store
from latentcli.core.errors import Interrupted, StoreError, UsageError
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.inspect import inspect_store
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.store.verify import verify_shards
from latentcli.shards.tensors.spool import Spilling

FORMATS = ("safetensors", "webdataset")


def encode_tars(source, store, model, **options):
    """jobkit's settings; of tars, each is a shard."""
    return encode(source, store, model, **{"samples_per_shard": None} | options)


def is_over(pid, seconds=10.0):
    """Whether a process comes to its end; nobody may be there to bury it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Three tars, of which the second has bad pictures."""
    folder = tmp_path_factory.mktemp("tars")
    make_tar(folder / "a.tar", members(7))
    make_tar(folder / "b.tar", members(11, first=3, bad_every=5))
    make_tar(folder / "c.tar", members(4, first=20))
    return folder


@pytest.fixture(scope="module")
def stores(tars, model, tmp_path_factory):
    """`tars` in both formats, encoded without interruption or workers."""
    folder = tmp_path_factory.mktemp("stores")
    for form in FORMATS:
        encode_tars(tars, folder / form, model, shard_format=form)
    return folder


@pytest.mark.parametrize("form", FORMATS)
def test_one_tar_is_one_unit_and_one_shard(stores, tars, form):
    store = stores / form
    inputs = [json.loads(line) for line in (store / "inputs.jsonl").read_text().splitlines()]
    assert [(row["key"], row["unit"]) for row in inputs] == [("a", 0), ("b", 1), ("c", 2)]
    assert [row["source"] for row in inputs] == ["a.tar", "b.tar", "c.tar"]
    records = [json.loads(p.read_text()) for p in sorted((store / "shards").glob("*.json"))]
    assert [(r["inputs"], r["encoded"], r["failed"]) for r in records] == [
        (7, 7, 0),
        (11, 9, 2),
        (4, 4, 0),
    ]
    assert json.loads((store / "manifest.json").read_text())["spec"]["tars"] is True
    rows = rows_of(store)
    assert rows[0]["key"] == "a/0000"
    assert rows[0]["source"] == "a.tar::0000.png"
    assert [row["key"] for row in rows] == [
        *(f"a/{n:04d}" for n in range(7)),
        *(f"b/{n:04d}" for n in range(3, 14)),
        *(f"c/{n:04d}" for n in range(20, 24)),
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_the_store_is_sound_and_readable(stores, tars, form, tmp_path):
    store = stores / form
    assert list(verify_shards(store)) == []
    assert run_verify(VerifyJob(store=str(store), device="cpu"))["problems"] == []
    told = inspect_store(str(store))
    assert (told["encoded"], told["failed"]) == (20, 2)
    opened = open_store(str(store))
    assert len(opened) == len(list(opened.keys())) == 20
    assert opened["b/0003"].shape == (8, 3, 5)
    assert opened.row("b/0004").status == "failed"
    assert len(LatentDataset(str(store))) == 20
    done = decode(store, tmp_path / "out")
    assert (done["decoded"], done["failed"]) == (20, 0)
    assert (tmp_path / "out" / "c" / "0023.png").is_file()


def test_failed_samples_name_tar_and_member(stores, tars):
    for form in FORMATS:
        failed = failures_of(stores / form)
        assert sorted(failed) == ["b/0004", "b/0009"]
        assert failed["b/0004"]["source"] == "b.tar::0004.png"
        assert failed["b/0004"]["stage"] == "decode_image"


def test_the_latents_are_those_of_the_pictures_in_a_folder(stores, tars, model, tmp_path):
    """Of equal batches they are the same bytes."""
    files = members(11, first=3, bad_every=5)
    folder = unpacked([f for f in files if f[0].endswith(".png")], tmp_path / "b")
    encode(folder, tmp_path / "store", model, samples_per_shard=100)
    expected = latents_of(tmp_path / "store")
    found = latents_of(stores / "safetensors")
    for name, tensor in expected.items():
        assert torch.equal(found[f"b/{name}"], tensor), name
    assert len(expected) == 9


def test_both_formats_hold_the_same_latents(stores):
    apart = latents_of(stores / "safetensors")
    together = open_store(str(stores / "webdataset"))
    assert {f"{key}/latent" for key in together} == set(apart)
    for key in together:
        assert torch.equal(together[key], apart[f"{key}/latent"])


def test_what_else_a_sample_holds_is_passed_on_byte_for_byte(stores):
    given = dict(members(11, first=3, bad_every=5))
    data = (stores / "webdataset" / "shards" / "000001.tar").read_bytes()
    found = read_tar(data)
    good = [n for n in range(3, 14) if n % 5 != 4]
    fields = ("latent.safetensors", "latent.json", "txt", "json")
    assert list(found) == [f"{n:04d}.{field}" for n in good for field in fields]
    for name in (f"{n:04d}.{field}" for n in good for field in ("txt", "json")):
        assert found[name] == given[name]
    told = json.loads(found["0003.latent.json"])
    assert (told["key"], told["original_size"]) == ("b/0003", [80, 48])
    assert has_end(data)


@pytest.mark.parametrize(
    ("form", "workers"),
    [
        ("webdataset", 1),
        slow("webdataset", 3),
        slow("safetensors", 3),
    ],
)
def test_the_bytes_do_not_depend_on_workers(stores, tars, model, tmp_path, form, workers):
    encode_tars(tars, tmp_path / "store", model, shard_format=form, workers=workers)
    assert tree(tmp_path / "store") == tree(stores / form)


def test_a_unit_that_does_not_fit_into_memory_is_the_same(
    stores, tars, model, tmp_path, monkeypatch
):
    spilled = []

    class Small(Spilling):
        def __init__(self, store, name):
            super().__init__(store, name, limit=1000)

        def drop(self):
            spilled.append(self._end)
            super().drop()

    monkeypatch.setattr(encode_stream, "Spilling", Small)
    for form in FORMATS:
        encode_tars(tars, tmp_path / form, model, shard_format=form)
        assert tree(tmp_path / form) == tree(stores / form)
        assert sum(spilled) > 1000
        spilled.clear()


@pytest.mark.parametrize("form", FORMATS)
def test_run_again_there_is_nothing_to_do(stores, tars, model, form):
    before = tree(stores / form)
    again = encode_tars(tars, stores / form, model, shard_format=form)
    assert (again["encoded"], again["skipped"], again["failed"]) == (0, 20, 2)
    assert tree(stores / form) == before


def test_sources_of_all_forms_are_the_same_job(stores, tars, model, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{tars / n}.tar\n" for n in "abc"))
    forms = {
        "named": tuple(str(tars / f"{name}.tar") for name in "abc"),
        "braces": (str(tars / "{a..c}.tar"),),
        "listed": (f"@{tmp_path / 'list.txt'}",),
        "glob": (str(tars / "*.tar"),),
    }
    for name, sources in forms.items():
        encode_tars(None, tmp_path / name, model, sources=sources)
        assert tree(tmp_path / name) == tree(stores / "safetensors"), name


@pytest.mark.parametrize(
    ("form", "workers"),
    [
        ("webdataset", 0),
        ("safetensors", 0),
        slow("webdataset", 2),
        slow("safetensors", 2),
    ],
)
def test_interrupted_and_gone_on_with_it_is_the_same(stores, tars, model, tmp_path, form, workers):
    store = tmp_path / "store"
    options = {"shard_format": form, "workers": workers}
    with pytest.raises(Interrupted):
        encode_tars(tars, store, model, reporter=interrupt_after(4), **options)
    assert not [path for path in (store / "shards").iterdir() if path.name.startswith(".")]
    assert json.loads((store / "manifest.json").read_text())["status"] == "running"
    encode_tars(tars, store, model, **options)
    assert tree(store) == tree(stores / form)


def test_killed_and_gone_on_with_it_is_the_same(tars, model, tmp_path):
    """Killed in the middle of the second of three tars."""
    go = tmp_path / "go"
    late = f"pipe:head -c 9000 {tars}/b.tar; until test -e {go}; do sleep 0.02; done;"
    sources = (tars / "a.tar", f"{late} tail -c +9001 {tars}/b.tar", tars / "c.tar")
    settings = encode_words(model, "--format", "webdataset", "--allow-pipe")
    store = tmp_path / "store"
    job = Forked("encode", *sources, "-o", store, *settings, log=tmp_path / "log")
    while not (store / "shards" / "000000.json").exists():
        time.sleep(0.01)
    os.kill(job.pid, signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    assert len(list((store / "shards").glob("*.json"))) == 1
    go.touch()
    run = partial(encode_tars, None, model=model, sources=tuple(map(str, sources)), allow_pipe=True)
    assert run(store=store, shard_format="webdataset")["skipped"] == 7
    run(store=tmp_path / "undisturbed", shard_format="webdataset")
    assert tree(store) == tree(tmp_path / "undisturbed")


def test_a_truncated_tar_gives_its_whole_samples_and_one_row(model, tmp_path):
    whole = tar_bytes(members(6))
    for cut in (5 * len(whole) // 8, len(whole) // 2 + 1):
        for form in FORMATS:
            store = tmp_path / f"{form}-{cut}"
            (tmp_path / "t.tar").write_bytes(whole[:cut])
            document = encode_tars(tmp_path / "t.tar", store, model, shard_format=form)
            rows = rows_of(store)
            assert document["failed"] == 1
            assert [row["status"] for row in rows] == ["ok"] * (len(rows) - 1) + ["failed"]
            assert "cut short" in rows[-1]["error"]
            assert rows[-1]["source"].startswith("t.tar::")
            assert list(verify_shards(store)) == []
            kept = [row["key"].removeprefix("t/") for row in rows[:-1]]
            if form == "webdataset":
                data = read_tar((store / "shards" / "000000.tar").read_bytes())
                assert {name.split(".")[0] for name in data} == set(kept)
                assert len(data) == 4 * len(kept)


def test_an_empty_tar_gives_an_empty_shard(model, tmp_path):
    make_tar(tmp_path / "tars" / "empty.tar", [])
    make_tar(tmp_path / "tars" / "full.tar", members(2))
    for form in FORMATS:
        store = tmp_path / form
        document = encode_tars(tmp_path / "tars", store, model, shard_format=form)
        assert (document["encoded"], document["failed"], document["shards"]) == (2, 0, 2)
        assert rows_of(store)[0]["key"] == "full/0000"
        assert list(verify_shards(store)) == []
        assert len(open_store(str(store))) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_a_tar_that_cannot_be_read_is_one_failed_row(model, tmp_path, form):
    folder = tmp_path / "tars"
    make_tar(folder / "a.tar", members(3, bad_every=1))
    gone = make_tar(folder / "gone.tar", members(1))
    make_tar(folder / "good.tar", members(2))
    (folder / "nothing.tar").touch()
    (folder / "text.tar").write_text("this is no tar at all\n" * 100)
    reporter = Reporter(progress=lambda _: gone.unlink(missing_ok=True))
    store = tmp_path / "store"
    document = encode_tars(folder, store, model, reporter=reporter, shard_format=form)
    failed = failures_of(store)
    assert document["encoded"] == 2
    assert sorted(failed)[3:] == ["gone/(rest)", "nothing/(rest)", "text/(rest)"]
    assert "No such file" in failed["gone/(rest)"]["error"]
    assert "0 bytes" in failed["nothing/(rest)"]["error"]
    assert "this is not a tar" in failed["text/(rest)"]["error"]
    assert {failed[key]["stage"] for key in sorted(failed)[3:]} == {"read"}
    assert list(verify_shards(store)) == []


def test_keys_with_dots_and_folders_survive(model, tmp_path):
    names = ("a/b.c/0.1", "a/b.c/0.2", "x.y.z", "deep/er/one")
    files = [
        (f"{name}.{field}", data)
        for number, name in enumerate(names)
        for field, data in (("png", picture(number)), ("txt", name.encode()))
    ]
    make_tar(tmp_path / "in.v1.tar", files)
    store = tmp_path / "store"
    encode_tars(tmp_path / "in.v1.tar", store, model, shard_format="webdataset")
    opened = open_store(str(store))
    assert list(opened.keys()) == [f"in.v1/{name}" for name in names]
    for name in names:
        (other,) = opened.others(f"in.v1/{name}")
        assert (other.field, other.data) == ("txt", name.encode())
    decode(store, tmp_path / "out")
    assert (tmp_path / "out" / "in.v1" / "a" / "b.c" / "0.2.png").is_file()


def test_samples_that_are_refused_have_rows(model, tmp_path):
    files = [
        ("0.txt", b"caption alone"),
        ("1.png", picture(1)),
        ("../2.png", picture(2)),
        ("1.png", picture(1)),
        ("3.png", picture(3)),
        ("3.png", picture(4)),
    ]
    store = tmp_path / "store"
    encode_tars(make_tar(tmp_path / "t.tar", files), store, model)
    rows = {row["key"]: row for row in rows_of(store)}
    assert [key for key, row in rows.items() if row["status"] == "ok"] == ["t/1"]
    assert len(rows) == 4
    assert {row["stage"] for row in rows.values() if row["status"] == "failed"} == {"read"}


def test_a_changed_tar_is_noticed_and_done_again(model, tmp_path):
    tar = make_tar(tmp_path / "tars" / "a.tar", members(3))
    make_tar(tmp_path / "tars" / "b.tar", members(2))
    store, notes = tmp_path / "store", []
    run = partial(
        encode_tars, tmp_path / "tars", store, model, reporter=Reporter(note=notes.append)
    )
    run()
    make_tar(tar, members(5))
    assert run(retry="none")["changed"] == 1
    assert "a.tar" in notes[-1]
    assert len(rows_of(store)) == 5
    assert run()["encoded"] == 5
    assert len(rows_of(store)) == 7
    os.utime(tar, ns=(1, 1))
    assert (run()["encoded"], run()["changed"]) == (0, 0)


def test_failed_samples_are_tried_again_where_asked(model, tmp_path):
    tar = make_tar(tmp_path / "tars" / "a.tar", members(5, bad_every=3))
    make_tar(tmp_path / "tars" / "b.tar", members(2))
    store = tmp_path / "store"
    assert encode_tars(tmp_path / "tars", store, model)["failed"] == 1
    make_tar(tar, members(5))
    document = encode_tars(tmp_path / "tars", store, model, retry="failed")
    assert (document["encoded"], document["skipped"], document["failed"]) == (5, 2, 0)


def test_new_tars_are_appended(model, tmp_path):
    make_tar(tmp_path / "tars" / "b.tar", members(3))
    store = tmp_path / "store"
    encode_tars(tmp_path / "tars", store, model, shard_format="webdataset")
    before = tree(store)["shards/000000.tar"]
    make_tar(tmp_path / "tars" / "a.tar", members(4))
    document = encode_tars(tmp_path / "tars", store, model, shard_format="webdataset")
    assert (document["encoded"], document["skipped"], document["shards"]) == (4, 3, 2)
    assert tree(store)["shards/000000.tar"] == before
    assert [row["key"][:2] for row in rows_of(store)] == ["b/"] * 3 + ["a/"] * 4


def test_the_output_of_a_command_is_a_tar(model, tmp_path):
    tar = make_tar(tmp_path / "a.tar", members(3))
    sources = (f"pipe:cat {tar}",)
    with pytest.raises(UsageError, match="--allow-pipe"):
        encode_tars(None, tmp_path / "store", model, sources=sources)
    assert not (tmp_path / "store").exists()
    document = encode_tars(
        None, tmp_path / "store", model, sources=sources, allow_pipe=True, shard_format="webdataset"
    )
    assert document["encoded"] == 3
    encode_tars(tar, tmp_path / "named", model, shard_format="webdataset")
    piped = latents_in((tmp_path / "store" / "shards" / "000000.tar").read_bytes())
    named = latents_in((tmp_path / "named" / "shards" / "000000.tar").read_bytes())
    assert piped.keys() == named.keys() == {f"{n:04d}/latent" for n in range(3)}


def test_a_command_that_fails_is_a_failed_row(model, tmp_path):
    tar = make_tar(tmp_path / "a.tar", members(3))
    sources = (f"pipe:cat {tar}; exit 7",)
    document = encode_tars(None, tmp_path / "store", model, sources=sources, allow_pipe=True)
    assert (document["encoded"], document["failed"]) == (3, 1)
    assert "exit code 7" in rows_of(tmp_path / "store")[-1]["error"]


def test_a_command_that_hangs_can_be_left_and_ends_with_the_job(model, tmp_path):
    tar, mark = make_tar(tmp_path / "a.tar", members(4)), tmp_path / "pid"
    sources = (f"pipe:head -c 20000 {tar}; sh -c 'echo $$ > {mark}; exec sleep 1000'",)

    def stop():
        while not mark.exists() or not mark.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(Interrupted):
        encode_tars(None, tmp_path / "store", model, sources=sources, allow_pipe=True)
    assert is_over(int(mark.read_text()))


def test_one_row_stands_for_a_tar_of_other_kinds(model, tmp_path):
    folder = unpacked(members(2), tmp_path / "mixed")
    tar = make_tar(tmp_path / "mixed" / "a.tar", members(2))
    with pytest.raises(UsageError, match="is a tar of samples, named together"):
        encode_tars(None, tmp_path / "s", model, sources=(str(tar), str(folder / "0000.png")))
    with pytest.raises(UsageError, match="Each tar becomes one shard"):
        encode(tar, tmp_path / "s", model, samples_per_shard=4)
    encode_tars(tar, tmp_path / "store", model)
    with pytest.raises(StoreError, match="tars of images"):
        encode(folder / "0000.png", tmp_path / "store", model, samples_per_shard=1)


def test_reading_is_counted_once(stores, tars, model, tmp_path):
    for workers in (0, 1):
        document = encode_tars(tars, tmp_path / str(workers), model, workers=workers)
        stages = document["stages"]
        assert stages["read"]["items"] == stages["decode_image"]["items"] == 22
