"""Clips in tars and through pipes: the frames of files, every clip counted, nothing left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import tempfile

import pytest
import torch
from clipkit import MODEL, NUMBERS, clips_in, frames_of
from jobkit import (
    decode,
    encode,
    encode_job,
    failures_of,
    interrupt_after,
    latents_of,
    rows_of,
    tree,
)
from tarjobkit import (
    Forked,
    encode_words,
    has_end,
    latents_in,
    make_tar,
    read_tar,
    standard_streams,
    tar_bytes,
)

from latentcli import open_store
from latentcli.cli.app import main
from latentcli.core.errors import Interrupted, UsageError
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.decode.job import run_decode
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.store.verify import verify_shards

FORMATS = ("safetensors", "webdataset")


def encode_tars(source, store, **options):
    return encode(source, store, MODEL, **{"samples_per_shard": None, "media": "clips"} | options)


def encode_here(folder, data, source="-", **options):
    settings = {"samples_per_shard": None, "media": "clips"} | options
    with standard_streams(folder, data) as ends:
        document = run_encode(encode_job(source, "-", MODEL, **settings))
    return document, ends.output


def decode_here(folder, data, output="-", store="-", **options):
    settings = {"store": str(store), "output": str(output), "device": "cpu"} | options
    with standard_streams(folder, data) as ends:
        document = run_decode(DecodeJob(**settings))
    return document, ends.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clips_in(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def files(folder):
    """The clips with captions, one clip cut short, and a sample that is none."""
    found = []
    for path in sorted(folder.glob("*.mp4")):
        found += [(path.name, path.read_bytes()), (f"{path.stem}.txt", path.stem.encode())]
    bad = (folder / "c04.mp4").read_bytes()
    return [*found, ("d00.mp4", bad[: len(bad) // 2]), ("d00.txt", b"bad"), ("e00.txt", b"none")]


@pytest.fixture(scope="module")
def tars(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    make_tar(folder / "a.tar", files[:4])
    make_tar(folder / "b.tar", files[4:])
    return folder


@pytest.fixture(scope="module")
def stores(tars, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    for form in FORMATS:
        document = encode_tars(tars, folder / form, shard_format=form)
        assert (document["encoded"], document["failed"], document["shards"]) == (5, 1, 2)
        assert (document["nothing_to_encode"], document["image_fields"]) == (1, {"mp4": 6})
        assert document["frames"] == sum(NUMBERS)
        assert document["stages"]["read"]["items"] == 6
    return folder


@pytest.fixture(scope="module")
def stream(files, tmp_path_factory):
    document, data = encode_here(tmp_path_factory.mktemp("stream"), tar_bytes(files))
    assert (document["encoded"], document["failed"], document["media"]) == (5, 1, "clips")
    assert (document["nothing_to_encode"], document["image_fields"]) == (1, {"mp4": 6})
    assert document["frames"] == sum(NUMBERS)
    return data


@pytest.mark.parametrize("form", FORMATS)
def test_the_store_is_sound(stores, tars, form):
    store = stores / form
    assert list(verify_shards(store)) == []
    assert run_verify(VerifyJob(store=str(store), device="cpu"))["problems"] == []
    assert [row["key"] for row in rows_of(store)] == [
        *("a/c00", "a/c01", "b/c02", "b/c03", "b/c04", "b/d00")
    ]
    failed = failures_of(store)
    assert failed["b/d00"]["source"] == "b.tar::d00.mp4"
    assert list(failed) == ["b/d00"]


def test_latents_are_those_of_the_files(stores, folder, tmp_path):
    encode(folder, tmp_path / "store", MODEL)
    opened = open_store(str(stores / "webdataset"))
    for name, tensor in latents_of(tmp_path / "store").items():
        key, _, part = name.rpartition("/")
        tar = "a" if key in ("c00", "c01") else "b"
        assert torch.equal(opened.parts(f"{tar}/{key}")[part], tensor), name
    assert {k: v.shape for k, v in latents_of(stores / "safetensors").items()} == {
        f"{key}/{part}": tensor.shape
        for key in opened
        for part, tensor in opened.parts(key).items()
    }


@pytest.mark.parametrize("form", FORMATS)
def test_interrupted_and_gone_on_with_it_is_the_same(stores, tars, tmp_path, form, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with pytest.raises(Interrupted):
        encode_tars(tars, tmp_path / "s", reporter=interrupt_after(6), shard_format=form)
    assert not list((tmp_path / "tmp").iterdir())
    assert not list((tmp_path / "s" / "shards").glob(".*"))
    encode_tars(tars, tmp_path / "s", shard_format=form)
    assert tree(tmp_path / "s") == tree(stores / form)
    again = encode_tars(tars, tmp_path / "s", shard_format=form)
    assert (again["encoded"], again["skipped"]) == (0, 5)


def test_a_stream_of_latents(stream, stores):
    found = read_tar(stream)
    fields = ("latent.safetensors", "latent.json", "txt")
    assert list(found) == [f"c{n:02d}.{field}" for n in range(5) for field in fields]
    assert has_end(stream)
    told = json.loads(found["c03.latent.json"])
    assert told["latent_shape"][0] == NUMBERS[3]
    expected = latents_of(stores / "safetensors")
    for name, tensor in latents_in(stream).items():
        tar = "a" if name[:3] in ("c00", "c01") else "b"
        assert torch.equal(expected[f"{tar}/{name}"], tensor)


def test_the_summary_of_a_stream_counts_frames(files, tmp_path, capfd):
    words = ["encode", "-", "-o", "-", "--media", "clips", *map(str, encode_words(MODEL))]
    with standard_streams(tmp_path, tar_bytes(files)):
        assert main(words) == 3
    reporter = capfd.readouterr().err
    assert f"Encoded 5 clips ({sum(NUMBERS)} frames)" in reporter
    assert "Standard output: a tar stream of" in reporter
    assert "Traceback" not in reporter


def test_files_to_a_stream(folder, stream, tmp_path):
    document, data = encode_here(tmp_path, None, source=folder)
    assert document["encoded"] == 5
    expected = latents_in(stream)
    assert latents_in(data).keys() == expected.keys()
    assert all(torch.equal(expected[name], t) for name, t in latents_in(data).items())


def test_a_stream_to_videos(stream, folder, tmp_path):
    document, data = decode_here(tmp_path, stream)
    assert (document["decoded"], document["failed"], document["media"]) == (5, 0, "clips")
    assert document["frames"] == sum(NUMBERS)
    found = read_tar(data)
    assert list(found) == [f"c{n:02d}.{field}" for n in range(5) for field in ("mp4", "txt")]
    assert found["c02.txt"] == b"c02"
    assert has_end(data)
    for n, length in enumerate(NUMBERS):
        path = tmp_path / f"c{n:02d}.mp4"
        path.write_bytes(found[path.name])
        assert frames_of(path) == frames_of(folder / path.name)
        assert len(frames_of(path)) == length


def test_a_stream_to_a_folder_and_to_pictures(stream, folder, tmp_path):
    document, _ = decode_here(tmp_path, stream, tmp_path / "out")
    assert document["decoded"] == 5
    assert frames_of(tmp_path / "out" / "c03.mp4") == frames_of(folder / "c03.mp4")
    _, data = decode_here(tmp_path, stream, format="png")
    names = [f"c{n:02d}/{i:06d}.png" for n, count in enumerate(NUMBERS) for i in range(count)]
    assert [name for name in read_tar(data) if name.endswith("png")] == names
    assert read_tar(data)["c04.txt"] == b"c04"


def test_a_store_to_a_stream(stores, tmp_path):
    for form, fields in (("safetensors", ("mp4",)), ("webdataset", ("mp4", "txt"))):
        document, data = decode_here(tmp_path, None, store=stores / form)
        assert document["decoded"] == 5
        names = ("a/c00", "a/c01", "b/c02", "b/c03", "b/c04")
        assert list(read_tar(data)) == [f"{name}.{field}" for name in names for field in fields]


def test_damaged_clips_are_failed_rows(stream, tmp_path):
    files = read_tar(stream)
    files["c01.latent.safetensors"] = b"x" * 50
    del files["c03.latent.safetensors"]
    for output in ("-", tmp_path / "out"):
        document, _ = decode_here(tmp_path, tar_bytes(files.items()), output)
        assert (document["decoded"], document["failed"]) == (3, 2)
        assert [failure["key"] for failure in document["failures"]] == ["c01", "c03"]
    names = [path.name for path in sorted((tmp_path / "out").glob("*.mp4"))]
    assert names == ["c00.mp4", "c02.mp4", "c04.mp4"]


def test_a_store_of_clips_needs_files(files, tmp_path):
    with (
        pytest.raises(UsageError, match="cannot be made from standard input"),
        standard_streams(tmp_path, tar_bytes(files)),
    ):
        run_encode(encode_job("-", tmp_path / "s", MODEL, samples_per_shard=None, media="clips"))
    assert not (tmp_path / "s").exists()


def test_a_signal_ends_the_job_while_the_writer_is_silent(files, tmp_path):
    words = ("encode", "-", "-o", "-", "--media", "clips", *encode_words(MODEL))
    job = Forked(*words, log=tmp_path / "log")
    job.give(tar_bytes(files[:2])[:4000])
    job.settle()
    os.kill(job.pid, signal.SIGTERM)
    assert job.wait(60) == 75
    job.end()


def test_a_clip_of_a_stream_goes_out_before_the_stream_ends(files, tmp_path):
    words = ("encode", "-", "-o", "-", "--media", "clips", *encode_words(MODEL))
    job = Forked(*words, log=tmp_path / "log")
    data = tar_bytes(files)
    third = data.index(files[4][0].encode())
    job.give(data[:third])
    assert select.select([job.output], [], [], 120)[0], job.stderr
    assert b"c00.latent" in job.take(200)
    job.finish(data[third:])
    assert job.wait() == 3


def test_clips_that_came_back_are_those_that_went_in(stores, folder, tmp_path):
    decode(stores / "webdataset", tmp_path / "out")
    for key in ("a/c00", "b/c04"):
        path = tmp_path / "out" / f"{key}.mp4"
        assert frames_of(path) == frames_of(folder / path.name)
