"""`encode` with a tar stream at either end: in order, nothing else on stdout, and left at once."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time

import pytest
import torch
from harness.slow import slow
from jobkit import decode, encode, encode_job, environment, latents_of, rows_of, tree
from tarjobkit import (
    Forked,
    command,
    encode_words,
    has_end,
    latents_in,
    make_tar,
    members,
    read_tar,
    standard_streams,
    tar_bytes,
    unpacked,
)

import latentcli.jobs.encode.to_stdout as encode_pipe
from latentcli import open_store
from latentcli.cli.app import main
from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.encode.job import run_encode
from latentcli.shards.store.verify import verify_shards

FIELDS = ("latent.safetensors", "latent.json", "txt", "json")
SECONDS = 60.0
"""Within which a job that is told to stop has to be over, on a busy machine."""


def encode_here(folder, data, output, model, source="-", **options):
    """The job in this process, with these bytes on standard input: (document, what it wrote)."""
    settings = {"samples_per_shard": None} | options
    with standard_streams(folder, data) as ends:
        document = run_encode(encode_job(source, output, model, **settings))
    return document, ends.output


def names_of(numbers):
    return [f"{n:04d}.{field}" for n in numbers for field in FIELDS]


@pytest.fixture(scope="module")
def tar():
    """20 samples of four sizes, one of them cut short."""
    return tar_bytes(members(20, bad_every=12))


@pytest.fixture(scope="module")
def stream(tar, model, tmp_path_factory):
    """What `encode - -o -` makes of it."""
    document, data = encode_here(tmp_path_factory.mktemp("stream"), tar, "-", model)
    assert (document["encoded"], document["failed"]) == (19, 1)
    return data


def test_samples_go_out_in_their_order_with_all_they_came_with(tar, stream):
    found, given = read_tar(stream), read_tar(tar)
    assert list(found) == names_of(n for n in range(20) if n != 11)
    for name in found:
        if name.endswith((".txt", "0.json")) and ".latent." not in name:
            assert found[name] == given[name]
    assert has_end(stream)


def test_the_latents_are_those_of_a_store(stream, tar, model, tmp_path):
    (tmp_path / "a.tar").write_bytes(tar)
    encode(tmp_path / "a.tar", tmp_path / "store", model, samples_per_shard=None)
    expected, found = latents_of(tmp_path / "store"), latents_in(stream)
    assert {f"a/{name}" for name in found} == set(expected)
    for name, tensor in found.items():
        assert torch.equal(expected[f"a/{name}"], tensor)


def test_the_stream_is_a_shard_that_can_be_opened(stream, tmp_path, monkeypatch):
    (tmp_path / "out.tar").write_bytes(stream)
    opened = open_store(str(tmp_path / "out.tar"))
    assert len(opened) == 19
    assert opened["0003"].shape == (8, 3, 5)
    assert decode(tmp_path / "out.tar", tmp_path / "out")["decoded"] == 19


@pytest.mark.parametrize("workers", [slow(2)])
def test_the_bytes_do_not_depend_on_workers(stream, tar, model, tmp_path, workers):
    assert encode_here(tmp_path, tar, "-", model, workers=workers)[1] == stream


def test_nor_on_how_much_is_held_if_all_are_of_one_size(model, tmp_path, monkeypatch):
    """A longer stream is many units inside, of which the outside sees nothing."""
    data = tar_bytes(members(13, size=(64, 64)))
    whole = encode_here(tmp_path, data, "-", model)[1]
    monkeypatch.setattr(encode_pipe, "PIPE_UNIT", 6)
    assert encode_here(tmp_path, data, "-", model)[1] == whole
    (tmp_path / "out.tar").write_bytes(whole)
    assert len(open_store(str(tmp_path / "out.tar"))) == 13


NOISE = """
import ctypes, os, threading, time

def speak():
    while not os.path.sameopenfile(1, 2):  # until standard output is kept for data
        time.sleep(0.01)
    ctypes.CDLL(None).printf(b"a library")

