"""Files of features: every kind that is taken, every way to be wrong, and memory of a spool."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.video import feature_file as features
from latentcli.jobs.video.feature_file import (
    FORMAT,
    FeatureSpool,
    check_output,
    differences,
    open_features,
    write_features,
)

ROWS = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)


def read(path: Path) -> torch.Tensor:
    with open_features(path) as file:
        assert (file.rows, file.dim) == (10, 4)
        return torch.cat(list(file.chunks()))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
def test_every_kind_of_file(kind, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "ROWS", 3)
    rows, path = (ROWS * 100).astype(dtype), tmp_path / f"f.{kind}"
    if kind == "npy":
        np.save(path, rows)
    elif kind == "npz":
        np.savez(path, anything=rows)
    else:
        save_file({"anything": torch.from_numpy(rows), "n": torch.zeros(3)}, path)
    found = read(path)
    assert found.dtype == torch.float64
    assert np.array_equal(found.numpy(), rows.astype(float))


def test_fortran_order_and_the_named_tensor(tmp_path):
    np.save(tmp_path / "f.npy", np.asfortranarray(ROWS))
    assert np.array_equal(read(tmp_path / "f.npy").numpy(), ROWS)
    both = {"features": torch.from_numpy(ROWS), "other": torch.zeros(2, 2)}
    save_file(both, tmp_path / "f.safetensors")
    assert np.array_equal(read(tmp_path / "f.safetensors").numpy(), ROWS)


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


def test_pickles_are_never_loaded(tmp_path):
    for name in ("f.pt", "f.pkl", "f.pth"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(UsageError, match=r"Pickles, such as \.pt and \.pkl, are not read"):
            read(tmp_path / name)
    (tmp_path / "f.npy").write_bytes(pickle.dumps(Trap()))
    np.save(tmp_path / "o.npy", np.array([[Trap(), 1]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", a=np.array([[Trap(), 1]], dtype=object))
    for name in ("f.npy", "o.npy", "o.npz"):
        with pytest.raises(StoreError, match="is not a complete NumPy file of numbers: "):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (np.zeros(4), r"shape \[4\]; they must be \[N, D\]"),
        (np.zeros((2, 3, 4)), r"shape \[2, 3, 4\]"),
        (np.zeros((4, 0)), r"shape \[4, 0\]"),
        (np.zeros((4, 2), complex), "of something else than real numbers"),
        (np.zeros((1, 4)), "has 1 row; a distance needs at least 2"),
        (np.zeros((0, 4)), "has 0 rows; a distance needs"),
    ],
)
def test_wrong_shapes(rows, told, tmp_path):
    np.save(tmp_path / "f.npy", rows)
    with pytest.raises(UsageError, match=told):
        read(tmp_path / "f.npy")
    if rows.dtype != complex:
        save_file({"features": torch.from_numpy(rows)}, tmp_path / "f.safetensors")
        with pytest.raises(UsageError, match=told):
            read(tmp_path / "f.safetensors")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "ROWS", 3)
    rows = ROWS.copy()
    rows[7, 2] = value
    np.save(tmp_path / "f.npy", rows)
    with pytest.raises(UsageError, match=r"not finite .* in row 7 of 10"):
        read(tmp_path / "f.npy")


def test_damaged_and_ambiguous_files(tmp_path):
    with pytest.raises(UsageError, match=r"There is no file .*none\.npy"):
        read(tmp_path / "none.npy")
    np.save(tmp_path / "f.npy", ROWS)
    whole = (tmp_path / "f.npy").read_bytes()
    for name, data in (("cut.npy", whole[:-9]), ("empty.npy", b""), ("text.npz", b"text")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StoreError, match="is not a complete NumPy file"):
            read(tmp_path / name)
    np.savez(tmp_path / "two.npz", a=ROWS, b=ROWS)
    with pytest.raises(UsageError, match="must hold one array; it holds 2"):
        read(tmp_path / "two.npz")
    two = {"a": torch.zeros(3, 3), "b": torch.zeros(3, 3)}
    save_file(two, tmp_path / "two.safetensors")
    with pytest.raises(UsageError, match="one 2-D tensor, or one named 'features'; it holds 2"):
        read(tmp_path / "two.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(StoreError, match="is damaged"):
        read(tmp_path / "cut.safetensors")


def test_a_spool_forgets_and_writes(tmp_path):
    spool, rows = FeatureSpool(4), torch.from_numpy(ROWS)
    spool.add(rows[:3])
    spool.add(rows[3:6])
    spool.cut(3)
    spool.add(rows[6:8].double())  # shorter than what was cut
    write_features(tmp_path / "f.safetensors", spool, {"frames": "16"})
    spool.close()
    found = load_file(tmp_path / "f.safetensors")
    assert found.keys() == {"features"}
    assert torch.equal(found["features"], torch.cat([rows[:3], rows[6:8]]))
    with open_features(tmp_path / "f.safetensors") as file:
        assert file.metadata == {"format": FORMAT, "frames": "16"}


def test_what_an_output_may_replace(tmp_path):
    spool = FeatureSpool(4)
    spool.add(torch.from_numpy(ROWS))
    write_features(tmp_path / "ours.safetensors", spool, {})
    check_output(tmp_path / "ours.safetensors")
    check_output(tmp_path / "new" / "er.safetensors")
    assert (tmp_path / "new").is_dir()
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name, told in (
        ("clip.mp4", "must end in .safetensors"),
        ("folder.safetensors", "is a folder"),
        ("model.safetensors", "is not a file of features; it is not overwritten"),
    ):
        with pytest.raises(UsageError, match=told):
            check_output(tmp_path / name)


def test_differences():
    a = {"extractor": "x", "frames": "16", "clips": "3", "size": "224x224"}
    b = {"extractor": "x", "frames": "8", "clips": "4", "preprocess": "p"}
    assert differences(a, b) == {"frames": ("16", "8")}


def test_messages_about_foreign_files_advise_nothing_unsafe(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    np.savez_compressed(tmp_path / "cut.npz", a=np.random.default_rng(0).normal(size=(90, 9)))
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("text.npy", "cut.npz"):
        with pytest.raises(StoreError, match="is not a complete NumPy file") as told:
            read(tmp_path / name)
        assert "allow_pickle" not in str(told.value)
