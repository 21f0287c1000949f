"""`decode` with a tar stream at either end: every picture in its place, with all it came with."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess

import numpy as np
import pytest
import torch
from jobkit import decode, encode, encode_job, environment, pictures_of
from PIL import Image
from safetensors.torch import load, save
from tarjobkit import (
    Forked,
    command,
    encode_words,
    has_end,
    make_tar,
    members,
    read_tar,
    standard_streams,
    tar_bytes,
    unpacked,
)

import latentcli.jobs.decode.to_stdout as decode_pipe
from latentcli.cli.app import main
from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.decode.job import run_decode
from latentcli.jobs.encode.job import run_encode

SECONDS = 10.0


def encoded(folder, data, model, **options):
    """What `encode - -o -` makes of a tar."""
    with standard_streams(folder, data) as ends:
        run_encode(encode_job("-", "-", model, **{"samples_per_shard": None} | options))
    return ends.output


def decode_here(folder, data, output="-", store="-", **options):
    """The job in this process, with these bytes on standard input: (document, what it wrote)."""
    settings = {"store": str(store), "output": str(output), "device": "cpu"} | options
    with standard_streams(folder, data) as ends:
        document = run_decode(DecodeJob(**settings))
    return document, ends.output


def pixels_in(data):
    """Pixels of every picture of a tar."""
    return {
        name.removesuffix(".png"): np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        for name, file in read_tar(data).items()
        if name.endswith(".png")
    }


@pytest.fixture(scope="module")
def tar():
    return tar_bytes(members(20))


@pytest.fixture(scope="module")
def latents(tar, model, tmp_path_factory):
    return encoded(tmp_path_factory.mktemp("latents"), tar, model)


@pytest.fixture(scope="module")
def reference(model, tmp_path_factory):
    """The pictures that a store of the same pictures in a folder gives, and a tar of them."""
    folder = tmp_path_factory.mktemp("reference")
    make_tar(folder / "a.tar", members(20))
    pictures = [file for file in members(20) if file[0].endswith("png")]
    source = unpacked(pictures, folder / "pictures")
    encode(source, folder / "store", model, samples_per_shard=100)
    decode(folder / "store", folder / "out")
    return folder


def same(found, expected):
    assert found.keys() == expected.keys()
    for key in expected:
        assert np.array_equal(found[key], expected[key]), key


def test_pictures_come_in_order_with_what_was_passed_on(latents, tar, reference, tmp_path):
    document, data = decode_here(tmp_path, latents)
    assert (document["decoded"], document["failed"], document["output"]) == (20, 0, "-")
    found, given = read_tar(data), read_tar(tar)
    assert list(found) == [f"{n:04d}.{f}" for n in range(20) for f in ("png", "txt", "json")]
    assert {n: d for n, d in found.items() if not n.endswith("png")} == {
        n: d for n, d in given.items() if not n.endswith("png")
    }
    assert has_end(data)
    same(pixels_in(data), pictures_of(reference / "out"))


def test_a_stream_to_a_folder(latents, reference, tmp_path):
    document, written = decode_here(tmp_path, latents, tmp_path / "out")
    assert (document["decoded"], written) == (20, b"")
    same(pictures_of(tmp_path / "out"), pictures_of(reference / "out"))
    again, _ = decode_here(tmp_path, latents, tmp_path / "out", skip_existing=True)
    assert (again["decoded"], again["skipped"]) == (0, 20)


@pytest.mark.parametrize(
    ("form", "suffix"), [("safetensors", ".safetensors"), ("webdataset", ".tar")]
)
def test_a_store_to_a_stream(reference, model, tmp_path, form, suffix):
    store = tmp_path / "store"
    encode(reference / "a.tar", store, model, samples_per_shard=None, shard_format=form)
    _, data = decode_here(tmp_path, None, store=store)
    fields = ("png", "txt", "json") if form == "webdataset" else ("png",)
    assert list(read_tar(data)) == [f"a/{n:04d}.{f}" for n in range(20) for f in fields]
    decode(store, tmp_path / "out")
    same(pixels_in(data), pictures_of(tmp_path / "out"))
    shard = store / "shards" / f"000000{suffix}"
    assert decode_here(tmp_path, None, store=shard)[1] == data
    if form == "webdataset":
        assert decode_here(tmp_path, shard.read_bytes())[1] == data


def test_shards_of_a_store_behind_each_other_are_the_store(model, tmp_path):
    for name in "ab":
        make_tar(tmp_path / "tars" / f"{name}.tar", members(3))
    options = {"samples_per_shard": None, "shard_format": "webdataset"}
    encode(tmp_path / "tars", tmp_path / "store", model, **options)
    shards = [path.read_bytes() for path in sorted((tmp_path / "store" / "shards").glob("*.tar"))]
    document, data = decode_here(tmp_path, b"".join(shards))
    assert (document["decoded"], document["failed"]) == (6, 0)
    assert data == decode_here(tmp_path, None, store=tmp_path / "store")[1]
    twice, _ = decode_here(tmp_path, shards[0] + shards[0])
    assert (twice["decoded"], twice["failed"]) == (3, 3)
    assert "is in this stream twice" in twice["failures"][0]["error"]


def test_the_stream_is_the_same_however_little_is_held(latents, tmp_path, monkeypatch):
    """All of one size: batches do not change. The order never does."""
    whole = decode_here(tmp_path, latents)[1]
    monkeypatch.setattr(decode_pipe, "SHARE_BYTES", 30_000)
    less = decode_here(tmp_path, latents)[1]
    assert list(read_tar(less)) == list(read_tar(whole))
    for key, value in pixels_in(less).items():
        assert np.abs(value.astype(int) - pixels_in(whole)[key]).max() <= 1


@pytest.mark.parametrize("options", [{"latents": "moments"}, {"latents": "raw"}, {"flip": "both"}])
def test_latents_of_every_state(tar, model, reference, tmp_path, options):
    stream = encoded(tmp_path, tar, model, **options)
    document, data = decode_here(tmp_path, stream)
    assert (document["decoded"], document["failed"]) == (20, 0)
    expected = pictures_of(reference / "out")
    for key, value in pixels_in(data).items():
        assert np.abs(value.astype(int) - expected[key]).mean() < 3


def test_keys_with_dots_and_percent_signs_come_back(model, tmp_path):
    files = members(3, size=(64, 64))
    names = ["a-b/x.1", "%41 b", "c%2Ed.e"]
    given = [
        (f"{names[i // 3]}.{name.partition('.')[2]}", data) for i, (name, data) in enumerate(files)
    ]
    stream = encoded(tmp_path, tar_bytes(given), model)
    document, _ = decode_here(tmp_path, stream, tmp_path / "out")
    assert document["decoded"] == 3
    pictures = unpacked([f for f in given if f[0].endswith("png")], tmp_path / "in")
    encode(pictures, tmp_path / "store", model)
    decode(tmp_path / "store", tmp_path / "expected")
    same(pictures_of(tmp_path / "out"), pictures_of(tmp_path / "expected"))


def test_samples_that_came_alone_keep_their_keys(model, tmp_path):
    """Nothing but latents beside each other: webdataset's rule still parts key and field."""
    files = [(name, data) for name, data in members(4) if name.endswith("png")]
    stream = encoded(tmp_path, tar_bytes(files), model)
    assert list(read_tar(decode_here(tmp_path, stream)[1])) == [f"{n:04d}.png" for n in range(4)]


