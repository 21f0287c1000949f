"""A device that runs out of memory: smaller batches from then on, and nothing lost that fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import clipkit
import numpy as np
import pytest
import torch
from encodekit import LINEAR, pictures, watch
from jobkit import encode, failures_of, latents_of, rows_of
from PIL import Image

from latentcli.images.codec import to_float
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.inference.out_of_memory import is_out_of_memory, may_be_out_of_memory
from latentcli.jobs.inference.split_on_oom import SplitOnOom, too_large
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.models.linear import LinearAutoencoder
from latentcli.models.tiled.room import AboveLimit, Room

SIZES = ((64, 48),) * 13 + ((48, 64),) * 2
WORDS = {"batch_size": 8, "samples_per_shard": 13}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "in", SIZES)


NO_WAY = (
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "no valid convolution algorithms available in CuDNN",
)
"""What torch raises where cuDNN has tried all its ways."""


def counted(seen: list[tuple[int, ...]]) -> list[int]:
    return [shape[0] for shape in seen]


def test_batches_are_halved_and_stay_so(folder, tmp_path, monkeypatch):
    encode(folder, tmp_path / "whole", LINEAR, **WORDS)
    notes: list[str] = []
    with monkeypatch.context() as patch:
        seen = watch(patch, most=3)
        told = encode(folder, tmp_path / "store", LINEAR, Reporter(note=notes.append), **WORDS)
    # 8 and 4 are tried once; then twos, of the batch of 5 and of the others too.
    assert counted(seen.tried) == [8, 4, 2, 2, 2, 2, 2, 2, 1, 2]
    assert notes == [
        "The device ran out of memory on 8 pictures of 64x48: from now on it gets 4 at once.",
        "The device ran out of memory on 4 pictures of 64x48: from now on it gets 2 at once.",
    ]
    assert (told["encoded"], told["failed"], told["batch_size"]) == (15, 0, 8)
    whole, halved = latents_of(tmp_path / "whole"), latents_of(tmp_path / "store")
    assert whole.keys() == halved.keys()
    assert all(torch.equal(whole[name], halved[name]) for name in whole)
    specs = [json.loads((tmp_path / s / "manifest.json").read_text()) for s in ("whole", "store")]
    assert specs[0]["spec"] == specs[1]["spec"] and specs[1]["status"] == "complete"
    assert encode(folder, tmp_path / "store", LINEAR, **WORDS)["encoded"] == 0


def test_a_network_gives_the_same_up_to_rounding(folder, model, tmp_path, monkeypatch):
    encode(folder, tmp_path / "whole", model, flip="both", **WORDS)
    with monkeypatch.context() as patch:
        watch(patch, most=2)
        encode(folder, tmp_path / "store", model, flip="both", **WORDS)
    whole, halved = latents_of(tmp_path / "whole"), latents_of(tmp_path / "store")
    assert whole.keys() == halved.keys() and len(whole) == 30
    for name, latent in whole.items():
        torch.testing.assert_close(halved[name].float(), latent.float(), rtol=0.02, atol=0.02)


def test_each_shape_has_its_own_size(folder, tmp_path, monkeypatch):
    notes: list[str] = []
    seen = watch(monkeypatch, most=1)
    encode(folder, tmp_path / "store", LINEAR, Reporter(note=notes.append), **WORDS)
    assert counted(seen.tried) == [8, 4, 2, *[1] * 13, 2, 1, 1]
    assert [note.split(" pictures of ")[1][:5] for note in notes] == ["64x48"] * 3 + ["48x64"]


def test_a_picture_that_does_not_fit_alone_fails(folder, tmp_path, monkeypatch):
    wide = pictures(tmp_path / "in", ((64, 48), (64, 64), (64, 48), (64, 64)))
    encode_linear = watch(monkeypatch).done  # installs the wrapper that the next one wraps
    inner = LinearAutoencoder.encode

    def square_is_too_much(self, images):
        if images.shape[-1] == images.shape[-2]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self, images)

    monkeypatch.setattr(LinearAutoencoder, "encode", square_is_too_much)
    told = encode(wide, tmp_path / "store", LINEAR, batch_size=8)
    assert (told["encoded"], told["failed"]) == (2, 2) and counted(encode_linear) == [2]
    reason = "the device ran out of memory on a picture of 64x64"
    failed = failures_of(tmp_path / "store")
    assert {(row["stage"], row["error"]) for row in failed.values()} == {("encode", reason)}
    assert [row["status"] for row in rows_of(tmp_path / "store")] == ["ok", "failed"] * 2
    monkeypatch.undo()
    again = encode(wide, tmp_path / "store", LINEAR, batch_size=8, retry="failed")
    assert (again["failed"], len(latents_of(tmp_path / "store"))) == (0, 4)


def too_much_for(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Memory runs out wherever this picture is, and wherever there are several."""
    pixels = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy())
    refused, encode_linear = to_float(pixels.permute(2, 0, 1)), LinearAutoencoder.encode

    def limited(self: LinearAutoencoder, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 1 or torch.equal(images[0], refused):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode_linear(self, images)

    monkeypatch.setattr(LinearAutoencoder, "encode", limited)


def test_only_the_picture_of_a_batch_fails_that_does_not_fit_alone(folder, tmp_path, monkeypatch):
    too_much_for(monkeypatch, folder / "0002.png")
    told = encode(folder, tmp_path / "store", LINEAR, **WORDS)
    assert (told["encoded"], told["failed"]) == (14, 1)
    failed = failures_of(tmp_path / "store")
    assert {key: row["error"] for key, row in failed.items()} == {
        "0002": "the device ran out of memory on a picture of 64x48"
    }
    monkeypatch.undo()
    encode(folder, tmp_path / "whole", LINEAR, **WORDS)
    whole, partly = latents_of(tmp_path / "whole"), latents_of(tmp_path / "store")
    assert whole.keys() - partly.keys() == {"0002/latent"}
    assert all(torch.equal(whole[name], partly[name]) for name in partly)


def test_roundtrip_loses_no_other_picture_either(folder, monkeypatch):
    too_much_for(monkeypatch, folder / "0002.png")
    job = RoundtripJob(sources=(str(folder),), models=(LINEAR,), device="cpu", workers=0)
    told = run_roundtrip(replace(job, batch_size=8))
    assert (told["images"], told["failed"]) == (14, 1)
    assert told["failures"] == [
        {
            "key": "0002",
            "error": "encode or decode: the device ran out of memory on a picture of 64x48",
        }
    ]


def test_errors_of_other_kinds_end_the_job(folder, tmp_path, monkeypatch):
    watch(monkeypatch, most=3, error="mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        encode(folder, tmp_path / "store", LINEAR, **WORDS)


def test_memory_errors_of_the_host_count_too(folder, tmp_path, monkeypatch):
    words = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
    seen = watch(monkeypatch, most=3, error=words)
    assert encode(folder, tmp_path / "store", LINEAR, **WORDS)["encoded"] == 15
    assert counted(seen.tried)[:3] == [8, 4, 2]


@pytest.mark.parametrize("words", NO_WAY)
def test_what_may_be_of_memory_is_tried_with_fewer_pictures(folder, tmp_path, monkeypatch, words):
    """cuDNN leaves out what had no memory to work in, and at the end does not speak of memory."""
    notes: list[str] = []
    with monkeypatch.context() as patch:
        seen = watch(patch, most=3, error=words)
        told = encode(folder, tmp_path / "store", LINEAR, Reporter(note=notes.append), **WORDS)
    assert (told["encoded"], told["failed"]) == (15, 0)
    assert counted(seen.tried)[:4] == [8, 4, 2, 2]
    assert notes[0] == (
        "The device found no algorithm, possibly because memory ran out, for 8 pictures of 64x48:"
        " from now on it gets 4 at once."
    )
    seen = watch(monkeypatch, most=0, error=words)
    with pytest.raises(RuntimeError) as told_as_it_is:
        encode(folder, tmp_path / "none", LINEAR, **WORDS)
    assert type(told_as_it_is.value) is RuntimeError and str(told_as_it_is.value) == words
    assert counted(seen.tried) == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_a_memory_error(error, is_one):
    assert is_out_of_memory(error) is may_be_out_of_memory(error) is is_one


IN_PARTS, WHOLE = Room(2**20, 100, 10), Room(2**20, 100, 100, "it sees all")
LIMIT, DEVICE = AboveLimit("too much"), torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize(
    ("error", "room", "together", "told"),
    [
        (DEVICE, None, 1, "the device ran out of memory on a picture of 400x300"),
        (DEVICE, IN_PARTS, 1, "less free than the 1 MiB that --max-memory leaves; with a smaller"),
        (DEVICE, WHOLE, 1, "less free than the 1 MiB that --max-memory leaves"),
        (DEVICE, None, 8, "on 8 frames of 400x300 that the model decodes together; give it fewer"),
        (DEVICE, IN_PARTS, 8, "less free than the 1 MiB that --max-memory leaves; give it fewer"),
        (
            LIMIT,
            IN_PARTS,
            1,
            "a picture of 400x300 takes 12 MiB, and even its smallest part takes more than the 1"
            " MiB",
        ),
        (LIMIT, WHOLE, 1, "takes 12 MiB, but --max-memory leaves 1 MiB, and this model"),
        (LIMIT, IN_PARTS, 8, "8 frames of 400x300 that the model decodes together take 92 MiB"),
    ],
)
def test_what_is_known_of_a_lack_of_memory(error, room, together, told):
    """All of these are above the room's limit whole; that is the cause of some alone."""
    reason = too_large(error, "picture", 400, 300, together, room)
    assert told in reason and ("ran out of memory" in reason) == (error is DEVICE)


def test_what_is_above_the_limit_is_not_the_devices_lack():
    def whole(part: slice) -> dict[str, torch.Tensor]:
        raise DEVICE

    limited = SplitOnOom(room=IN_PARTS)
    with pytest.raises(AboveLimit):
        limited.fit(whole, (3, 400, 300), 2, whole=True)
    with pytest.raises(torch.OutOfMemoryError) as error:
        limited.fit(whole, (3, 400, 300), 2)
    assert not isinstance(error.value, AboveLimit)


def test_what_only_may_be_one():
    for words in NO_WAY:
        assert not is_out_of_memory(RuntimeError(words))
        assert may_be_out_of_memory(RuntimeError(words))
    assert not may_be_out_of_memory(ValueError(NO_WAY[0]))


def test_what_the_failed_batch_held_is_let_go_before_the_next_try():
    import gc
    import weakref

    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def encode(pixels, keys):
        alive.append(sum(ref() is not None for ref in held))
        activations = pixels.float()
        held.append(weakref.ref(activations))
        if len(keys) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return {"latent": activations.mean((1, 2, 3))}

    gc.disable()
    try:
        pixels = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
        assert SplitOnOom().encode(encode, pixels, list("abcd"))["latent"].shape == (4,)
    finally:
        gc.enable()
    assert set(alive) == {0}


@pytest.mark.parametrize("most", [1, 2])
def test_frames_of_clips(tmp_path: Path, monkeypatch, most):
    clipkit.clips_in(tmp_path / "in", [7])
    encode(tmp_path / "in", tmp_path / "whole", LINEAR, batch_size=4)
    notes: list[str] = []
    with monkeypatch.context() as patch:
        seen = watch(patch, most=most)
        told = encode(
            tmp_path / "in", tmp_path / "store", LINEAR, Reporter(note=notes.append), batch_size=4
        )
    assert told["frames"] == 7 and len(notes) == 3 - most
    assert counted(seen.done) == ([1] * 7 if most == 1 else [2, 2, 2, 1])
    whole, halved = latents_of(tmp_path / "whole"), latents_of(tmp_path / "store")
    assert all(torch.equal(whole[name], halved[name]) for name in whole)


def test_a_frame_that_does_not_fit_alone_fails_its_clip(tmp_path, monkeypatch):
    clipkit.clips_in(tmp_path / "in", [3, 3])
    watch(monkeypatch, most=0)
    told = encode(tmp_path / "in", tmp_path / "store", LINEAR, batch_size=4)
    assert (told["encoded"], told["failed"]) == (0, 2)
    errors = {row["error"] for row in failures_of(tmp_path / "store").values()}
    (error,) = errors
    assert error.startswith("the device ran out of memory on a frame of ")
