"""Which calls meet compiled code: full batches, whatever the threads; and what else there is."""

from __future__ import annotations

import pytest
import torch
from compilekit import traced

from latentcli.core.errors import LatentCliError
from latentcli.jobs.inference import compiled_model
from latentcli.jobs.inference.accelerator import Cpu, Cuda
from latentcli.jobs.inference.compiled_model import Piece, piece, threads_of
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import decode_batch, load_engine, with_code
from latentcli.jobs.settings.model import DecodeSettings

__all__ = ["traced"]

KEYS = [f"k{i}" for i in range(8)]
SIZE = (192, 384)
"""So large that each picture is a piece of its own."""


@pytest.fixture
def threads():
    """Some of torch's, put back after."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def pixels(count: int, width: int, height: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=draw)


def test_a_piece_is_what_a_core_gets(threads):
    threads(4)
    assert piece(Cpu(), "encode", 8, (256, 256)) == Piece("encode", 1, 256, 256, threads=1)
    assert piece(Cpu(), "encode", 8, (64, 64)) == Piece("encode", 8, 64, 64, threads=1)
    assert piece(Cpu(), "encode", 40, (64, 64)) == Piece("encode", 16, 64, 64, threads=1)
    assert piece(Cpu(), "decode", 8, (256, 256)) == Piece("decode", 1, 256, 256, threads=1)
    assert piece(Cpu(), "decode", 2, (256, 256)) == Piece("decode", 1, 256, 256, threads=2)
    assert piece(Cuda(), "decode", 32, (256, 256)) == Piece("decode", 32, 256, 256, threads=0)
    with threads_of(Piece("decode", 1, 256, 256, threads=2)):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    "asked",
    [
        {"state": "whitened"},
        {"state": "moments"},
        {"state": "raw", "sample": 3, "flip": True},
        {"state": "whitened", "flip": True, "store_dtype": "bf16"},
    ],
)
def test_full_batches_meet_code_and_others_do_not(model, traced, asked):
    engine = load_engine(model, device="cpu")
    told: list[str] = []
    coded = with_code(engine, "encode", {(48, 32): 4}, told.append)
    batch = pixels(5, 48, 32)
    for count in (4, 4, 3, 5):
        found = encode_batch(coded, batch[:count], KEYS[:count], **asked)
        for name, part in encode_batch(engine, batch[:count], KEYS[:count], **asked).items():
            torch.testing.assert_close(found[name], part)
    encode_batch(coded, pixels(4, 32, 48), KEYS[:4], **asked)
    assert traced() == 1 and told == ["Compiling the network for 48x32 (encode)"]


def test_threads_share_code_that_is_made_once(model, traced, threads):
    threads(3)
    engine = load_engine(model, device="cpu")
    coded = with_code(engine, "encode", {SIZE: 6})
    batch = pixels(6, *SIZE)
    found = encode_batch(coded, batch, KEYS[:6], "whitened")["latent"]
    torch.testing.assert_close(found, encode_batch(engine, batch, KEYS[:6], "whitened")["latent"])
    assert traced() == 1
    threads(1)
    alone = encode_batch(coded, batch, KEYS[:6], "whitened")["latent"]
    assert traced() == 1 and torch.equal(alone, found)


def test_code_of_decode_takes_steps_and_noise(model, traced, threads):
    threads(2)
    engine, settings = load_engine(model, device="cpu"), DecodeSettings(steps=2, seed=3)
    coded = with_code(engine, "decode", {SIZE: 2})
    latents = torch.randn(3, 8, 24, 12, generator=torch.Generator().manual_seed(0))
    for count in (2, 2, 3):
        found = decode_batch(coded, latents[:count], KEYS[:count], settings)
        right = decode_batch(engine, latents[:count], KEYS[:count], settings)
        assert (found.int() - right.int()).abs().max() <= 1
    # Three pictures for two cores have one thread each, as two have; and one has both.
    assert traced() == 1
    decode_batch(coded, latents[:1], KEYS[:1], settings)
    assert traced() == 1


def test_more_sizes_than_torch_takes_of_itself(model, traced):
    """Each piece is code of its own; torch would stop at eight of them in silence."""
    sizes = {(16 * (1 + i), 16): 1 for i in range(10)}
    coded = with_code(load_engine(model, device="cpu"), "encode", sizes)
    for width, height in sizes:
        encode_batch(coded, pixels(1, width, height), KEYS[:1], "whitened")
    assert traced() == 10


def test_code_that_gives_something_else_is_refused(model, monkeypatch):
    engine = with_code(load_engine(model, device="cpu"), "encode", {(32, 32): 1})
    monkeypatch.setattr(compiled_model, "code_of", lambda call: lambda x: (call(x)[0] * 1.1,))
    with pytest.raises(LatentCliError, match=r"compiled, encode of 32x32, batch 1: its output is"):
        encode_batch(engine, pixels(1, 32, 32), KEYS[:1], "whitened")


def test_what_does_not_compile_is_told_in_words(model, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("backend='inductor' raised:\nCppCompileError: it broke\nmore")

    engine = with_code(load_engine(model, device="cpu"), "encode", {(32, 32): 1})
    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    with pytest.raises(LatentCliError, match=r"failed for .* batch 1: CppCompileError: it broke\."):
        encode_batch(engine, pixels(1, 32, 32), KEYS[:1], "whitened")


def test_short_memory_while_compiling_is_short_memory(model, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    engine = with_code(load_engine(model, device="cpu"), "encode", {(32, 32): 1})
    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    with pytest.raises(RuntimeError, match=r"^CUDA out of memory"):
        encode_batch(engine, pixels(1, 32, 32), KEYS[:1], "whitened")
