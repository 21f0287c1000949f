"""decode of stores that are damaged or not whole, of names that are too long and of odd shapes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from jobkit import cli, decode, encode, pictures_of, toy_pictures
from safetensors.torch import save_file

from latentcli.core.errors import IncompleteStore, StoreError, UsageError
from latentcli.jobs.runtime.reporter import Reporter


@pytest.fixture(scope="module")
def reference(mixed_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoded") / "reference"
    decode(mixed_store, folder)
    return folder


@pytest.fixture
def store(mixed_store, tmp_path):
    """25 inputs in units of 4; 000/000010 and 000/000021 failed."""
    return shutil.copytree(mixed_store, tmp_path / "store")


def shard(store: Path, unit: int) -> Path:
    return store / "shards" / f"{unit:06d}.safetensors"


def keys_of(unit: int) -> list[str]:
    return [f"000/{i:06d}" for i in range(4 * unit, 4 * unit + 4) if i % 11 != 10]


def check_pictures(out: Path, reference: Path, without: list[str]) -> None:
    """Every picture is there and right, but for those."""
    found, whole = pictures_of(out), pictures_of(reference)
    assert found.keys() == whole.keys() - set(without)
    assert all(np.abs(p.astype(int) - whole[k]).max() <= 1 for k, p in found.items())


@pytest.mark.parametrize("unit", [0, 1])
@pytest.mark.parametrize("damage", ["gone", "cut", "header"])
def test_a_damaged_shard_costs_its_own_samples(store, tmp_path, reference, unit, damage):
    path = shard(store, unit)
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if damage == "cut" else b"\xff" * 8 + data[8:])
    found = decode(store, tmp_path / "out")
    assert (found["decoded"], found["failed"], found["missing"]) == (19, 4, 0)
    assert [row["key"] for row in found["failures"]] == keys_of(unit)
    for row in found["failures"]:
        assert row["unit"] == unit and path.name in row["error"]
    assert len({row["error"] for row in found["failures"]}) == 1
    check_pictures(tmp_path / "out", reference, keys_of(unit))
    # Only a size can be seen without reading, and so only that makes encode do it again.
    assert ("verify --repair" in found["advice"]) == (damage == "header")
    assert "same encode command" in found["advice"]


def test_encode_makes_it_again(store, tmp_path, reference, mixed, model):
    shard(store, 2).unlink()
    (store / "shards" / "000004.json").write_text("{")
    found = decode(store, tmp_path / "out")
    assert (found["decoded"], found["failed"], found["missing"]) == (16, 3, 4)
    assert "000004.json is damaged" in found["incomplete"]
    encode(mixed, store, model)
    again = decode(store, tmp_path / "out", skip_existing=True)
    assert (again["decoded"], again["skipped"]) == (7, 16)
    assert (again["failed"], again["incomplete"], again["advice"]) == (0, None, None)
    check_pictures(tmp_path / "out", reference, [])


def test_a_partial_store_is_decoded_and_told(store, tmp_path, reference):
    for name in ("000001.json", "000001.safetensors", "000003.json"):
        (store / "shards" / name).unlink()
    said: list[str] = []
    found = decode(store, tmp_path / "out", Reporter(note=said.append))
    assert (found["decoded"], found["failed"], found["missing"]) == (15, 0, 8)
    check_pictures(tmp_path / "out", reference, keys_of(1) + keys_of(3))
    assert any("is not complete" in text and "units 1, 3" in text for text in said)


def test_a_store_of_which_nothing_can_be_read(store, tmp_path):
    for unit in range(7):
        shard(store, unit).unlink()
    with pytest.raises(IncompleteStore, match=r"Nothing of .*same encode command"):
        decode(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_running_store_is_decoded_as_far_as_it_is(store, tmp_path):
    manifest = json.loads((store / "manifest.json").read_text()) | {"status": "running"}
    (store / "manifest.json").write_text(json.dumps(manifest))
    for suffix in ("json", "safetensors"):
        (store / "shards" / f"000006.{suffix}").unlink()
    found = decode(store, tmp_path / "out")
    assert (found["decoded"], found["missing"]) == (22, 1)


def test_the_exit_code_and_the_words_of_a_partial_store(mixed_store, tmp_path, model):
    """One real command line: the other tests are of the job."""
    store = shutil.copytree(mixed_store, tmp_path / "store")
    shard(store, 1).unlink()
    (store / "shards" / "000003.json").unlink()
    words = ("decode", store, "-o", tmp_path / "out", "--device", "cpu")
    run = cli(*words)
    assert run.returncode == 3, run.stderr
    assert (
        "8 of 23 inputs failed or are missing from the store; --max-bad 8 accepts that"
        in run.stderr
    )
    assert (
        "Run the same encode command again to encode the damaged and missing units." in run.stderr
    )
    assert "4 x " in run.stderr and "000001.safetensors is missing" in run.stderr
    assert "4 inputs missing from the store." in run.stderr
    assert len(pictures_of(tmp_path / "out")) == 15
    assert cli(*words, "--max-bad", "8").returncode == 0


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
def test_damaged_clips(tmp_path, form):
    pytest.importorskip("av")
    from clipkit import MODEL, clips_in

    clips_in(tmp_path / "clips", (2, 3))
    options = {"samples_per_shard": 1, "shard_format": form}
    encode(tmp_path / "clips", tmp_path / "store", MODEL, **options)
    victim = next((tmp_path / "store" / "shards").glob("000000.[st]*"))
    victim.write_bytes(victim.read_bytes()[:-512])
    found = decode(tmp_path / "store", tmp_path / "out")
    assert (found["decoded"], found["failed"]) == (1, 1)
    assert found["failures"][0]["unit"] == 0 and victim.name in found["failures"][0]["error"]


def test_names_that_a_file_system_cannot_hold(model, tmp_path):
    """The longest name there is room for is written; one that is longer is a failed row."""
    fits, long = "f" * 251, "l" * 252
    deep = "/".join(["d" * 200] * 30)
    keys = ("before", fits, long, f"folder/{long}", f"{'o' * 300}/x", deep, "z")
    save_file({key: torch.zeros(8, 1, 1) for key in keys}, tmp_path / "file.safetensors")
    for turn in (False, True):
        found = decode(
            tmp_path / "file.safetensors", tmp_path / "out", model=model, skip_existing=turn
        )
        failed = {row["key"]: row["error"] for row in found["failures"]}
        assert failed.keys() == {long, f"folder/{long}", f"{'o' * 300}/x", deep}
        assert len(set(failed.values())) == 1
        assert "longer than the file system" in failed[long]
        assert (found["decoded"], found["skipped"]) == ((0, 3) if turn else (3, 0))
    assert {path.stem for path in (tmp_path / "out").rglob("*.png")} == {"before", fits, "z"}


def test_a_key_that_is_no_unicode_text(model, tmp_path):
    save_file({"good": torch.zeros(8, 1, 1), "bad??????": torch.ones(8, 1, 1)}, tmp_path / "a")
    data = (tmp_path / "a").read_bytes().replace(b"bad??????", b"bad\\ud800")
    (tmp_path / "file.safetensors").write_bytes(data)
    found = decode(tmp_path / "file.safetensors", tmp_path / "out", model=model)
    assert (found["decoded"], found["failed"]) == (1, 1)
    assert "cannot be that of a file" in found["failures"][0]["error"]


@pytest.mark.parametrize("name", ["x" * 251, "x" * 252])
def test_long_names_of_clips(tmp_path, name):
    pytest.importorskip("av")
    from clipkit import MODEL, clips_in

    (clip,) = sorted(clips_in(tmp_path / "clips", (3,)).rglob("*.mp4"))
    clip.rename(clip.with_name(f"{name}.avi" if len(name) == 251 else f"{name}.ts"))
    encode(tmp_path / "clips", tmp_path / "store", MODEL)
    found = decode(tmp_path / "store", tmp_path / "out")
    assert (found["decoded"], found["failed"]) == ((1, 0) if len(name) == 251 else (0, 1))
    assert not list((tmp_path / "out").rglob(".tmp-*"))


@pytest.mark.parametrize("shape", [(8, 0, 2), (8, 2, 0), (0, 2, 2), (0, 8, 2, 2)])
def test_an_empty_side(model, tmp_path, shape):
    latents = {"good": torch.zeros(8, 2, 2), "empty": torch.zeros(shape)}
    save_file(latents, tmp_path / "file.safetensors")
    found = decode(tmp_path / "file.safetensors", tmp_path / "out", model=model)
    assert (found["decoded"], found["failed"]) == (1, 1)
    (row,) = found["failures"]
    assert row["key"] == "empty" and str(list(shape)) in row["error"]
    told = {"format": "latentcli", "unit": "0", "model": model}
    save_file({f"{k}/latent": v for k, v in latents.items()}, tmp_path / "000000.safetensors", told)
    if len(shape) == 3:
        found = decode(tmp_path / "000000.safetensors", tmp_path / "shard")
        assert (found["decoded"], found["failed"]) == (1, 1)


def test_a_clip_with_an_empty_side(tmp_path):
    pytest.importorskip("av")
    from clipkit import MODEL, clips_in

    clips_in(tmp_path / "clips", (3,))
    encode(tmp_path / "clips", tmp_path / "store", MODEL)
    (path,) = (tmp_path / "store" / "shards").glob("*.safetensors")
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    (key,) = {name.rpartition("/")[0] for name in tensors}
    frames, channels, _, w = tensors[f"{key}/latent"].shape
    empty = {f"e/{name.rpartition('/')[2]}": tensor.clone() for name, tensor in tensors.items()}
    empty["e/latent"] = torch.zeros(frames, channels, 0, w)
    save_file(tensors | empty, tmp_path / "000000.safetensors", metadata)
    found = decode(tmp_path / "000000.safetensors", tmp_path / "out")
    assert (found["decoded"], found["failed"]) == (1, 1)
    assert found["failures"][0]["key"] == "e" and ", 0, " in found["failures"][0]["error"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file", "is a file; name a folder"),
        ("file/below", "exists and is not a folder"),
        ("/sys/latentcli", "nothing can be written to /sys"),
        ("x" * 300, "longer than the file system allows"),
        ("s3://bucket/out", "is remote storage"),
    ],
)
def test_the_place_is_tried_before_the_model_is_loaded(mixed_store, tmp_path, place, said):
    (tmp_path / "file").write_text("mine")
    where = place if ":" in place else tmp_path / place
    with pytest.raises(UsageError, match=f"^-o .*{said}"):
        decode(mixed_store, where, model=str(tmp_path / "no model"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_model_that_is_not_there_leaves_no_folder(mixed_store, tmp_path):
    with pytest.raises(Exception, match="no model"):
        decode(mixed_store, tmp_path / "out" / "deep", model=str(tmp_path / "no model"))
    assert not list(tmp_path.iterdir())


def test_toy_pictures_have_the_names_that_are_meant_here(tmp_path):
    """`keys_of` counts on it."""
    toy_pictures(tmp_path / "p", 1)
    assert [path.stem for path in (tmp_path / "p").rglob("*.*")] == ["000000"]
    with pytest.raises(StoreError):
        decode(tmp_path / "p", tmp_path / "out")