def test_members_that_look_like_latents_or_like_the_picture_survive(model, tmp_path):
    files = [
        (f"{n:04d}.{field}", data)
        for n in range(3)
        for field, data in (
            ("jpg", members(1, first=n)[0][1]),
            ("png", b"a mask"),
            ("depth.safetensors", save({"depth": torch.ones(2)})),
            ("seg.map", b"map"),
        )
    ]
    # Nothing but the job can say which of the two is the picture.
    stream = encoded(tmp_path, tar_bytes(files), model, image_field="jpg")
    document, data = decode_here(tmp_path, stream)
    assert (document["decoded"], document["failed"]) == (3, 0)
    found = read_tar(data)
    fields = ("png", "source.png", "depth.safetensors", "seg.map")
    assert list(found) == [f"{n:04d}.{field}" for n in range(3) for field in fields]
    assert found["0001.source.png"] == b"a mask"
    assert load(found["0001.depth.safetensors"])["depth"].shape == (2,)


def foreign(count=3, shape=(8, 4, 4)):
    """A tar of latents that say nothing of themselves."""
    draw = torch.Generator().manual_seed(0)
    return [
        (f"{n}.{field}", data)
        for n in range(count)
        for field, data in (
            ("safetensors", save({"z": torch.randn(shape, generator=draw)})),
            ("cls", b"7"),
        )
    ]


