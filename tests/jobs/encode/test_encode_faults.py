"""What goes wrong on disks, networks and by hand: jobs end well, and go on to the end."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import s3
from harness.fuzz_files import good_pictures
from harness.tars import Failing, member, tar
from jobkit import encode, environment, failures_of, rows_of, toy_pictures, tree

from latentcli.cli.app import main
from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.loader.prepare import Intake, Recipe
from latentcli.jobs.loader.readers import TarReader
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.storage.paths import path_of
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.store.lock import StoreLock

PICTURE = good_pictures()["rgb.png"]
ALWAYS = math.inf


def samples(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    """Members of good samples."""
    names = [f"{number:04d}" for number in range(first, first + count)]
    return [part for name in names for part in ((f"{name}.png", PICTURE), (f"{name}.txt", b"cat"))]


def write_tars(folder: Path, count: int, each: int = 6) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.tar" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(tar(samples(each, number * each)))
    return paths


def verify(store: object, **options: object) -> dict:
    return run_verify(VerifyJob(store=str(store), device="cpu", samples=0, **options))


# Full disk: the driver is alone with a disk of its own, which no privilege is needed for.
DRIVER = """
import json, shutil, subprocess, sys
from pathlib import Path
from latentcli.cli.app import main

disk, out, *words = sys.argv[1:]
store = Path(disk) / "store"
codes = [main(words), main(words)]
before = {path.name: path.stat().st_ino for path in (store / "shards").glob("*.json")}
left = [str(path) for path in store.rglob("*.tmp-*")]
subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
codes.append(main(words))
after = {path.name: path.stat().st_ino for path in (store / "shards").glob("*.json")}
shutil.copytree(store, out)
kept = all(after[name] == inode for name, inode in before.items())
print(json.dumps({"codes": codes, "done": len(before), "left": left, "kept": kept}))
"""


def in_namespace(*command: object) -> subprocess.CompletedProcess[str]:
    words = ["unshare", "--map-root-user", "--mount", *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=250)


@pytest.fixture
def disk(tmp_path):
    """An empty folder on which a namespace may mount a small disk."""
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(tmp_path / "disk")]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare command")
    tried = in_namespace(*mount)
    if tried.returncode:
        pytest.skip(f"a small disk cannot be mounted: {tried.stderr.strip()}")
    return tmp_path / "disk"


@pytest.mark.parametrize("kind", ["tars to tars", "pictures"])
def test_a_full_disk(kind, disk, model, tmp_path):
    options = ["--format", "webdataset"]
    if kind == "pictures":
        source, options = str(toy_pictures(tmp_path / "in", 200)), ["--samples-per-shard", "5"]
    else:
        write_tars(tmp_path / "in", 12)
        source = f"{tmp_path}/in/*.tar"
    words = ["encode", source, "--model", model, "--device", "cpu", "--no-self-check", "--quiet"]
    words += ["--workers", "0", "--size", "64", *options, "--output"]
    (tmp_path / "driver.py").write_text(DRIVER)
    mount = f"mount -t tmpfs -o size=160k tmpfs {disk}"
    driver = [sys.executable, tmp_path / "driver.py", disk, tmp_path / "out", *words]
    done = in_namespace("sh", "-c", f'{mount} && exec "$@"', "sh", *driver, disk / "store")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["codes"] == [1, 1, 0] and found["left"] == [] and found["kept"]
    assert found["done"] >= 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 2 and "Traceback" not in done.stderr
    assert all("the disk is full" in line and "run the same command" in line for line in errors)
    assert main([*words, str(tmp_path / "reference")]) == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "reference")


# /proc/self/mem is a regular file that opens, and whose every read is an input/output error.


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read(workers, model, tmp_path):
    pictures = toy_pictures(tmp_path / "in", 5)
    (pictures / "bad.jpg").symlink_to("/proc/self/mem")
    done = encode(pictures, tmp_path / "store", model, workers=workers)
    assert (done["encoded"], done["failed"]) == (5, 1)
    row = failures_of(tmp_path / "store")["bad"]
    assert row["stage"] == "read" and row["error"] == "the file cannot be read: Input/output error"
    assert verify(tmp_path / "store")["ok"]


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
def test_a_tar_that_cannot_be_read(form, model, tmp_path):
    write_tars(tmp_path / "in", 2)
    (tmp_path / "in" / "0005.tar").symlink_to("/proc/self/mem")
    done = encode(
        *(f"{tmp_path}/in/*.tar", tmp_path / "store", model),
        samples_per_shard=None,
        shard_format=form,
    )
    assert (done["encoded"], done["failed"]) == (12, 1)
    (row,) = failures_of(tmp_path / "store").values()
    assert row["stage"] == "read" and "Input/output error" in row["error"]
    assert "[Errno" not in row["error"] and row["source"].startswith("0005.tar")
    assert verify(tmp_path / "store")["ok"]


def test_a_tar_whose_stream_fails_in_its_middle(model, tmp_path):
    """What was complete is encoded, as without the error; the sample in hand is not."""
    (whole,) = write_tars(tmp_path / "in", 1)
    cut = whole.stat().st_size // 2
    source = f"pipe:head -c {cut} {whole}; exit 5"
    options = {"samples_per_shard": None, "allow_pipe": True}
    done = encode(source, tmp_path / "store", model, **options)
    encode(f"pipe:cat {whole}", tmp_path / "reference", model, **options)
    (row,) = failures_of(tmp_path / "store").values()
    assert "exit code 5" in row["error"] and row["stage"] == "read"
    good = {row["key"].rpartition("/")[2] for row in rows_of(tmp_path / "store")}
    assert done["encoded"] == len(good) - 1 > 0 and "0005" not in good


def test_an_error_of_the_disk_in_every_place_of_a_tar():
    data, row = tar(samples(3)), InputRow("t", "/t.tar", 0)
    reader = TarReader(frozenset((".png",)), Meter("encode", None))
    for cut in range(0, len(data) - 1, 200):
        stream = Failing(data[:cut], OSError(5, "Input/output error"))
        *good, last = reader.in_stream(row, stream)
        assert last.row.status == "failed" and "Input/output error" in last.row.error
        assert "[Errno" not in last.row.error
        for number, raw in enumerate(good):
            assert (raw.row.key, raw.data) == (f"t/{number:04d}", PICTURE)
            assert [other.data for other in raw.others] == [b"cat"]


def test_a_tar_that_is_cut_while_it_is_read(tmp_path):
    path = tmp_path / "t.tar"
    big = bytes(2**20)
    both = (("png", PICTURE), ("x", big))
    parts = [member(f"{n:02d}.{field}", data) for n in range(30) for field, data in both]
    path.write_bytes(b"".join(parts) + bytes(1024))
    reader = TarReader(frozenset((".png",)), Meter("encode", None))
    write_inputs(tmp_path / "inputs.jsonl", [InputRow("t", str(path), 0)])
    inputs = InputList.open(tmp_path / "inputs.jsonl")
    tasks = reader.tasks(Intake(inputs, Recipe(DecodePolicy(), PreprocessSpec(None, 1))), [0])
    first = next(tasks)
    with path.open("r+b") as file:
        file.truncate(20 * 2**20 + 500_000)
    found = [raw for task in (first, *tasks) for raw in task.samples]
    assert 8 <= len(found) < 30 and "cut short" in found[-1].row.error
    assert all((raw.data, raw.others[0].data) == (PICTURE, big) for raw in found[:-1])


# S3.


@pytest.fixture(scope="module")
def server():
    with s3.s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def remote(server, tmp_path_factory):
    """A bucket with pictures and tars."""
    bucket = server.bucket()
    folder = tmp_path_factory.mktemp("remote")
    toy_pictures(folder / "pictures", 10)
    write_tars(folder / "tars", 3)
    for path in folder.rglob("*.*"):
        (path_of(bucket) / str(path.relative_to(folder))).write_bytes(path.read_bytes())
    return bucket


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setenv("LATENTCLI_RETRY_SECONDS", "0.3")
    monkeypatch.setenv("LATENTCLI_LEASE_SECONDS", "0.5")


SOURCES = {
    "pictures": ("/pictures/", {}),
    "tars": ("/tars/*.tar", {"samples_per_shard": None, "shard_format": "webdataset"}),
}


def content(store: str) -> dict[str, bytes]:
    """The files of a remote store."""
    return {str(path).removeprefix(store): path.read_bytes() for path, _ in path_of(store).find()}


@s3.needs_s3
@pytest.mark.parametrize("kind", SOURCES)
def test_trouble_of_s3_that_passes(kind, server, remote, quick, model):
    path, options = SOURCES[kind]
    encode(remote + path, f"{remote}/{kind}/reference", model, **options)
    store = f"{remote}/{kind}/store"
    with server.proxy() as proxy:
        proxy.fail("500", 2)
        proxy.fail("cut", 2, "GET")
        proxy.fail("503", 1, "PUT", "shards")
        proxy.fail("cut_upload", 2, "PUT", "shards")
        done = encode(remote + path, store, model, **options)
        assert proxy.broken == 7
    assert done["failed"] == 0
    assert content(store) == content(f"{remote}/{kind}/reference")


@s3.needs_s3
@pytest.mark.parametrize("kind", SOURCES)
def test_inputs_on_s3_that_stay_broken(kind, server, remote, quick, model, tmp_path):
    path, options = SOURCES[kind]
    with server.proxy() as proxy:
        proxy.fail("500", ALWAYS, "GET", "pictures/000/000003" if kind == "pictures" else "001.tar")
        done = encode(remote + path, tmp_path / "store", model, **options)
    assert done["failed"] == 1 and done["encoded"] == (9 if kind == "pictures" else 12)
    (row,) = failures_of(tmp_path / "store").values()
    assert row["stage"] == "read" and "internal error" in row["error"]
    encode(remote + path, tmp_path / "reference", model, **options)
    mended = encode(remote + path, tmp_path / "store", model, retry="failed", **options)
    assert mended["failed"] == 0
    assert tree(tmp_path / "store") == tree(tmp_path / "reference")


@s3.needs_s3
def test_a_store_on_s3_that_stays_broken(server, remote, quick, model, capsys):
    encode(f"{remote}/pictures/", f"{remote}/broken/reference", model)
    store = f"{remote}/broken/store"
    words = ["encode", f"{remote}/pictures/", "--output", store, "--model", model, "--device"]
    words += ["cpu", "--resize", "none", "--batch-size", "3", "--samples-per-shard", "4"]
    words += ["--workers", "0", "--no-self-check", "--quiet"]
    with server.proxy() as proxy:
        proxy.fail("500", ALWAYS, "PUT", "shards/000001")
        assert main(words) == 1
    told = capsys.readouterr().err
    assert told.count("error:") == 1 and "internal error" in told and "same command" in told
    assert "/shards/000000.json" in content(store) and "/lease.json" not in content(store)
    assert main(words) == 0
    assert content(store) == content(f"{remote}/broken/reference")


# Damage by hand.


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "shard deleted": (".safetensors", lambda path: path.unlink()),
    "shard cut": (".safetensors", lambda path: os.truncate(path, path.stat().st_size - 9)),
    "shard grown": (".safetensors", lambda path: path.write_bytes(path.read_bytes() + b"x")),
    "record deleted": (".json", lambda path: path.unlink()),
    "record garbled": (".json", lambda path: path.write_text("{")),
    "record empty": (".json", lambda path: path.write_bytes(b"")),
    "bit flipped": (".safetensors", flip),
}


@pytest.fixture(scope="module")
def sound(model, tmp_path_factory):
    """(pictures, a store of 3 units)."""
    folder = tmp_path_factory.mktemp("sound")
    pictures = toy_pictures(folder / "pictures", 12, bad_every=6)
    encode(pictures, folder / "store", model)
    return pictures, folder / "store"


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_unit_damaged_by_hand_is_made_again_and_no_other(kind, sound, model, tmp_path):
    pictures, reference = sound
    store = tmp_path / "store"
    shutil.copytree(reference, store)
    suffix, damage = DAMAGE[kind]
    damage(store / "shards" / f"000001{suffix}")
    others = [path for path in (store / "shards").iterdir() if "000001" not in path.name]
    before = {path: path.stat().st_ino for path in others}
    found = verify(store)
    assert not found["ok"] and {item["unit"] for item in found["problems"]} <= {1, None}
    if kind == "bit flipped":
        # The size is as it should be, and a job of a million inputs cannot read every shard.
        assert encode(pictures, store, model)["encoded"] == 0
        assert verify(store, repair=True)["repaired"] == [1]
        assert json.loads((store / "manifest.json").read_text())["status"] == "running"
    done = encode(pictures, store, model)
    assert (done["encoded"], done["skipped"]) == (3, 7)
    assert tree(store) == tree(reference)
    assert {path: path.stat().st_ino for path in before} == before


@s3.needs_s3
def test_a_shard_on_s3_that_was_damaged_or_deleted(server, remote, quick, model):
    store = f"{remote}/damaged/store"
    encode(f"{remote}/pictures/", store, model)
    before = content(store)
    (path_of(store) / "shards" / "000002.safetensors").unlink()
    shard = path_of(store) / "shards" / "000001.safetensors"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    kinds = {(item["unit"], item["kind"]) for item in verify(store)["problems"]}
    assert {(1, "digest"), (2, "shard")} <= kinds
    assert verify(store, repair=True)["repaired"] == [1, 2]
    assert encode(f"{remote}/pictures/", store, model)["encoded"] == 6
    assert content(store) == before


def test_repair_takes_the_lock_and_changes_no_sound_store(sound, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(sound[1], store)
    assert verify(store, repair=True)["repaired"] == []
    assert tree(store) == tree(sound[1])
    with StoreLock(store), pytest.raises(StoreError, match="another job is writing"):
        verify(store, repair=True)
    with pytest.raises(StoreError, match="no such folder"):
        verify(tmp_path / "nowhere", repair=True)
    assert not (tmp_path / "nowhere").exists()


def test_what_verify_says_of_a_repair(sound, model, tmp_path, capsys):
    store = tmp_path / "store"
    shutil.copytree(sound[1], store)
    flip(store / "shards" / "000002.safetensors")
    assert main(["verify", str(store), "--samples", "0"]) == 1
    assert "--repair marks the damaged units. Then run" in capsys.readouterr().err
    assert main(["verify", str(store), "--samples", "0", "--repair", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["repaired"] == [2] and "Marked 1 unit" in told.err
    encode(sound[0], store, model)
    assert main(["verify", str(store), "--samples", "0", "--quiet"]) == 0
