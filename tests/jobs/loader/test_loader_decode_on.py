"""Which files are left to a device, and that those that fail are the same whoever decodes."""

from __future__ import annotations

import random

import pytest
import torch
from decodekit import BAD, HEIGHT, OTHERS, PLAIN, WIDTH, jpeg

from latentcli.core.types import Row
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec
from latentcli.images.size_filter import SizeFilter
from latentcli.jobs.loader.prepare import FILE_BYTES, RawSample, Recipe, prepare_sample

SPECS = {
    "size": PreprocessSpec((64, 48), 16, reducing_gaps=(2, 3, 3)),
    "none": PreprocessSpec(None, 16),
    "box": PreprocessSpec((64, 48), 16, "box"),
}


def prepared(data: bytes, spec: PreprocessSpec, policy: DecodePolicy | None = None):
    """(By the CPU, for a device)."""
    sample = RawSample(Row("a", "a.jpg", "ok"), data)
    return tuple(
        prepare_sample(sample, Recipe(policy or DecodePolicy(), spec, where), {})
        for where in ("cpu", "gpu")
    )


@pytest.mark.parametrize("spec", ["size", "none"])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_left_to_the_device(name, spec):
    (here, pixels), (there, file) = prepared(PLAIN[name], SPECS[spec])
    assert here == there and here.status == "ok"
    assert pixels.ndim == 3 and file.ndim == 1 and file.dtype == torch.uint8
    sent = bytes(file.tolist())
    assert sent.startswith(PLAIN[name]) and sent.endswith(b"\xff\xd9")


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", [*OTHERS, *sorted(BAD.keys() - {"tiny"})])
def test_all_else_is_prepared_as_ever(name, spec):
    (here, pixels), (there, same) = prepared((OTHERS | BAD)[name], SPECS[spec])
    assert here == there and (here.status == "failed") == (pixels is None) == (same is None)
    assert pixels is None or torch.equal(pixels, same)


def test_what_is_smaller_than_a_cell_fails_alike():
    (here, pixels), (there, same) = prepared(BAD["tiny"], SPECS["none"])
    assert here == there and here.stage == "preprocess" and pixels is None and same is None


def test_a_file_that_is_larger_than_its_pixels_by_far_is_decoded_here():
    data = jpeg(size=(1024, 768), quality=100, subsampling=0)
    assert len(data) > FILE_BYTES * 64 * 48
    (here, pixels), (there, same) = prepared(data, SPECS["size"])
    assert here == there and torch.equal(pixels, same)
    assert prepared(data, PreprocessSpec((512, 512), 16))[1][1].ndim == 1


def test_another_filter_is_left_to_the_cpu():
    assert prepared(PLAIN["usual"], SPECS["box"])[1][1].ndim == 3


@pytest.mark.parametrize(
    "policy",
    [DecodePolicy(max_pixels=WIDTH * HEIGHT - 1), DecodePolicy(sizes=SizeFilter(min_side=500))],
)
def test_sizes_are_refused_alike(policy):
    (here, pixels), (there, same) = prepared(PLAIN["usual"], SPECS["size"], policy)
    assert here == there and here.status != "ok" and pixels is None and same is None


def test_damaged_files_have_the_same_rows():
    """Bytes changed, left out and cut off anywhere: the rows, and what is decoded here, agree."""
    chance, seen = random.Random(0), set[tuple[str, int]]()
    for number in range(400):
        data = bytearray(chance.choice([*PLAIN.values()]))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(2, len(data))
            data[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
        if number % 4 == 0:
            del data[chance.randrange(len(data)) :]
        (here, pixels), (there, same) = prepared(bytes(data), SPECS["size"])
        assert here == there
        assert not (here.notes and same is not None and same.ndim == 1)
        if pixels is not None and same.ndim == 3:
            assert torch.equal(pixels, same)
        seen.add((here.status, 0 if same is None else same.ndim))
    assert seen == {("failed", 0), ("ok", 1), ("ok", 3)}
