"""What is stored of a clip, or of a folder of them, is what its frames give as pictures."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from clipkit import (
    MODEL,
    NUMBERS,
    as_pictures,
    clips_in,
    frames_of,
)
from harness.clip_files import make_clip
from jobkit import decode, encode, latents_of, rows_of, toy_pictures, tree
from PIL import Image

import latentcli
from latentcli.core.errors import StoreError, UsageError
from latentcli.images.clips import open_clip
from latentcli.jobs.runtime.meter import Snapshot
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.inspect import inspect_store
from latentcli.shards.store.manifest import read_manifest

ODD = 11


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "odd.mp4", ODD)


@pytest.fixture(scope="module")
def store(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "odd"
    encode(clip, path, MODEL)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clips_in(tmp_path_factory.mktemp("clips"))


def test_what_is_stored_of_a_clip(clip, store):
    parts = latents_of(store)
    assert set(parts) == {"odd/latent", "odd/times", "odd/clock"}
    assert parts["odd/latent"].shape == (ODD, 128, 4, 8)
    assert parts["odd/latent"].dtype == torch.bfloat16
    with open_clip(str(clip), max_pixels=10**6) as opened:
        info, times = opened.info, [frame.time for frame in opened]
    assert parts["odd/times"].tolist() == times
    clock = [*info.frame_rate.as_integer_ratio(), *info.time_base.as_integer_ratio()]
    assert parts["odd/clock"].tolist() == clock
    assert rows_of(store) == [
        {
            "key": "odd",
            "source": "odd.mp4",
            "status": "ok",
            "original_size": [128, 64],
            "resized_size": [128, 64],
            "crop": [0, 0, 128, 64],
            "latent_shape": [ODD, 128, 4, 8],
            "frame_rate": "25",
            "time_base": str(info.time_base),
            "sha256": hashlib.sha256(clip.read_bytes()).hexdigest(),
        }
    ]


def test_the_store_describes_itself(store):
    spec = read_manifest(store).spec
    assert spec["clips"] == {"stride": 1, "frames": None}
    opened = latentcli.open_store(store)
    assert (opened.metadata["media"], opened.state, len(opened)) == ("clips", "whitened", 1)


def test_channel_statistics_are_those_of_every_frame(folder, tmp_path):
    encode(folder, tmp_path / "store", MODEL, samples_per_shard=2)
    parts = latents_of(tmp_path / "store")
    latents = torch.cat([parts[f"c{number:02d}/latent"] for number in range(len(NUMBERS))])
    told = read_manifest(tmp_path / "store").channels
    channels = latents.double().transpose(0, 1).flatten(1)
    assert told["mean"] == pytest.approx(channels.mean(1).tolist(), abs=1e-6)
    assert told["std"] == pytest.approx(channels.std(1, correction=0).tolist(), rel=1e-5, abs=1e-7)


def test_frames_are_brought_to_size_as_pictures_are(clip, tmp_path):
    encode(clip, tmp_path / "clip", MODEL, size="64x48")
    pictures = as_pictures(clip, tmp_path / "pictures")
    encode(pictures, tmp_path / "images", MODEL, size="64x48", samples_per_shard=50)
    latents = latents_of(tmp_path / "clip")["odd/latent"]
    assert latents.shape == (ODD, 128, 3, 4)
    assert torch.equal(latents, stacked(tmp_path / "images"))
    row, image = rows_of(tmp_path / "clip")[0], rows_of(tmp_path / "images")[0]
    assert row["original_size"] == [128, 64]
    for name in ("original_size", "resized_size", "crop"):
        assert row[name] == image[name]


def stacked(images: Path) -> torch.Tensor:
    """Latents of a store of numbered pictures, in order."""
    return torch.stack([latent for _, latent in sorted(latents_of(images).items())])


def test_latents_are_those_of_the_same_frames_as_pictures(clip, store, tmp_path):
    encode(as_pictures(clip, tmp_path / "png"), tmp_path / "images", MODEL, samples_per_shard=50)
    # In batches of 3 both times, so even the rounding is the same.
    assert torch.equal(latents_of(store)["odd/latent"], stacked(tmp_path / "images"))


def test_the_batch_size_changes_rounding_alone(clip, store, tmp_path):
    encode(clip, tmp_path / "eight", MODEL, batch_size=8)
    one, other = (latents_of(path)["odd/latent"].float() for path in (store, tmp_path / "eight"))
    torch.testing.assert_close(one, other, rtol=2**-7, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stride": 3}, [0, 3, 6, 9]),
        ({"frames": 4}, [0, 1, 2, 3]),
        ({"stride": 4, "frames": 2}, [0, 4]),
        ({"stride": 5, "frames": 50}, [0, 5, 10]),
        ({"stride": 100}, [0]),
    ],
)
def test_stride_and_frames(clip, tmp_path, options, expected):
    told = encode(clip, tmp_path / "store", MODEL, **options)
    assert told["frames"] == len(expected)
    parts = latents_of(tmp_path / "store")
    rate = Fraction(25, options.get("stride", 1))
    assert parts["odd/clock"].tolist()[:2] == [*rate.as_integer_ratio()]
    assert rows_of(tmp_path / "store")[0]["frame_rate"] == str(rate)
    decode(tmp_path / "store", tmp_path / "out")
    everything = dict(frames_of(clip))
    wanted = [(number, everything[number]) for number in expected]
    assert frames_of(tmp_path / "out" / "odd.mp4") == wanted
    assert {k: read_manifest(tmp_path / "store").spec["clips"][k] for k in options} == options


def test_another_stride_is_another_store(clip, store):
    with pytest.raises(latentcli.core.errors.StoreError, match="stride"):
        encode(clip, store, MODEL, stride=2)


def test_a_folder_of_clips(folder, tmp_path):
    told = encode(folder, tmp_path / "store", MODEL, samples_per_shard=2)
    assert (told["encoded"], told["frames"], told["shards"]) == (len(NUMBERS), sum(NUMBERS), 3)
    json.dumps(told, allow_nan=False)
    opened = latentcli.open_store(tmp_path / "store")
    assert list(opened) == [f"c{number:02d}" for number in range(len(NUMBERS))]
    assert [len(opened[key]) for key in opened] == list(NUMBERS)
    decode(tmp_path / "store", tmp_path / "out")
    for key in opened:
        assert frames_of(tmp_path / "out" / f"{key}.mp4") == frames_of(folder / f"{key}.mp4")


def test_clips_do_not_depend_on_their_neighbours(folder, tmp_path):
    encode(folder, tmp_path / "all", MODEL, samples_per_shard=50)
    for path in folder.iterdir():
        encode(path, tmp_path / path.stem, MODEL)
        for name, tensor in latents_of(tmp_path / path.stem).items():
            assert torch.equal(tensor, latents_of(tmp_path / "all")[name])


def test_sixteen_clips_make_a_shard(tmp_path):
    clips_in(tmp_path / "clips", [1] * 17)
    told = encode(tmp_path / "clips", tmp_path / "store", MODEL, samples_per_shard=None)
    assert told["shards"] == 2


def test_a_second_run_does_nothing_and_new_clips_are_added(tmp_path):
    source, store = clips_in(tmp_path / "clips"), tmp_path / "store"
    encode(source, store, MODEL, samples_per_shard=2)
    before = tree(store)
    again = encode(source, store, MODEL, samples_per_shard=2)
    assert (again["encoded"], again["skipped"], again["frames"]) == (0, len(NUMBERS), 0)
    assert tree(store) == before
    clips_in(source, [3, 2], first=20)
    more = encode(source, store, MODEL, samples_per_shard=2)
    assert (more["encoded"], more["skipped"], more["frames"]) == (2, len(NUMBERS), 5)
    after = tree(store)
    shards = [name for name in before if name.startswith("shards/")]
    assert [name for name in shards if after[name] != before[name]] == []
    assert latents_of(store)["c20/latent"].shape[0] == 3
    assert read_manifest(store).totals.encoded == len(NUMBERS) + 2


@pytest.fixture
def both(tmp_path):
    """Two clips, four pictures, and a picture that moves."""
    source = toy_pictures(clips_in(tmp_path / "both", [3, 2]), 4)
    make_clip(source / "moving.gif", 5)
    return source


def test_pictures_among_clips_are_what_is_encoded(both, tmp_path):
    notes: list[str] = []
    told = encode(both, tmp_path / "store", MODEL, Reporter(note=notes.append))
    assert (told["media"], told["encoded"], told["frames"]) == ("images", 5, None)
    assert latents_of(tmp_path / "store")["moving/latent"].ndim == 3
    assert len(notes) == 1
    assert notes[0].startswith("2 video files among the pictures are left out: ")
    assert "c00.mp4" in notes[0] and "--media clips" in notes[0]
    assert told["left_out"] == 2
    assert encode(both, tmp_path / "plan", MODEL, dry_run=True)["left_out"] == 2


def test_asked_for_clips_only_clips_are_encoded(both, tmp_path):
    notes: list[str] = []
    told = encode(both, tmp_path / "store", MODEL, Reporter(note=notes.append), media="clips")
    assert (told["media"], told["encoded"], told["frames"]) == ("clips", 3, 10)
    assert notes == ["Not taken as inputs: 4 other files (.jpg)."]
    assert (told["left_out"], told["left_out_by"]) == (0, {".jpg": 4})
    assert latents_of(tmp_path / "store")["moving/latent"].shape == (5, 128, 4, 8)
    decode(tmp_path / "store", tmp_path / "out")
    assert frames_of(tmp_path / "out" / "moving.mp4") == frames_of(both / "moving.gif")


def test_asked_for_images_only_pictures_are_encoded(both, tmp_path):
    notes: list[str] = []
    told = encode(both, tmp_path / "store", MODEL, Reporter(note=notes.append), media="images")
    assert (told["media"], told["encoded"]) == ("images", 5)
    assert notes == ["Not taken as inputs: 2 other files (.mp4)."]


def test_a_dry_run_tells_and_writes_nothing(folder, tmp_path):
    told = encode(folder, tmp_path / "store", MODEL, samples_per_shard=2, dry_run=True)
    assert (told["media"], told["to_encode"], told["shards"]) == ("clips", len(NUMBERS), 3)
    assert told["bytes"] is None
    assert not (tmp_path / "store").exists()


def test_a_clip_in_a_dataset(store):
    (item,) = latentcli.LatentDataset(store)
    assert (item["key"], item["original_size"].tolist()) == ("odd", [128, 64])
    assert item["crop"].tolist() == [0, 0, 128, 64]
    assert torch.equal(item["latent"], latents_of(store)["odd/latent"])
    assert item["seconds"].dtype == torch.float64
    assert item["seconds"].tolist() == pytest.approx([i / 25 for i in range(ODD)], abs=1e-12)


def test_some_frames_of_a_clip(store):
    opened, latents = latentcli.open_store(store), latents_of(store)["odd/latent"]
    assert torch.equal(opened["odd"], latents)
    for start, stop in [(0, 1), (3, 8), (9, 11), (9, 100), (5, 5)]:
        assert torch.equal(opened.frames("odd", start, stop), latents[start:stop])
    assert torch.equal(opened.frames("odd", 2, 4, "times"), latents_of(store)["odd/times"][2:4])
    with pytest.raises(latentcli.core.errors.StoreError, match="class_token"):
        opened.frames("odd", 0, 1, "class_token")


def test_pictures_are_not_added_to_clips(clip, store, tmp_path):
    with pytest.raises(StoreError, match="holds latents of clips, and the inputs given now are im"):
        encode(toy_pictures(tmp_path / "pictures", 1), store, MODEL)
    encode(tmp_path / "pictures", tmp_path / "images", MODEL)
    with pytest.raises(StoreError, match="holds latents of images, and the inputs given now are c"):
        encode(clip, tmp_path / "images", MODEL)


def test_the_last_word_counts_every_frame(tmp_path):
    """A container that does not tell its frames makes the total a guess until the end."""
    make_clip(tmp_path / "a.mkv", 9)
    make_clip(tmp_path / "b.mkv", 2)
    seen: list[Snapshot] = []
    encode(tmp_path, tmp_path / "store", MODEL, Reporter(progress=seen.append))
    assert seen[0].total != 11
    assert (seen[-1].done, seen[-1].total) == (11, 11)
    seen.clear()
    encode(tmp_path, tmp_path / "store", MODEL, Reporter(progress=seen.append))
    assert seen == []


def test_a_store_of_clips_is_described(folder, tmp_path):
    encode(folder, tmp_path / "store", MODEL)
    found = inspect_store(str(tmp_path / "store"))
    assert (found["media"], found["encoded"]) == ("clips", len(NUMBERS))
    assert found["frames"] == sum(NUMBERS)


def test_webp_pictures_are_no_clips(tmp_path):
    source = clips_in(tmp_path / "clips", [2])
    Image.new("RGB", (64, 64)).save(source / "thumbnail.webp")
    told = encode(source, tmp_path / "store", MODEL, media="clips")
    assert (told["encoded"], told["failed"]) == (1, 0)


def test_clips_and_pictures_that_are_named_together_are_refused(clip, tmp_path):
    pictures = toy_pictures(tmp_path / "pictures", 2)
    with pytest.raises(UsageError, match=r"odd\.mp4 is a video file, named together"):
        encode_job_of(clip, pictures, tmp_path / "store")


@pytest.mark.parametrize(("name", "value"), [("stride", 2), ("frames", 3)])
def test_what_is_for_clips_is_not_asked_of_pictures(name, value, tmp_path):
    pictures = toy_pictures(tmp_path / "pictures", 2)
    with pytest.raises(UsageError, match=f"--{name} is for clips"):
        encode(pictures, tmp_path / "store", MODEL, **{name: value})


def test_alpha_is_no_setting_of_clips(clip, tmp_path):
    encode(clip, tmp_path / "store", MODEL, alpha="black")
    assert encode(clip, tmp_path / "store", MODEL, alpha="white")["skipped"] == 1


def encode_job_of(clip, pictures, store):
    return encode(clip, store, MODEL, sources=(str(clip), str(pictures)))