def test_foreign_latents_need_a_model(model, tmp_path):
    data = tar_bytes(foreign())
    with pytest.raises(UsageError, match="The stream does not say which model made it"):
        decode_here(tmp_path, data)
    document, written = decode_here(tmp_path, data, model=model)
    assert document["decoded"] == 3
    assert list(read_tar(written)) == [f"{n}.{f}" for n in range(3) for f in ("png", "cls")]
    named = [(f"a%2E{name}", file) for name, file in foreign()]
    _, written = decode_here(tmp_path, tar_bytes(named), model=model)
    assert list(read_tar(written))[::2] == [f"a%2E{n}.png" for n in range(3)]
    decode_here(tmp_path, tar_bytes(named), tmp_path / "out", model=model)
    assert (tmp_path / "out" / "a.2.png").is_file()
    raw, _ = decode_here(tmp_path, data, model=model, latents="raw")
    assert raw["decoded"] == 3


def test_latents_of_another_model_are_refused(latents, other_model, model, tmp_path):
    with pytest.raises(UsageError, match="holds latents of"):
        decode_here(tmp_path, latents, model=other_model)
    other = encoded(tmp_path, tar_bytes(members(2, first=50)), other_model)
    document, data = decode_here(tmp_path, latents[:-1024] + other)
    assert (document["decoded"], document["failed"]) == (20, 2)
    assert "the stream began with those of" in document["failures"][0]["error"]
    assert len(pixels_in(data)) == 20


def retold(file, tensors=None, **changes):
    """A safetensors file with other metadata or tensors."""
    size = int.from_bytes(file[:8], "little")
    told = json.loads(file[8 : 8 + size])["__metadata__"]
    return save(load(file) if tensors is None else tensors, told | changes)


def damaged(data):
    """The stream with samples 3 (no header), 5 (no latent), 7 (not finite) and 9 (no file) hurt."""
    files = read_tar(data)
    names = {number: f"{number:04d}.latent.safetensors" for number in (3, 5, 7, 9)}
    files[names[3]] = b"\xff" * 100
    files[names[5]] = retold(files[names[5]], {"a": torch.ones(2), "b": torch.ones(2)})
    spoilt = load(files[names[7]])
    spoilt["latent"][0, 0, 0] = float("nan")
    files[names[7]] = retold(files[names[7]], spoilt)
    del files[names[9]]
    return tar_bytes(files.items())


def test_damaged_members_are_failed_rows(latents, tmp_path):
    with standard_streams(tmp_path, damaged(latents)) as ends:
        assert main(["decode", "-", "-o", "-", "--device", "cpu"]) == 3
    assert list(pixels_in(ends.output)) == [f"{n:04d}" for n in range(20) if n not in (3, 5, 7, 9)]
    assert {name[:4] for name in read_tar(ends.output)}.isdisjoint({"0003", "0005", "0007", "0009"})
    document, _ = decode_here(tmp_path, damaged(latents), tmp_path / "out")
    failed = {failure["key"]: failure["error"] for failure in document["failures"]}
    assert sorted(failed) == ["0003", "0005", "0007", "0009"]
    assert "its latents are damaged" in failed["0003"]
    assert "holds no latent [C, h, w], only a [2], b [2]" in failed["0005"]
    assert "not finite" in failed["0007"]
    assert "no .safetensors file" in failed["0009"]


def test_a_stream_that_was_cut(latents, tmp_path):
    cut = latents.index(b"0006.latent.safetensors") + 700
    document, data = decode_here(tmp_path, latents[:cut])
    assert (document["decoded"], document["failed"]) == (6, 1)
    assert len(read_tar(data)) == 18
    assert has_end(data)


@pytest.mark.parametrize("data", [b"", bytes(1024), b"text" * 300, tar_bytes(members(2))])
def test_a_stream_without_latents_is_an_error(tmp_path, data):
    with pytest.raises(StoreError, match="Standard input holds no latents"):
        decode_here(tmp_path, data)


