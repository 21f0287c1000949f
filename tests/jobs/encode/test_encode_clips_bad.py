"""Clips that break off become rows, and nothing else; a damaged store of clips is seen to be so."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from clipkit import MODEL, NUMBERS, clips_in, cut, frames_of, unfinished
from harness.clip_files import make_clip, sound_only
from jobkit import decode, encode, failures_of, latents_of, rows_of, tree
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from latentcli.core.errors import LatentCliError
from latentcli.core.store_dtype import Arrived
from latentcli.core.types import Row
from latentcli.images.clip_writer import ClipWriter
from latentcli.jobs.encode import clip_stream
from latentcli.jobs.runtime.meter import Snapshot
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.latent_store import open_store
from latentcli.jobs.store.verify import clips as first_frames
from latentcli.jobs.store.verify import run_verify
from latentcli.models.linear import LinearAutoencoder
from latentcli.shards.store.manifest import read_manifest
from latentcli.shards.store.verify import verify_shards

SOUND = (7, 12, 9)


def add_bad(folder: Path) -> Path:
    """Three inputs that cannot be read to their end, one of them only after some frames."""
    long = make_clip(folder.parent / "long.mp4", 60)
    cut(long, folder / "c00cut.mp4")
    (folder / "notes.mp4").write_text("These are no frames.\n" * 50)
    sound_only(folder / "sound.mp4")
    return folder


def test_broken_clips_become_rows_and_nothing_else(tmp_path):
    sound = clips_in(tmp_path / "sound", SOUND)
    mixed = add_bad(clips_in(tmp_path / "mixed", SOUND))
    encode(sound, tmp_path / "reference", MODEL)
    told = encode(mixed, tmp_path / "store", MODEL)
    assert (told["encoded"], told["failed"], told["frames"]) == (3, 3, sum(SOUND))
    failures = failures_of(tmp_path / "store")
    assert {key: row["stage"] for key, row in failures.items()} == dict.fromkeys(
        ("c00cut", "notes", "sound"), "decode_image"
    )
    assert "cut short after" in failures["c00cut"]["error"]
    assert "not a video" in failures["notes"]["error"]
    assert "there is audio" in failures["sound"]["error"]
    expected, found = latents_of(tmp_path / "reference"), latents_of(tmp_path / "store")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert unfinished(tmp_path / "store") == []
    statistics = [read_manifest(tmp_path / name).channels for name in ("reference", "store")]
    for name in ("mean", "std"):
        first, second = (told[name] for told in statistics)
        assert second == pytest.approx(first, rel=1e-12, abs=1e-12)
    assert list(verify_shards(tmp_path / "store")) == []


def test_a_clip_with_a_gap_in_its_times_has_a_note(tmp_path):
    folder = clips_in(tmp_path / "clips", (6,))
    steady = "bframes=0:scenecut=0:keyint=4"
    times = [*range(0, 800, 40), 2000]
    make_clip(folder / "gap.ts", 21, times=times, options={"x264-params": steady})
    told = encode(folder, tmp_path / "store", MODEL)
    assert (told["encoded"], told["failed"]) == (2, 0)
    notes = {row["key"]: row.get("notes", []) for row in rows_of(tmp_path / "store")}
    (note,) = notes.pop("gap")
    assert "follow each other, others are 0.04 s apart" in note and notes == {"c00": []}


def test_a_broken_clip_has_frames_before_the_break(tmp_path):
    """Else the test above would not see whether they are taken back."""
    source = add_bad(clips_in(tmp_path / "mixed", SOUND)) / "c00cut.mp4"
    encode(source, tmp_path / "store", MODEL)
    reason = failures_of(tmp_path / "store")["c00cut"]["error"]
    assert int(reason.split("after ")[1].split()[0]) > 3


@pytest.mark.parametrize("late", [False, True], ids=["packed at once", "packed late"])
def test_a_clip_fails_with_what_was_wrong_first(tmp_path, monkeypatch, late):
    """Of frames that are not finite and later ones without memory, whoever comes first to say so.

    Late, the packer looks at the first frames when the next clip is already being encoded.
    """
    source = clips_in(tmp_path / "clips", (6,))
    make_clip(source / "c01.mp4", 3, size=(96, 64))
    batches, next_clip = [], threading.Event()
    inner, arrived = LinearAutoencoder.encode, clip_stream.arrived

    def encode_linear(self: LinearAutoencoder, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] == 96:
            next_clip.set()
            return inner(self, images)
        batches.append(len(images))
        if len(batches) == 1:
            return inner(self, images) * torch.nan
        raise torch.OutOfMemoryError("CUDA out of memory")

    def look(parts: dict[str, torch.Tensor]) -> Arrived:
        assert not late or next_clip.wait(60)
        return arrived(parts)

    monkeypatch.setattr(LinearAutoencoder, "encode", encode_linear)
    monkeypatch.setattr(clip_stream, "arrived", look)
    told = encode(source, tmp_path / "store", MODEL)
    assert (told["encoded"], told["failed"]) == (1, 1)
    assert "of frame 0 is not finite" in failures_of(tmp_path / "store")["c00"]["error"]


def test_a_failed_clip_is_encoded_once_it_is_sound(tmp_path):
    source, store = clips_in(tmp_path / "clips", SOUND), tmp_path / "store"
    whole = make_clip(source / "c00cut.mp4", 30)
    encode(source, tmp_path / "reference", MODEL, samples_per_shard=2)
    data, times = whole.read_bytes(), whole.stat()
    cut(whole, source / "c00cut.mp4")
    assert encode(source, store, MODEL, samples_per_shard=2)["failed"] == 1
    whole.write_bytes(data)
    os.utime(whole, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert encode(source, store, MODEL, samples_per_shard=2, retry="none")["failed"] == 1
    told = encode(source, store, MODEL, samples_per_shard=2)
    assert (told["failed"], told["encoded"]) == (0, 1)
    assert tree(store) == tree(tmp_path / "reference")


def test_the_job_stops_at_the_first_failure_where_told(tmp_path):
    source, store = add_bad(clips_in(tmp_path / "clips", SOUND)), tmp_path / "store"
    with pytest.raises(LatentCliError, match=r"c00cut\.mp4 failed at decode_image"):
        encode(source, store, MODEL, samples_per_shard=1, on_error="stop")
    assert sorted(path.name for path in (store / "shards").iterdir()) == [
        "000000.json",
        "000000.safetensors",
    ]


def test_a_store_of_failures_alone(tmp_path):
    (tmp_path / "clips").mkdir()
    sound_only(tmp_path / "clips" / "a.mp4")
    (tmp_path / "clips" / "b.mp4").touch()
    notes: list[str] = []
    reporter = Reporter(note=notes.append)
    told = encode(tmp_path / "clips", tmp_path / "store", MODEL, reporter, self_check=True)
    assert (told["encoded"], told["failed"], told["frames"]) == (0, 2, 0)
    assert notes == ["None of the first inputs can be read, so the self-check was skipped."]
    told = decode(tmp_path / "store", tmp_path / "out")
    assert (told["decoded"], told["failed"]) == (0, 0)
    assert tree(tmp_path / "out") == {}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return clips_in(tmp_path_factory.mktemp("clips"))


def verify(store: Path, **options: object) -> dict:
    return run_verify(VerifyJob(store=str(store), device="cpu", **options))


@pytest.fixture
def own(tmp_path):
    """Clips and their store, to be damaged."""
    source = clips_in(tmp_path / "clips")
    encode(source, tmp_path / "store", MODEL, samples_per_shard=2)
    return source, tmp_path / "store"


@pytest.mark.parametrize("options", [{}, {"latents": "raw"}, {"stride": 2}, {"frames": 3}])
def test_a_sound_store_of_clips(options, clips, tmp_path):
    encode(clips, tmp_path / "store", MODEL, **options)
    found = verify(tmp_path / "store")
    assert (found["ok"], found["problems"], found["encoded"]) == (True, [], len(NUMBERS))
    assert found["reencoded"]["samples"] == len(NUMBERS)
    assert found["reencoded"]["max_relative_rms"] < 0.01


@pytest.mark.parametrize("options", [{"latents": "moments"}, {"sample": 3}])
def test_a_sound_store_of_posteriors(options, clips, model, tmp_path):
    encode(clips, tmp_path / "store", model, **options)
    assert verify(tmp_path / "store")["problems"] == []


def test_frames_that_do_not_fit_together_are_verified_in_pieces(own, monkeypatch):
    inner = LinearAutoencoder._posterior

    def limited(self, images):
        if len(images) > 2:
            raise RuntimeError("CUDA error: out of memory")
        return inner(self, images)

    monkeypatch.setattr(LinearAutoencoder, "_posterior", limited)
    found = verify(own[1])
    assert (found["problems"], found["reencoded"]["samples"]) == ([], len(NUMBERS))


def problems(store: Path) -> list[str]:
    found = verify(store)
    assert not found["ok"]
    return [item["problem"] for item in found["problems"]]


def test_a_damaged_shard(own):
    _, store = own
    shard = store / "shards" / "000001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-9000] ^= 1
    shard.write_bytes(data)
    (found,) = problems(store)
    assert "000001.safetensors is not what was written" in found


def test_clips_that_are_others_now(own):
    source, store = own
    noise = torch.randint(256, (3, 64, 128), dtype=torch.uint8)
    with ClipWriter(source / "c03.mp4", (128, 64), Fraction(25), Fraction(1, 25)) as writer:
        for index in range(9):
            writer.add(noise, index)
    make_clip(source / "c01.mp4", 4, size=(96, 64))
    found = verify(store)
    assert found["ok"] and found["reencoded"]["changed"] == 2
    assert found["sources"]["changed_examples"] == [str(source / f"c0{n}.mp4") for n in (1, 3)]


def test_clips_that_cannot_be_read_any_more(own):
    source, store = own
    (source / "c00.mp4").unlink()
    (source / "c04.mp4").write_text("no frames")
    found = verify(store)
    assert found["ok"] and found["reencoded"]["unreadable"] == 2
    assert found["sources"]["gone_examples"] == [str(source / "c00.mp4")]
    assert found["sources"]["changed_examples"] == [str(source / "c04.mp4")]


def test_a_renamed_clip_keeps_its_latents(own):
    source, store = own
    (source / "c03.mp4").rename(source / "d.mp4")
    found = encode(source, store, MODEL, samples_per_shard=2)
    assert (found["encoded"], found["renamed"]) == (0, 1)
    assert "d" in open_store(store) and verify(store)["problems"] == []


def test_a_shard_that_is_cut_short_is_not_decoded(own, tmp_path):
    _, store = own
    shard = store / "shards" / "000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    found = decode(store, tmp_path / "out")
    assert {failure["unit"] for failure in found["failures"]} == {1} and found["failed"] == 2
    assert all("bytes" in failure["error"] for failure in found["failures"]), found["failures"]
    assert found["decoded"] == len(NUMBERS) - 2 and unfinished(tmp_path / "out") == []


def test_latents_that_are_not_finite_fail_one_clip(own, tmp_path):
    _, store = own
    fill_with_nan(store / "shards" / "000000.safetensors", "c01/latent", frame=2)
    told = decode(store, tmp_path / "out")
    assert (told["decoded"], told["failed"]) == (len(NUMBERS) - 1, 1)
    assert told["failures"][0]["key"] == "c01"
    assert "not finite" in told["failures"][0]["error"]
    assert not (tmp_path / "out" / "c01.mp4").exists()
    assert unfinished(tmp_path / "out") == []
    assert len(frames_of(tmp_path / "out" / "c00.mp4")) == NUMBERS[0]


def fill_with_nan(shard: Path, name: str, frame: int) -> None:
    """Makes one frame of a stored clip worthless, the file's form staying sound."""
    with safe_open(shard, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(shard)
    tensors[name][frame] = torch.nan
    save_file(tensors, shard, metadata)


def test_clips_are_what_verify_counts(own):
    seen: list[Snapshot] = []
    run_verify(VerifyJob(store=str(own[1]), device="cpu"), Reporter(progress=seen.append))
    assert (seen[-1].noun, seen[-1].total) == ("clips", len(NUMBERS))


def test_large_frames_are_verified_a_few_at_a_time(tmp_path):
    """No more pixels at once than a batch of eight pictures of a megapixel has."""
    make_clip(tmp_path / "large.mp4", 3, size=(2048, 2048))
    row = Row("large", str(tmp_path / "large.mp4"), "ok")
    spec = {
        "clips": {"stride": 1, "frames": None},
        "decode_image": {"max_pixels": 10**8},
        "preprocess": {"size": None, "divisor": 16, "filter": None},
    }
    ((_, pixels),) = first_frames([row], spec)
    assert pixels is not None and pixels.shape == (2, 3, 2048, 2048)
