"""A device that runs out of memory while it decodes: smaller batches, and the same pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from clipkit import clips_in
from encodekit import LINEAR, pictures
from jobkit import decode, encode, latents_of, pictures_of, tree
from presetkit import toy_checkpoint
from safetensors.torch import save_file
from tarjobkit import read_tar, standard_streams
from torch import Tensor

from latentcli.jobs.runtime.reporter import Reporter
from latentcli.models.diffusion_ae import DiffusionAutoencoder
from latentcli.models.linear import LinearAutoencoder
from latentcli.models.tiny_temporal import TemporalTinyDecoder
from latentcli.shards.sources.own_output import MARK

SIZES = ((64, 48),) * 13 + ((48, 64),) * 2
LEVELS = 1
"""Of 255, by which a picture may differ with the batch; see test_decode_job."""


@dataclass
class Watched:
    """Numbers of latents that a model was given at once."""

    tried: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)


def watch(
    monkeypatch: pytest.MonkeyPatch, fits: Callable[[Tensor], bool], error: str = ""
) -> Watched:
    """Notes what the models decode; latents that do not fit are too much for the device."""
    seen, within = Watched(), [False]

    def limited(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(self: object, latents: Tensor, *args: Any, **words: Any) -> Tensor:
            if within[0]:  # decode_frames may call decode
                return method(self, latents, *args, **words)
            seen.tried.append(len(latents))
            if not fits(latents):
                raise RuntimeError(error) if error else torch.OutOfMemoryError("out of memory")
            seen.done.append(len(latents))
            within[0] = True
            try:
                return method(self, latents, *args, **words)
            finally:
                within[0] = False

        return run

    for kind in (DiffusionAutoencoder, LinearAutoencoder, TemporalTinyDecoder):
        for name in ("decode", "decode_frames"):
            monkeypatch.setattr(kind, name, limited(getattr(kind, name)))
    return seen


def at_most(count: int) -> Callable[[Tensor], bool]:
    return lambda latents: len(latents) <= count


def assert_alike(a, b) -> None:
    left, right = pictures_of(a), pictures_of(b)
    assert left.keys() == right.keys() and left
    for key, picture in left.items():
        assert np.abs(picture.astype(int) - right[key]).max() <= LEVELS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "in", SIZES)


@pytest.mark.parametrize("error", ["", "CUDA error: out of memory"])
def test_batches_are_halved_and_stay_so(folder, tmp_path, monkeypatch, error):
    encode(folder, tmp_path / "store", LINEAR, samples_per_shard=20)
    decode(tmp_path / "store", tmp_path / "whole", batch_size=8)
    notes: list[str] = []
    seen = watch(monkeypatch, at_most(3), error)
    told = decode(
        tmp_path / "store", tmp_path / "halved", Reporter(note=notes.append), batch_size=8
    )
    assert seen.tried == [8, 4, 2, 2, 2, 2, 2, 2, 1, 2]
    assert notes == [
        "The device ran out of memory on 8 pictures of 64x48: from now on it gets 4 at once.",
        "The device ran out of memory on 4 pictures of 64x48: from now on it gets 2 at once.",
    ]
    assert (told["decoded"], told["failed"]) == (15, 0)
    assert told["stages"]["decode"]["items"] == 15
    assert_alike(tmp_path / "whole", tmp_path / "halved")


def test_no_batch_is_of_two_units(folder, tmp_path, monkeypatch):
    """Else its pictures would be rounded otherwise where another process takes one of them."""
    encode(folder, tmp_path / "store", LINEAR, samples_per_shard=4)
    seen = watch(monkeypatch, at_most(8))
    decode(tmp_path / "store", tmp_path / "out", batch_size=8)
    assert seen.done == [4, 4, 4, 1, 2]


def test_noise_does_not_depend_on_the_pieces(mixed_store, tmp_path, monkeypatch):
    decode(mixed_store, tmp_path / "whole", seed=5, batch_size=8)
    seen = watch(monkeypatch, at_most(1))
    decode(mixed_store, tmp_path / "halved", seed=5, batch_size=8)
    assert set(seen.done) == {1} and len(seen.done) == 23
    assert_alike(tmp_path / "whole", tmp_path / "halved")


def test_only_what_does_not_fit_alone_fails(folder, tmp_path, monkeypatch):
    """Two of one shape, as where another process takes memory for a while."""
    encode(folder, tmp_path / "store", LINEAR, samples_per_shard=20)
    latents = {
        name.removesuffix("/latent"): latent
        for name, latent in latents_of(tmp_path / "store").items()
    }
    for key in ("0002", "0005"):
        latents[key] = latents[key].clone()
        latents[key][0, 0, 0] = 1000
    save_file(latents, tmp_path / "f.safetensors")
    watch(monkeypatch, lambda batch: not (batch == 1000).any())
    words = {"model": LINEAR, "batch_size": 8}
    told = decode(tmp_path / "f.safetensors", tmp_path / "out", **words)
    assert (told["decoded"], told["failed"]) == (13, 2)
    reason = "the device ran out of memory on a picture of 64x48"
    assert told["failures"] == [{"key": key, "error": reason} for key in ("0002", "0005")]
    assert len(pictures_of(tmp_path / "out")) == 13
    with standard_streams(tmp_path / "ends") as ends:
        piped = decode(tmp_path / "f.safetensors", "-", **words)
    assert piped["failures"] == told["failures"]
    names = [f"{n:04d}.png" for n in range(15) if n not in (2, 5)]
    assert sorted(read_tar(ends.output)) == names


def test_errors_of_other_kinds_end_the_job(folder, tmp_path, monkeypatch):
    encode(folder, tmp_path / "store", LINEAR)
    watch(monkeypatch, at_most(3), "mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        decode(tmp_path / "store", tmp_path / "out", batch_size=8)


@pytest.mark.parametrize("most", [1, 2])
def test_frames_of_clips(tmp_path, monkeypatch, most):
    encode(clips_in(tmp_path / "in", [7]), tmp_path / "store", LINEAR)
    words = {"format": "png", "batch_size": 4}
    decode(tmp_path / "store", tmp_path / "whole", **words)
    notes: list[str] = []
    seen = watch(monkeypatch, at_most(most))
    told = decode(tmp_path / "store", tmp_path / "out", Reporter(note=notes.append), **words)
    assert (told["frames"], told["failed"], len(notes)) == (7, 0, 3 - most)
    assert seen.done == ([1] * 7 if most == 1 else [2, 2, 2, 1])
    assert_alike(tmp_path / "whole", tmp_path / "out")


def test_a_frame_that_does_not_fit_alone_fails_its_clip(tmp_path, monkeypatch):
    encode(clips_in(tmp_path / "in", [3, 3]), tmp_path / "store", LINEAR)
    watch(monkeypatch, at_most(0))
    told = decode(tmp_path / "store", tmp_path / "out")
    assert (told["decoded"], told["failed"]) == (0, 2)
    (error,) = {failure["error"] for failure in told["failures"]}
    assert error.startswith("the device ran out of memory on a frame of ")
    assert list(tree(tmp_path / "out")) == [MARK]


def test_frames_that_see_each_other_are_not_parted(tmp_path, monkeypatch):
    """A temporal decoder gives other pictures of fewer frames: who wants that has to say so."""
    toy_checkpoint(tmp_path / "weights", "svd")
    toy_checkpoint(tmp_path / "weights", "tae_temporal")
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "weights"))
    encode(clips_in(tmp_path / "in", [10, 3]), tmp_path / "store", "svd")
    words = {"model": "tae_temporal", "format": "png"}
    decode(tmp_path / "store", tmp_path / "fours", num_frames=4, **words)
    seen = watch(monkeypatch, at_most(4))
    told = decode(tmp_path / "store", tmp_path / "eights", **words)
    assert (told["decoded"], told["failed"], seen.tried) == (1, 1, [8, 3])
    error = told["failures"][0]["error"]
    assert error.startswith("the device ran out of memory on 8 frames of ")
    assert "fewer with --num-frames" in error
    told = decode(tmp_path / "store", tmp_path / "again", num_frames=4, **words)
    assert told["failed"] == 0
    assert tree(tmp_path / "again") == tree(tmp_path / "fours")
