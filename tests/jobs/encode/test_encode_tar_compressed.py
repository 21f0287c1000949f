"""Compressed tars are read as streams: whole ones give what plain ones do, cut ones say so."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import sys
from functools import partial
from importlib import import_module

import pytest
from jobkit import encode, rows_of, tree
from tarjobkit import make_tar, members, tar_bytes

from latentcli.core.errors import UsageError
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.verify import run_verify

DATA = tar_bytes(members(12))


def zstd(data: bytes) -> bytes:
    """In two frames, as `zstd` and `cat` make them."""
    module = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    return module.compress(data[:5000]) + module.compress(data[5000:])


KINDS = {
    "tar.gz": gzip.compress,
    "tar.zst": zstd,
    "tzst": zstd,
    "tar.xz": lzma.compress,
    "tbz2": bz2.compress,
}


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    """The store of a plain tar, as bytes by file."""
    folder = tmp_path_factory.mktemp("plain")
    encode(make_tar(folder / "t.tar", members(12)), folder / "s", model, samples_per_shard=None)
    return tree(folder / "s")


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_tar_gives_what_a_plain_one_does(plain, model, tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    path.write_bytes(KINDS[kind](DATA))
    store = tmp_path / "s"
    run = partial(encode, path, store, model, samples_per_shard=None)
    document = run()
    assert (document["encoded"], document["failed"], document["tars"]) == (12, 0, 1)
    shard = "shards/000000.safetensors"
    assert tree(store)[shard] == plain[shard]
    record = json.loads((store / "shards" / "000000.json").read_text())
    assert record["sha256_source"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert run_verify(VerifyJob(store=str(store), device="cpu"))["problems"] == []
    assert (run(compare="digest")["changed"], run()["encoded"]) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_one_gives_its_whole_samples_and_one_row(model, tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    data = KINDS[kind](DATA)
    path.write_bytes(data[: len(data) * 3 // 4])
    encode(path, tmp_path / "s", model, samples_per_shard=None)
    rows = rows_of(tmp_path / "s")
    assert [row["status"] for row in rows[-1:]] == ["failed"]
    assert {row["status"] for row in rows[:-1]} <= {"ok"}
    assert "data end too early" in rows[-1]["error"] and "are lost" in rows[-1]["error"]


def test_without_its_package_a_job_says_which_one_reads_zstd(model, tmp_path, monkeypatch):
    path = tmp_path / "t.tar.zst"
    path.write_bytes(zstd(DATA))
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"latentcli\[zst\]"):
        encode(path, tmp_path / "s", model, samples_per_shard=None)