threading.Thread(target=speak, daemon=True).start()
"""


def test_a_real_pipeline(tar, stream, model, tmp_path):
    """Real processes, one of them with a library in C that prints meanwhile."""
    (tmp_path / "a.tar").write_bytes(tar)
    (tmp_path / "sitecustomize.py").write_text(NOISE)
    words = command("encode", "-", "-o", "-", "--json", *encode_words(model))
    job = subprocess.run(
        ["bash", "-c", f"cat '{tmp_path}/a.tar' | \"$@\"", "bash", *words],
        capture_output=True,
        env=environment() | {"PYTHONPATH": str(tmp_path)},
        timeout=120,
    )
    assert job.returncode == 3
    assert job.stdout == stream
    reporter = job.stderr.decode()
    document = json.loads(reporter[reporter.index("{") : reporter.rindex("}") + 1])
    assert (document["store"], document["encoded"], document["failed"]) == ("-", 19, 1)
    assert document["bytes"] == len(stream)
    assert document["failures"][0]["source"] == "-::0011.png"
    assert "Traceback" not in reporter


def test_the_summary_is_talk(tar, model, tmp_path, capfd):
    with standard_streams(tmp_path, tar) as ends:
        code = main(["encode", "-", "-o", "-", *map(str, encode_words(model))])
    assert code == 3
    assert ends.output[:100].rstrip(b"\0") == b"0000.latent.safetensors"
    reporter = capfd.readouterr().err
    assert f"Standard output: a tar stream of {len(ends.output) / 1024:.1f} KiB." in reporter
    assert "1 input failed, listed by --json:\n  1 x decode_image: PNG file is" in reporter


def test_a_reader_that_closes_early_ends_the_job(tar, model, tmp_path):
    data = tar_bytes(members(300, size=(64, 64)))
    job = Forked("encode", "-", "-o", "-", *encode_words(model), log=tmp_path / "log")
    job.give_beside(data[:200_000])
    assert len(job.take(1000)) == 1000
    os.close(job.output)
    began = time.monotonic()
    assert job.wait() == 1
    assert time.monotonic() - began < SECONDS
    assert job.stderr.count("\n") <= 3
    assert "error: The reader of standard output closed it after" in job.stderr
    assert "Traceback" not in job.stderr
    job.end()


def test_a_reader_that_is_gone_is_noticed_while_nothing_comes(model, tmp_path):
    job = Forked("encode", "-", "-o", "-", *encode_words(model), log=tmp_path / "log")
    job.give(tar_bytes(members(2))[:1024])
    os.close(job.output)
    assert job.wait(SECONDS) == 1
    job.end()


def test_a_writer_that_ends_early_costs_what_was_cut(tar, stream, model, tmp_path):
    """The end mark is there: the job came to its end, and its exit code tells of what is lost."""
    whole = read_tar(stream)
    cut = tar.index(b"0007.png") + 700
    document, data = encode_here(tmp_path, tar[:cut], "-", model)
    assert (document["encoded"], document["failed"]) == (7, 1)
    (failed,) = document["failures"]
    assert failed["key"] == "0007"
    assert "cut short" in failed["error"]
    found = read_tar(data)
    assert list(found) == names_of(range(7))
    assert {name: whole[name] for name in found if name.endswith("json")} == {
        name: found[name] for name in found if name.endswith("json")
    }
    assert has_end(data)
    with standard_streams(tmp_path, tar[:cut]):
        assert main(["encode", "-", "-o", "-", *map(str, encode_words(model))]) == 3


@pytest.mark.parametrize(
    ("data", "failed"), [(b"", 1), (bytes(1024), 0), (bytes(10240), 0), (b"no tar" * 300, 1)]
)
def test_a_stream_without_samples(model, tmp_path, data, failed):
    document, written = encode_here(tmp_path, data, "-", model)
    assert (document["encoded"], document["failed"]) == (0, failed)
    assert written == bytes(1024)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_job_while_the_writer_is_silent(tar, model, tmp_path, number):
    job = Forked("encode", "-", "-o", "-", *encode_words(model), log=tmp_path / "log")
    job.give(tar[:30_000])
    job.settle()
    os.kill(job.pid, number)
    assert job.wait(SECONDS) == 75
    assert "Run the pipeline again from its beginning." in job.stderr
    job.end()


def test_a_signal_ends_the_job_while_nobody_reads(model, tmp_path):
    job = Forked("encode", "-", "-o", "-", *encode_words(model), log=tmp_path / "log")
    job.give_beside(tar_bytes(members(200, size=(64, 64))))
    assert job.take(10)
    time.sleep(1)
    os.kill(job.pid, signal.SIGTERM)
    assert job.wait(SECONDS) == 75
    os.close(job.output)


def test_what_is_complete_goes_out_while_the_writer_is_slow(model, tmp_path):
    """Not at the end of a unit, but with each batch."""
    job = Forked("encode", "-", "-o", "-", *encode_words(model), log=tmp_path / "log")
    data = tar_bytes(members(60, size=(64, 64)))
    starts = [data.index(f"{n:04d}.png".encode()) for n in range(60)]
    given = 0
    while not select.select([job.output], [], [], 0.25)[0] and given < 59:
        job.give(data[starts[given] : starts[given + 1]])
        given += 1
    assert given < 59, "nothing came before the end of the stream"
    assert b"0000.latent.safetensors" in job.take(1000)
    job.finish(data[starts[given] :])
    assert job.wait() == 0


def test_a_folder_to_a_stream(model, tmp_path):
    files = [f for f in members(9) if f[0].endswith("png")]
    folder = unpacked([(f"sub.d/x.{name}", data) for name, data in files], tmp_path / "pictures")
    document, data = encode_here(tmp_path, None, "-", model, source=folder)
    assert document["encoded"] == 9
    found = read_tar(data)
    assert list(found)[:2] == [
        "sub.d/x%2E0000.latent.safetensors",
        "sub.d/x%2E0000.latent.json",
    ]
    assert json.loads(found["sub.d/x%2E0003.latent.json"])["key"] == "sub.d/x.0003"
    encode(folder, tmp_path / "store", model)
    assert len(latents_in(data)) == len(latents_of(tmp_path / "store")) == 9


def test_several_tars_to_a_stream_are_told_apart_by_their_names(model, tmp_path):
    make_tar(tmp_path / "in" / "a.tar", members(3))
    make_tar(tmp_path / "in" / "b.tar", members(2))
    document, data = encode_here(tmp_path, None, "-", model, source=tmp_path / "in")
    assert document["encoded"] == 5
    expected = [f"a/{name}" for name in names_of(range(3))]
    assert list(read_tar(data)) == [*expected, *(f"b/{name}" for name in names_of(range(2)))]
    alone = encode_here(tmp_path, None, "-", model, source=tmp_path / "in" / "a.tar")[1]
    assert list(read_tar(alone)) == names_of(range(3))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sources": ("-", "x.png")}, "the only source"),
        ({"devices": "all"}, "by one process"),
        ({"engine": "ray"}, "by one process"),
        ({"dry_run": True}, "--dry-run"),
        ({"samples_per_shard": 5}, "--samples-per-shard"),
    ],
)
def test_what_a_pipe_cannot_do_is_refused(model, tmp_path, options, match):
    with pytest.raises(UsageError, match=match):
        encode_here(tmp_path, b"", "-", model, **options)
    words = ["encode", "-", "-o", "-", "--devices", "2", *map(str, encode_words(model))]
    if "devices" in options:
        with standard_streams(tmp_path, b""):
            assert main(words) == 2


def test_a_store_from_a_stream(tar, stream, model, tmp_path):
    store = tmp_path / "store"
    document, written = encode_here(tmp_path, tar, store, model, samples_per_shard=8)
    assert written == b""
    assert (document["encoded"], document["failed"], document["shards"]) == (19, 1, 3)
    assert [row["key"] for row in rows_of(store)] == [f"{n:04d}" for n in range(20)]
    assert rows_of(store)[11]["source"] == "-::0011.png"
    assert list(verify_shards(store)) == []
    found = latents_in(stream)
    assert latents_of(store).keys() == found.keys()


def test_the_same_stream_again_leaves_nothing_to_do(tar, model, tmp_path):
    store = tmp_path / "store"
    encode_here(tmp_path, tar, store, model, samples_per_shard=8)
    before = tree(store)
    document, _ = encode_here(tmp_path, tar, store, model, samples_per_shard=8)
    assert (document["encoded"], document["skipped"], document["failed"]) == (0, 19, 1)
    assert tree(store) == before


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
def test_a_longer_stream_is_appended(model, tmp_path, form):
    options = {"samples_per_shard": 4, "shard_format": form}
    store = tmp_path / "store"
    for count in (6, 8, 15):
        document, _ = encode_here(tmp_path, tar_bytes(members(count)), store, model, **options)
        assert document["encoded"] + document["skipped"] == count
    assert document["skipped"] == 8
    encode_here(tmp_path, tar_bytes(members(15)), tmp_path / "once", model, **options)
    assert tree(store) == tree(tmp_path / "once")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(tar_bytes(members(20, first=100)), id="others"),
        pytest.param(tar_bytes(members(3)), id="shorter"),
        pytest.param(tar_bytes(members(4)), id="shorter-by-units"),
        pytest.param(tar_bytes(members(5)), id="shorter-last-unit"),
        pytest.param(tar_bytes([*members(5), *members(9, first=50)]), id="other-end"),
        pytest.param(bytes(1024), id="empty"),
    ],
)
def test_another_stream_is_refused_and_nothing_is_lost(model, tmp_path, other):
    store = tmp_path / "store"
    encode_here(tmp_path, tar_bytes(members(6)), store, model, samples_per_shard=4)
    before = tree(store)
    with pytest.raises(StoreError, match=r"[Cc]hoose another"):
        encode_here(tmp_path, other, store, model, samples_per_shard=4)
    assert tree(store) == before


def test_a_stream_that_was_cut_goes_on_when_it_is_whole(model, tmp_path):
    data, store = tar_bytes(members(7)), tmp_path / "store"
    cut = data.index(b"0005.png") + 600
    for given, failed in ((data[:cut], 1), (data[:cut], 1), (data, 0)):
        document, _ = encode_here(tmp_path, given, store, model, samples_per_shard=3)
        assert document["failed"] == failed
    encode_here(tmp_path, data, tmp_path / "once", model, samples_per_shard=3)
    assert tree(store) == tree(tmp_path / "once")


def test_interrupted_and_given_the_stream_again_is_the_same(tar, model, tmp_path):
    words = ("encode", "-", "-o", tmp_path / "store", "--samples-per-shard", 4)
    for number, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -9)):
        job = Forked(*words, *encode_words(model), log=tmp_path / "log")
        job.give(tar[: len(tar) // 2])
        records = tmp_path / "store" / "shards"
        while len(list(records.glob("*.json"))) < 1:
            time.sleep(0.01)
        os.kill(job.pid, number)
        assert job.wait(SECONDS) == code
        job.end()
        os.close(job.output)
    document, _ = encode_here(tmp_path, tar, tmp_path / "store", model, samples_per_shard=4)
    assert document["skipped"] >= 4
    encode_here(tmp_path, tar, tmp_path / "once", model, samples_per_shard=4)
    assert tree(tmp_path / "store") == tree(tmp_path / "once")


def test_a_store_of_a_stream_is_no_store_of_a_tar(model, tmp_path):
    store = tmp_path / "store"
    encode_here(tmp_path, tar_bytes(members(2)), store, model, samples_per_shard=4)
    make_tar(tmp_path / "a.tar", members(2))
    with pytest.raises(StoreError):
        encode(tmp_path / "a.tar", store, model, samples_per_shard=None)


def test_webdataset_reads_the_stream(stream, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    from latentcli import safetensors_decoder

    (tmp_path / "out.tar").write_bytes(stream)
    data = webdataset.WebDataset(str(tmp_path / "out.tar"), shardshuffle=False)
    samples = list(data.decode(safetensors_decoder))
    assert [s["__key__"] for s in samples] == [f"{n:04d}" for n in range(20) if n != 11]
    assert samples[0]["latent.safetensors"]["latent"].shape == (8, 3, 4)
    assert samples[1]["txt"] == "caption 1\n"
