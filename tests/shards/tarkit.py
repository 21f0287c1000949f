"""What the tests of samples in tars share: tars of small files, and a short form of samples."""

from __future__ import annotations

import io
from collections.abc import Sequence

from harness.tars import PICTURES, tar

from latentcli.core.types import Sample
from latentcli.shards.tar.read import TarLimits
from latentcli.shards.tar.samples import read_samples

ALL = TarLimits()


def samples(data: bytes, limits: TarLimits = ALL) -> list[Sample]:
    return list(read_samples(io.BytesIO(data), PICTURES, limits))


def of(*names: str) -> list[tuple[str, bytes]]:
    return [(name, name.encode()) for name in names]


def fields(found: Sequence[Sample]) -> list[tuple[str, str]]:
    """Each sample as (key, its fields), or (key, REFUSED)."""
    return [
        (s.key, "REFUSED" if s.problem else " ".join(member.field for member in s.members))
        for s in found
    ]


def grouped(*names: str) -> list[tuple[str, str]]:
    found = samples(tar(of(*names)))
    for sample in found:
        assert [m.data for m in sample.members] == [
            f"{sample.key}.{m.field}".encode() for m in sample.members
        ]
    return fields(found)