def test_keys_that_would_leave_the_folder_are_refused(latents, tmp_path):
    files = read_tar(latents)
    keys = ("../../evil", "/etc/evil", "ok")
    renamed = [
        (f"{n}.latent.safetensors", retold(files[f"{n:04d}.latent.safetensors"], key=keys[n]))
        for n in range(3)
    ]
    out = tmp_path / "deep" / "out"
    document, _ = decode_here(tmp_path, tar_bytes(renamed), out)
    assert (document["decoded"], document["failed"]) == (1, 2)
    assert "leave the output folder" in document["failures"][0]["error"]
    assert not list(tmp_path.rglob("evil*"))
    assert list(read_tar(decode_here(tmp_path, tar_bytes(renamed))[1])) == ["ok.png"]


def test_a_reader_that_closes_early_ends_the_job(latents, tmp_path):
    words = ("decode", "-", "-o", "-", "--device", "cpu", "--batch-size", 1)
    job = Forked(*words, log=tmp_path / "log")
    job.give_beside(latents[:-2048])
    assert len(job.take(1000)) == 1000
    os.close(job.output)
    assert job.wait(SECONDS) == 1
    assert "The reader of standard output closed it after" in job.stderr
    assert "Traceback" not in job.stderr
    job.end()


@pytest.mark.parametrize("given", [0, 30_000])
@pytest.mark.parametrize("output", ["-", "folder"])
def test_a_signal_ends_the_job_while_the_writer_is_silent(latents, tmp_path, given, output):
    target = "-" if output == "-" else tmp_path / "out"
    job = Forked("decode", "-", "-o", target, "--device", "cpu", log=tmp_path / "log")
    job.give(latents[:given])
    job.settle()
    os.kill(job.pid, signal.SIGTERM)
    assert job.wait(SECONDS) == 75, job.stderr
    assert "Stopped by SIGTERM. Run the" in job.stderr
    job.end()
    os.close(job.output)


def test_pictures_go_out_while_the_writer_is_slow(latents, tmp_path):
    words = ("decode", "-", "-o", "-", "--device", "cpu", "--batch-size", 1)
    job = Forked(*words, log=tmp_path / "log")
    job.give(latents[: latents.index(b"0004.latent.safetensors")])
    found = b""
    while b"0002.png" not in found:
        found += job.take(512)
    job.give(latents[latents.index(b"0004.latent.safetensors") :])
    job.end()
    while os.read(job.output, 2**20):
        pass
    assert job.wait() == 0


def test_a_real_pipeline(tar, latents, model, tmp_path):
    (tmp_path / "a.tar").write_bytes(tar)
    ours = " ".join(command())
    words = " ".join(map(str, encode_words(model)))
    line = f"cat a.tar | {ours} encode - -o - {words} | {ours} decode - -o - --device cpu"
    job = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        cwd=tmp_path,
        env=environment(),
        timeout=120,
    )
    assert job.returncode == 0, job.stderr.decode()
    assert job.stdout == decode_here(tmp_path, latents)[1]


def test_only_a_folder_can_have_what_is_there_already(latents, tmp_path):
    with pytest.raises(UsageError, match="--skip-existing"):
        decode_here(tmp_path, latents, skip_existing=True)


def test_pictures_that_a_format_cannot_hold_are_failed_rows(tmp_path, model):
    """WebP ends at 16383 pixels a side."""
    wide = [("0.safetensors", save({"z": torch.zeros(8, 1, 1025)})), *foreign(2, (8, 1, 2))[2:]]
    document, data = decode_here(tmp_path, tar_bytes(wide), model=model, format="webp")
    assert (document["decoded"], document["failed"]) == (1, 1)
    assert list(read_tar(data)) == ["1.webp", "1.cls"]


def test_webdataset_reads_the_pictures(latents, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "out.tar").write_bytes(decode_here(tmp_path, latents)[1])
    data = webdataset.WebDataset(str(tmp_path / "out.tar"), shardshuffle=False).decode("rgb8")
    samples = list(data)
    assert [sample["__key__"] for sample in samples] == [f"{n:04d}" for n in range(20)]
    assert samples[2]["png"].shape == (64, 64, 3)
    assert samples[2]["json"] == {"number": 2}
