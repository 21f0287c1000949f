"""The encode job: the same bytes every time, nothing lost, bad inputs, new inputs, full disks."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.kill_paths import encode_command
from harness.picture_files import P3_D50, bomb_png, rgb_profile, scene
from harness.processes import in_session
from jobkit import (
    cli,
    encode,
    environment,
    failures_of,
    interrupt_after,
    latents_of,
    rows_of,
    toy_pictures,
    tree,
)
from PIL import Image

from latentcli.core.errors import Interrupted, LatentCliError, UsageError
from latentcli.models.registry import load_model
from latentcli.shards.store.verify import verify_shards

BATCH_TOLERANCE = 2.0**-7
"""Largest relative difference of a stored latent between batch sizes 1 and 8.

One step of bfloat16 is at most 2^-7 of a value. Measured in float32 on a CPU: no difference at all,
neither with the toy nor with fcdm_nano; another CPU or torch may choose other kernels."""
BATCH_SHARE = 0.01
"""Largest share of values that differ at all."""


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_byte(mixed, mixed_store, model, tmp_path, workers):
    encode(mixed, tmp_path / "store", model, workers=workers)
    assert tree(tmp_path / "store") == tree(mixed_store)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("after", [1, 4, 9])
def test_interruptions_change_no_byte(mixed, mixed_store, model, tmp_path, after, number):
    store = tmp_path / "store"
    with pytest.raises(Interrupted, match=signal.Signals(number).name) as caught:
        encode(mixed, store, model, interrupt_after(after, number))
    assert caught.value.exit_code == 75
    assert not [name for name in tree(store) if ".tmp-" in name]
    assert json.loads((store / "manifest.json").read_text())["status"] == "running"
    done = {path: path.stat().st_ino for path in (store / "shards").iterdir()}
    assert len(done) < 14
    encode(mixed, store, model)
    assert tree(store) == tree(mixed_store)
    assert {path: path.stat().st_ino for path in done} == done


def test_interrupted_with_workers(mixed, mixed_store, model, tmp_path):
    store = tmp_path / "store"
    with pytest.raises(Interrupted):
        encode(mixed, store, model, interrupt_after(3), workers=1)
    encode(mixed, store, model, workers=0)
    assert tree(store) == tree(mixed_store)


def test_a_process_ends_with_75_on_sigterm(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 400), tmp_path / "store"
    words = ["encode", pictures, "-o", store, "--model", model, "--workers", "0"]
    words += ["--samples-per-shard", "4", "--no-self-check", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "latentcli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    while not (store / "shards" / "000001.json").exists():
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate()
    assert process.returncode == 75, errors
    assert "same command again" in errors and "Traceback" not in errors
    assert json.loads(out)["exit_code"] == 75
    assert 2 <= len(list((store / "shards").glob("*.json"))) < 100
    assert not [name for name in tree(store) if ".tmp-" in name]


def test_signals_while_workers_start(mixed, model, tmp_path):
    """Ctrl-C and Slurm send a signal to the workers too, before they can look away."""
    store = tmp_path / "store"
    process = subprocess.Popen(
        [*encode_command(mixed, model, workers=2, samples_per_shard=4), "-o", str(store)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    while not (store / "inputs.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
    while len(in_session(process.pid)) < 2 and process.poll() is None:
        pass
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 75, errors


def test_every_input_has_one_row(mixed, mixed_store):
    rows = rows_of(mixed_store)
    keys = [row["key"] for row in rows]
    assert keys == sorted(f"000/{i:06d}" for i in range(25))
    assert sum(row["status"] == "failed" for row in rows) == 2
    assert list(verify_shards(mixed_store)) == []
    assert {name.rpartition("/")[0] for name in latents_of(mixed_store)} == {
        row["key"] for row in rows if row["status"] == "ok"
    }


def test_the_document(mixed, mixed_store, model, tmp_path):
    found = encode(mixed, tmp_path / "store", model)
    assert found["store"] == str(tmp_path / "store")
    assert (found["encoded"], found["skipped"], found["failed"]) == (23, 0, 2)
    assert (found["inputs"], found["shards"]) == (25, 7)
    assert set(found["stages"]) == {"read", "decode_image", "preprocess", "encode", "write"}
    assert {found["stages"][s]["items"] for s in ("read", "decode_image")} == {25}
    assert {found["stages"][s]["items"] for s in ("encode", "write")} == {23}
    assert all(stage["seconds"] > 0 for stage in found["stages"].values())
    assert found["bottleneck"] in found["stages"] and found["images_per_second"] > 0
    assert found["failures"].endswith("failures.jsonl")
    json.dumps(found, allow_nan=False)
    again = encode(mixed, tmp_path / "store", model)
    assert (again["encoded"], again["skipped"], again["failed"]) == (0, 23, 2)
    assert tree(tmp_path / "store") == tree(mixed_store)


def test_latents_are_what_the_model_gives(mixed, mixed_store, raw_store, moments_store, model):
    net = load_model(model)
    whitened, raw, moments = map(latents_of, (mixed_store, raw_store, moments_store))
    for i in (0, 1, 12):
        pixels = np.asarray(Image.open(mixed / "000" / f"{i:06d}.jpg"))
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        posterior = net.encode_posterior(image)
        key = f"000/{i:06d}"
        for found, expected in (
            (whitened[f"{key}/latent"], net.encode(image)),
            (raw[f"{key}/latent"], posterior.mode()),
            (moments[f"{key}/mean"], posterior.mean),
            (moments[f"{key}/logsnr"], posterior.logsnr),
        ):
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found.float(), expected[0], rtol=2**-7, atol=1e-4)


def differences(a: Path, b: Path) -> tuple[float, float]:
    """(largest relative difference, share of values that differ) of two stores' latents."""
    left, right = latents_of(a), latents_of(b)
    assert left.keys() == right.keys()
    x = torch.cat([left[k].float().flatten() for k in left])
    y = torch.cat([right[k].float().flatten() for k in left])
    relative = (x - y).abs() / torch.maximum(x.abs(), y.abs()).clamp_min(1e-2)
    return relative.max().item(), (x != y).float().mean().item()


