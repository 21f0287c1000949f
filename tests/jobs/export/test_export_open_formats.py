"""Formats that are read without a trainer: real stores, written and read back to the last bit."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.made_up_stores import Made, made, noise, write_store

from latentcli import open_store
from latentcli.core.errors import StoreError, UsageError
from latentcli.exports.formats import export_format
from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.export.plan import plan_export

CAPTIONS = ["", "a cat", "猫 🐈 “quoted”", "zwei\nZeilen"]


def bf16_store(path: Path, scale: float = 1.0, **more) -> Path:
    """Latents of three sizes in bfloat16, with captions, and a class but for one."""
    samples = []
    for i, (h, w) in enumerate([(4, 6), (6, 4), (5, 5), (4, 6), (6, 4), (4, 6)]):
        fields = {"caption": CAPTIONS[i % 4]} if CAPTIONS[i % 4] else {}
        fields |= {"cls": i} if i != 3 else {}
        latent = (noise(8, h, w, seed=i) * scale).bfloat16()
        samples.append(made(f"sub.{i % 2}/pic.{i} é", latent, 16, fields=fields))
    return write_store(path, samples, "toy", per_shard=4, **more)


def read_mds(folder):
    from readers import read_mds

    for row in read_mds(contents(folder)):
        yield row["key"], row["latent"], row["caption"], row["label"]


def read_litdata(folder):
    from readers import read_litdata

    for row in read_litdata(contents(folder)):
        yield row["key"], row["latent"].numpy(), row["caption"], row["label"]


def read_tars(folder):
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            data = {name: tar.extractfile(name).read() for name in tar.getnames()}
        for name in data:
            stem, _, field = name.rpartition(".")
            if field == "npy":
                about = json.loads(data[f"{stem}.json"])
                latent = np.load(io.BytesIO(data[name]))
                yield about["key"], latent, about.get("caption", ""), about.get("label", -1)


def read_parquet(folder):
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            flat = np.frombuffer(row["latent_bytes"], row["latent_dtype"])
            label = -1 if row["label"] is None else row["label"]
            yield row["key"], flat.reshape(row["latent_shape"]), row["caption"], label


READERS = {
    "mds": read_mds,
    "litdata": read_litdata,
    "webdataset": read_tars,
    "webshart": read_tars,
    "parquet": read_parquet,
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("state", ["whitened", "raw"])
@pytest.mark.parametrize("name", READERS)
def test_what_a_store_has_is_what_a_reader_gets(name, state, tmp_path, monkeypatch):
    """bfloat16 to float32 loses nothing, and to float16 nothing of values of a usual size."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "exports"))
    path = bf16_store(tmp_path / "s.latents")
    store = open_store(str(path))
    for dtype in ("float32", "float16"):
        out = tmp_path / f"out.{dtype}"
        job = ExportJob(
            store=str(path),
            to=name,
            output=str(out),
            file_dtype=dtype,
            latents=state,
            samples_per_file=4,
        )
        document = run_export(job)
        assert document["latent_space"] == f"lab/toy#{state}" and document["steps"] == 2
        found = list(READERS[name](out))
        assert [row[0] for row in found] == list(store)
        for i, (key, latent, caption, label) in enumerate(found):
            expected = store.in_state(store[key], state)
            assert latent.dtype == dtype
            np.testing.assert_array_equal(latent, expected.numpy().astype(dtype))
            if state == "whitened":
                assert torch.equal(torch.from_numpy(latent.copy()).bfloat16(), store[key])
            assert caption == CAPTIONS[i % 4]
            assert label == (-1 if i == 3 else i)
        assert run_export(ExportJob(store=str(path), check=str(out)))["samples"] == 6


@pytest.mark.parametrize("name", READERS)
def test_what_float16_cannot_hold_is_refused_with_its_key(name, tmp_path):
    store = bf16_store(tmp_path / "s.latents", scale=1e6)
    out = tmp_path / "out"
    with pytest.raises(StoreError, match=r"'sub.0/pic.0 é' has values that float16 cannot hold"):
        run_export(ExportJob(store=str(store), to=name, output=str(out), file_dtype="float16"))
    # What it advises can be done in the same place, as nothing was written.
    run_export(ExportJob(store=str(store), to=name, output=str(out), file_dtype="float32"))
    assert run_export(ExportJob(store=str(store), check=str(out)))["dtype"] == "float32"


@pytest.mark.parametrize("name", READERS)
def test_other_dtypes_and_states_are_refused(name, tmp_path):
    store = bf16_store(tmp_path / "s.latents")
    job = {"store": str(store), "to": name, "output": str(tmp_path / "out")}
    with pytest.raises(UsageError, match="--dtype is bfloat16"):
        run_export(ExportJob(**job, file_dtype="bfloat16"))
    with pytest.raises(UsageError, match="scaled latents are wanted"):
        run_export(ExportJob(**job, latents="scaled"))
    if name != "mds":
        with pytest.raises(UsageError, match="--bytes-column is for mds"):
            run_export(ExportJob(**job, bytes_column="latents_256"))
    assert not (tmp_path / "out").exists()


