"""The encode job with --decode-on gpu, from files to a store; a CPU plays the device."""

from __future__ import annotations

import pytest
import torch
from decodekit import BAD, OTHERS, PLAIN, folder_of, jpeg, use_cpu_as_device
from encodekit import LINEAR, watch
from jobkit import encode, encode_job, failures_of, latents_of, rows_of, tree

from latentcli.core.errors import SelfCheckError, StoreError, UsageError
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.inference.jpeg_decoder import JpegDecoder
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.encode_command import encode_words
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.store.manifest import read_manifest

GPU = {"decode_on": "gpu"}
SIZED = {"size": "64x48", "batch_size": 4, "samples_per_shard": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that a device decodes between others, and bad ones."""
    return folder_of(tmp_path_factory.mktemp("decode-on") / "in", PLAIN, OTHERS, BAD)


@pytest.fixture
def device(monkeypatch):
    use_cpu_as_device(monkeypatch)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """RMS of the difference over RMS."""
    difference = (one.float() - other.float()).square().mean().sqrt()
    return float(difference / other.float().square().mean().sqrt())


@pytest.mark.parametrize("options", [SIZED, {}, SIZED | {"flip": "both"}])
def test_rows_and_failures_are_those_of_the_cpu(folder, tmp_path, device, options):
    here = encode(folder, tmp_path / "cpu", LINEAR, **options)
    there = encode(folder, tmp_path / "gpu", LINEAR, **options, **GPU)
    assert rows_of(tmp_path / "gpu") == rows_of(tmp_path / "cpu")
    assert failures_of(tmp_path / "gpu") == failures_of(tmp_path / "cpu") != {}
    counts = ("encoded", "failed", "skipped")
    assert [here[name] for name in counts] == [there[name] for name in counts]
    cpu, gpu = latents_of(tmp_path / "cpu"), latents_of(tmp_path / "gpu")
    assert cpu.keys() == gpu.keys()
    assert all(relative(gpu[key], cpu[key]) < 0.02 for key in cpu)


def test_batches_are_those_of_the_cpu(folder, tmp_path, device, monkeypatch):
    seen = watch(monkeypatch)
    encode(folder, tmp_path / "cpu", LINEAR)
    here = [*seen.done]
    seen.done.clear()
    encode(folder, tmp_path / "gpu", LINEAR, **GPU)
    assert seen.done == here


@pytest.mark.parametrize("options", [SIZED, {}])
def test_workers_change_no_byte(folder, tmp_path, device, options):
    for workers in (0, 1, 3):
        encode(folder, tmp_path / str(workers), LINEAR, **options, **GPU, workers=workers)
    expected = tree(tmp_path / "0" / "shards")
    assert tree(tmp_path / "1" / "shards") == tree(tmp_path / "3" / "shards") == expected


def test_too_little_memory_halves_the_batch(folder, tmp_path, device, monkeypatch):
    encode(folder, tmp_path / "whole", LINEAR, **SIZED, **GPU)
    notes: list[str] = []
    seen = watch(monkeypatch, most=1)
    encode(folder, tmp_path / "split", LINEAR, Reporter(note=notes.append), **SIZED, **GPU)
    assert {shape[0] for shape in seen.done} == {1}
    assert any("ran out of memory on 4 pictures of 64x48" in note for note in notes)
    whole, split = latents_of(tmp_path / "whole"), latents_of(tmp_path / "split")
    assert all(torch.equal(whole[key], split[key]) for key in whole)


def test_what_the_device_leaves_to_the_cpu_is_told(tmp_path, device, monkeypatch):
    source = folder_of(tmp_path / "in", {"a": jpeg(), "b": jpeg(quality=70), "c": jpeg(quality=60)})
    notes: list[str] = []
    encode(source, tmp_path / "all", LINEAR, Reporter(note=notes.append), **SIZED, **GPU)
    assert not any("left" in note for note in notes)
    decode = JpegDecoder.decode

    def short(self, files):
        return [None, *decode(self, files)[1:]]

    monkeypatch.setattr(JpegDecoder, "decode", short)
    encode(source, tmp_path / "some", LINEAR, Reporter(note=notes.append), **SIZED, **GPU)
    (note,) = (note for note in notes if "left" in note)
    assert note.startswith("The GPU left 1 of 3 JPEG files to the CPU: its decoder refused them,")


def test_a_picture_that_does_not_fit_alone_fails(tmp_path, device, monkeypatch):
    source = folder_of(tmp_path / "in", {"a": jpeg(), "b": jpeg()})
    watch(monkeypatch, most=0)
    encode(source, tmp_path / "store", LINEAR, **SIZED, **GPU)
    errors = {row["error"] for row in failures_of(tmp_path / "store").values()}
    assert errors == {"the device ran out of memory on a picture of 64x48"}


def test_on_error_stop_says_what_the_cpu_says(folder, tmp_path, device):
    said = []
    for name, options in (("cpu", {}), ("gpu", GPU)):
        with pytest.raises(Exception) as caught:
            encode(folder, tmp_path / name, LINEAR, **SIZED, **options, on_error="stop")
        said.append((type(caught.value), str(caught.value).replace(str(tmp_path / name), "")))
    assert said[0] == said[1]


def test_a_store_is_gone_on_with_where_its_files_were_decoded(tmp_path, device):
    source = folder_of(tmp_path / "in", {"a": jpeg(), "b": jpeg(quality=70)})
    usual, there = tmp_path / "usual", tmp_path / "there"
    encode(source, usual, LINEAR, **SIZED)
    encode(source, there, LINEAR, **SIZED, **GPU)
    assert "on" not in read_manifest(usual).spec["decode_image"]
    assert read_manifest(there).spec["decode_image"]["on"] == "gpu"
    assert "--decode-on gpu" in " ".join(encode_words(read_manifest(there), ["in"], "out"))
    assert "--decode-on" not in encode_words(read_manifest(usual), ["in"], "out")
    folder_of(source, {"c": jpeg(quality=60)})
    assert encode(source, there, LINEAR, **SIZED)["encoded"] == 1
    anew = tmp_path / "anew"
    encode(source, anew, LINEAR, **SIZED, **GPU)
    told, expected = latents_of(there), latents_of(anew)
    assert all(torch.equal(told[key], expected[key]) for key in expected)
    for store, where, words in (
        (usual, "gpu", "decode_image.on is None in the store and 'gpu' now"),
        (there, "cpu", "decode_image.on is 'gpu' in the store and None now"),
    ):
        before = tree(store)
        with pytest.raises(StoreError, match=words):
            encode(source, store, LINEAR, **SIZED, decode_on=where)
        assert tree(store) == before


def test_a_store_of_a_device_is_not_gone_on_with_without_one(tmp_path, monkeypatch):
    source = folder_of(tmp_path / "in", {"a": jpeg()})
    with monkeypatch.context() as patch:
        use_cpu_as_device(patch)
        encode(source, tmp_path / "store", LINEAR, **SIZED, **GPU)
    folder_of(source, {"b": jpeg()})
    with pytest.raises(UsageError, match=r"kept from the existing store\), but the model runs"):
        encode(source, tmp_path / "store", LINEAR, **SIZED)


def test_the_self_check_and_the_probe(folder, tmp_path, device):
    store = tmp_path / "store"
    said = run_encode(encode_job(folder, store, LINEAR, **SIZED, **GPU, dry_run=True))
    on_cpu = run_encode(encode_job(folder, tmp_path / "cpu", LINEAR, **SIZED, dry_run=True))
    assert said["bytes"] == on_cpu["bytes"] and said["failed"] == on_cpu["failed"] > 0
    assert said["probe"]["inputs"] == on_cpu["probe"]["inputs"] > len(PLAIN)
    encode(folder, store, LINEAR, **SIZED, **GPU, self_check=True)
    checked = read_manifest(store).self_check
    assert len(checked["keys"]) == 4 and checked["finite"]


def test_a_device_that_decodes_other_pictures_is_found_out(folder, tmp_path, device, monkeypatch):
    decode = JpegDecoder.decode

    def swapped(self, files):
        return [None if whole is None else whole.flip(0) for whole in decode(self, files)]

    monkeypatch.setattr(JpegDecoder, "decode", swapped)
    with pytest.raises(SelfCheckError, match="the device and the CPU decode"):
        encode(folder, tmp_path / "store", LINEAR, **SIZED, **GPU, self_check=True)
    assert not [*(tmp_path / "store" / "shards").glob("*")]


def test_a_store_of_a_device_is_verified_by_a_cpu(folder, tmp_path, device):
    encode(folder, tmp_path / "store", LINEAR, **SIZED, **GPU)
    found = run_verify(VerifyJob(store=str(tmp_path / "store"), device="cpu", samples=16))
    assert found["ok"] and found["reencoded"]["tolerance"] == 0.08
    assert found["reencoded"]["max_relative_rms"] < 0.02


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_memory": "8GiB"}, "takes memory that --max-memory would not count"),
        ({"engine": "ray"}, "is not for --engine ray"),
        ({}, "only CUDA devices decode JPEG files. Leave it out"),
    ],
)
def test_what_cannot_be(options, words, mixed, tmp_path):
    with pytest.raises(UsageError, match=words):
        encode(mixed, tmp_path / "store", LINEAR, **GPU, **options)
    assert not (tmp_path / "store").exists()