def test_batch_sizes_agree(mixed, model, tmp_path):
    encode(mixed, tmp_path / "one", model, batch_size=1, samples_per_shard=25)
    encode(mixed, tmp_path / "eight", model, batch_size=8, samples_per_shard=25)
    largest, share = differences(tmp_path / "one", tmp_path / "eight")
    assert largest <= BATCH_TOLERANCE and share <= BATCH_SHARE


def test_batch_sizes_agree_for_the_bundled_model(bundled, photographs, tmp_path):
    encode(photographs, tmp_path / "one", bundled, batch_size=1, size="128")
    encode(photographs, tmp_path / "eight", bundled, batch_size=8, size="128")
    largest, share = differences(tmp_path / "one", tmp_path / "eight")
    assert largest <= BATCH_TOLERANCE and share <= BATCH_SHARE


def test_samples_come_from_seed_and_key(mixed, mixed_store, model, tmp_path):
    for name, options in {
        "a": {"sample": 1, "batch_size": 1},
        "b": {"sample": 1, "batch_size": 5, "samples_per_shard": 25},
        "c": {"sample": 2},
    }.items():
        encode(mixed, tmp_path / name, model, **options)
    largest, share = differences(tmp_path / "a", tmp_path / "b")
    assert largest <= BATCH_TOLERANCE and share <= BATCH_SHARE
    a, c, mode = map(latents_of, (tmp_path / "a", tmp_path / "c", mixed_store))
    for other in (c, mode):
        assert all(not torch.equal(a[name], other[name]) for name in a)