def test_a_class_that_the_first_sample_lacks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "exports"))
    samples = [made(f"p{i}", noise(8, 4, 4), 16, fields={"cls": i} if i else {}) for i in range(6)]
    store, out = write_store(tmp_path / "s.latents", samples, "toy"), tmp_path / "out"
    run_export(ExportJob(store=str(store), to="mds", output=str(out)))
    assert [label for *_, label in read_mds(out)] == [-1, 1, 2, 3, 4, 5]
    with pytest.raises(UsageError, match="no sample of the store has a field"):
        run_export(ExportJob(store=str(store), to="mds", output="x", labels="colour"))


def test_a_check_finds_what_readers_would_take_besides(tmp_path):
    store, out = bf16_store(tmp_path / "s.latents"), tmp_path / "out"
    export = ExportJob(store=str(store), to="webdataset", output=str(out), latents="whitened")
    run_export(export)
    # The state that is the usual one is no other export.
    assert run_export(replace(export, latents=None))["steps_done_before"] == 1
    check = ExportJob(store=str(store), check=str(out))
    assert run_export(check)["wrong"] == {}
    for wrong in ({"to": "mds"}, {"file_dtype": "float32"}, {"latents": "raw"}, {"output": "x"}):
        with pytest.raises(UsageError, match=r"--check (needs|writes) no"):
            run_export(replace(check, **wrong))
    (out / "shard-000001.tar").write_bytes((out / "shard-000000.tar").read_bytes())
    with pytest.raises(StoreError, match=r"shard-000001\.tar: it does not belong to this export"):
        run_export(check)
    other = bf16_store(tmp_path / "other.latents", state="raw")
    with pytest.raises(StoreError, match="is an export of another store"):
        run_export(replace(check, store=str(other)))


def test_a_column_of_bare_bytes(tmp_path):
    store = bf16_store(tmp_path / "s.latents")
    job = {"store": str(store), "to": "mds", "output": str(tmp_path / "out")}
    with pytest.raises(UsageError, match="'caption', which is already a column"):
        run_export(ExportJob(**job, bytes_column="caption"))
    assert not (tmp_path / "out").exists()
    run_export(ExportJob(**job, bytes_column="latents_256"))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert "latents_256" in index["shards"][0]["column_names"]
    assert run_export(ExportJob(store=str(store), check=str(tmp_path / "out")))["samples"] == 6


def test_large_latents_make_small_steps(tmp_path):
    """A file of them, and the memory of a step, has an end whatever the pictures' size."""
    wide = torch.zeros(8, 1024, 512, dtype=torch.bfloat16)
    mirrored = Made(key="b", parts={"latent": wide, "latent_flip": wide})
    for samples, latents, factor in (
        ([made("a", wide)], {}, 1),
        ([mirrored], {"flip": True}, 2),
    ):
        path = write_store(tmp_path / f"{factor}.latents", samples, "toy", latents=latents)
        for name in READERS:
            format = export_format(name)
            plan = plan_export(ExportJob(store=str(path), to=name, output=str(tmp_path / "o")))
            assert plan.setting.mirrored == (factor == 2)
            assert plan.step == format.group_bytes // (wide.numel() * 4 * factor)
            wanted = ExportJob(store=str(path), to=name, output="o", samples_per_file=50)
            assert plan_export(wanted).step == 50


def test_small_latents_make_files_of_many_samples(tmp_path):
    store = bf16_store(tmp_path / "s.latents")
    for name in READERS:
        plan = plan_export(ExportJob(store=str(store), to=name, output=str(tmp_path / "o")))
        assert plan.step == export_format(name).group


def test_fastvideo_has_to_be_forced(tmp_path):
    latent = noise(16, 8, 8)
    samples = [made(f"p{i}", latent, fields={"caption": "c"}) for i in range(2)]
    store = write_store(tmp_path / "w.latents", samples, "wan2.1")
    job = {"to": "fastvideo", "output": str(tmp_path / "out")}
    with pytest.raises(UsageError, match="embeddings of the captions"):
        run_export(ExportJob(store=str(store), **job))
    assert not (tmp_path / "out").exists()
    document = run_export(ExportJob(store=str(store), **job, force=True))
    assert "cannot be trained on yet" in document["advice"][0]
    toy = bf16_store(tmp_path / "s.latents")
    with pytest.raises(UsageError, match=r"space lab/toy, and fastvideo holds those of wan2\.1"):
        run_export(ExportJob(store=str(toy), **job))
