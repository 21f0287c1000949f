"""Pieces of a batch, each on threads of its own."""

from __future__ import annotations

import threading
from itertools import chain

import pytest
import torch

from latentcli.jobs.inference.engine import decode_on_device, load_engine
from latentcli.jobs.inference.on_cores import PIECE_PIXELS, on_cores
from latentcli.jobs.settings.model import DecodeSettings


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("count", "pixels", "pieces"),
    [(5, PIECE_PIXELS, 5), (5, PIECE_PIXELS // 2, 3), (3, 4 * PIECE_PIXELS, 3), (0, 64, 0)],
)
@pytest.mark.parametrize("alone", [True, False])
def test_pieces_cover_the_batch_in_order(threads, count, pixels, pieces, alone):
    found = on_cores(lambda part: list(range(count))[part], count, pixels, alone=alone)
    assert len(found) == pieces and list(chain.from_iterable(found)) == list(range(count))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("count", "alone", "each"), [(1, True, 1), (1, False, 3), (2, False, 1), (4, False, 1)]
)
def test_idle_threads_are_shared_where_pieces_are_few(count, alone, each):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = on_cores(lambda _: torch.get_num_threads(), count, PIECE_PIXELS, alone=alone)
    finally:
        torch.set_num_threads(before)
    assert found == [each] * count


def test_pieces_run_beside_each_other(threads):
    together = threading.Barrier(min(threads, 3))
    on_cores(lambda _: together.wait(30), 6 * threads, PIECE_PIXELS)


def test_an_error_of_a_piece_is_raised(threads):
    with pytest.raises(ZeroDivisionError):
        on_cores(lambda part: 1 // (part.start - 1), 3, PIECE_PIXELS)
    assert torch.get_num_threads() == threads


def test_no_piece_is_at_work_after_an_error():
    begun, over = threading.Event(), []

    def work(part: slice) -> None:
        if part.start == 0:
            begun.wait(30)
            raise MemoryError
        begun.set()
        threading.Event().wait(0.2)
        over.append(part.start)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(MemoryError):
            on_cores(work, 2, PIECE_PIXELS)
    finally:
        torch.set_num_threads(before)
    assert over == [1]


def test_a_picture_is_decoded_alike_in_any_batch():
    """Of 256 pixels a side, each of which is a piece."""
    engine = load_engine("fcdm_nano", device="cpu", dtype="fp32")
    latents = torch.randn(3, 128, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = latents[:, : engine.model.spec.channels]
    keys, before = ["a", "b", "c"], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = decode_on_device(engine, latents, keys, DecodeSettings(steps=1))
    finally:
        torch.set_num_threads(before)
    for i, key in enumerate(keys):
        alone = decode_on_device(engine, latents[i : i + 1], [key], DecodeSettings(steps=1))
        assert torch.equal(together[i], alone[0])