@pytest.fixture
def awkward(tmp_path):
    """(folder, keys of good pictures, key -> stage of bad ones)."""
    folder = tmp_path / "awkward"
    folder.mkdir()
    image = Image.fromarray(scene(96, 64))
    image.save(folder / "plain.jpg")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(wide).save(folder / "sixteen.png")
    image.quantize(16).save(folder / "palette.png")
    rgba = image.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(image.size))
    rgba.save(folder / "rgba.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    image.save(folder / "p3.jpg", icc_profile=rgb_profile(P3_D50, "Display P3"))
    image.convert("L").save(folder / "grey.webp")
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    good = {path.stem for path in folder.iterdir()}
    data = (folder / "plain.jpg").read_bytes()
    (folder / "short.jpg").write_bytes(data[: len(data) // 2])
    (folder / "short.png").write_bytes((folder / "palette.png").read_bytes()[:200])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no picture at all\n")
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>")
    (folder / "bomb.png").write_bytes(bomb_png(60_000, 60_000))
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    Image.fromarray(scene(8, 8)).save(folder / "tiny.png")
    bad = dict.fromkeys(("empty", "text", "page", "bomb"), "decode_image")
    bad |= {"short.jpg": "decode_image", "short.png": "decode_image"}
    return folder, good, bad | {"gone": "read", "tiny": "preprocess"}


def test_bad_inputs(awkward, model, tmp_path):
    folder, good, bad = awkward
    found = encode(folder, tmp_path / "store", model)
    assert (found["encoded"], found["failed"]) == (len(good), len(bad))
    rows = {row["key"]: row for row in rows_of(tmp_path / "store")}
    assert {key for key, row in rows.items() if row["status"] == "ok"} == good
    failures = failures_of(tmp_path / "store")
    assert {key: row["stage"] for key, row in failures.items()} == bad
    for key, row in failures.items():
        assert row["error"] == rows[key]["error"] and len(row["error"]) > 10
        assert not Path(row["source"]).is_absolute()
    assert "empty" in failures["empty"]["error"] and "60000x60000" in failures["bomb"]["error"]
    assert "cut short" in failures["short.jpg"]["error"]
    assert rows["turned"]["original_size"] == [64, 96]
    assert rows["turned"]["latent_shape"] == [8, 6, 4]
    for key, note in {
        "turned": "orientation 6",
        "cmyk": "CMYK",
        "sixteen": "16-bit",
        "rgba": "alpha on white",
        "p3": "Display P3",
        "moving": "first of several frames",
    }.items():
        assert any(note in text for text in rows[key]["notes"]), rows[key]
    latents = latents_of(tmp_path / "store")
    assert torch.equal(latents["plain/latent"], latents["moving/latent"]) is False
    encode(folder, tmp_path / "again", model, workers=1)
    assert tree(tmp_path / "again") == tree(tmp_path / "store")


def test_exit_codes_of_bad_inputs(awkward, model, tmp_path):
    folder, good, bad = awkward
    words = ["encode", folder, "--model", model, "--no-self-check", "--workers", "0"]
    words += ["-o", tmp_path / "store"]
    done = cli(*words)
    assert done.returncode == 3, done.stderr
    assert "failures.jsonl" in done.stderr
    assert f"{len(bad)} of {len(good) + len(bad)}" in done.stderr
    assert cli(*words, "--max-bad", len(bad)).returncode == 0
    assert cli(*words, "--max-bad", "nonsense").returncode == 2


def test_on_error_stop(awkward, mixed, model, tmp_path):
    with pytest.raises(LatentCliError, match=r"bomb\.png failed at decode_image") as caught:
        encode(awkward[0], tmp_path / "store", model, on_error="stop")
    assert caught.value.exit_code == 1
    with pytest.raises(LatentCliError, match="on-error stop"):
        encode(mixed, tmp_path / "mixed", model, on_error="stop")
    records = sorted(path.name for path in (tmp_path / "mixed" / "shards").glob("*.json"))
    assert records == ["000000.json", "000001.json"]
    assert not [name for name in tree(tmp_path / "mixed") if ".tmp-" in name]
    (mixed / "000" / "000010.jpg").stat()
    encode(mixed, tmp_path / "mixed", model)
    encode(mixed, tmp_path / "reference", model)
    assert tree(tmp_path / "mixed") == tree(tmp_path / "reference")


def test_nothing_but_bad_inputs(tmp_path, model):
    folder = tmp_path / "bad"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(b"nothing")
    found = encode(folder, tmp_path / "store", model, self_check=True)
    assert (found["encoded"], found["failed"]) == (0, 3)
    assert list(verify_shards(tmp_path / "store")) == []


def test_a_bad_max_bad_stops_before_the_work(mixed, model, tmp_path):
    with pytest.raises(UsageError, match="max-bad"):
        encode(mixed, tmp_path / "store", model, max_bad="some")
    assert not (tmp_path / "store").exists()


def test_latents_that_are_not_finite(mixed, model, tmp_path):
    from jobkit import changed_model

    def poison(state: dict[str, torch.Tensor]) -> None:
        state["encoder.to_bottleneck.bias"][3] = float("nan")

    broken = changed_model(model, tmp_path / "model", poison)
    found = encode(mixed, tmp_path / "store", broken)
    assert (found["encoded"], found["failed"]) == (0, 25)
    stages = [row["stage"] for row in failures_of(tmp_path / "store").values()]
    assert stages.count("encode") == 23
    with pytest.raises(LatentCliError, match="not finite"):
        encode(mixed, tmp_path / "stopped", broken, on_error="stop")


def test_many_sizes_under_a_low_limit_of_open_files(model, tmp_path):
    """A picture from a worker lies in shared memory, which takes an open file."""
    sizes = [(16 * (1 + i % 20), 16 * (1 + i // 20)) for i in range(200)]
    pictures = toy_pictures(tmp_path / "pictures", 200, sizes)
    done = subprocess.run(
        [
            *encode_command(pictures, model, 1, samples_per_shard=1000),
            "-o",
            str(tmp_path / "store"),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)),
    )
    assert done.returncode == 0, done.stderr
