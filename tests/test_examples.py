"""The examples, and the script that the page on training names, run as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Pictures of two plain colours in two folders, encoded by the bundled model."""
    from latentcli.jobs.config import EncodeJob
    from latentcli.jobs.encode.job import run_encode

    folder = tmp_path_factory.mktemp("examples")
    random = np.random.default_rng(0)
    for name, colour in {"red": (200, 40, 30), "blue": (30, 60, 190)}.items():
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(12):
            grain = random.integers(-20, 20, (64, 64, 3))
            pixels = np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    path = folder / "photos.latents"
    run_encode(EncodeJob(sources=(str(folder / "photos"),), size="64", output=str(path), workers=0))
    return path


def run(folder, script, *words):
    """A script's outcome."""
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_flow_learns_and_draws(store, tmp_path):
    words = ["--steps", "40", "--batch", "8", "--width", "64", "--depth", "2", "--lr", "3e-3"]
    ran = run(tmp_path, "examples/train_flow.py", store, "--out", "flow", *words)
    assert ran.returncode == 0, ran.stderr
    lines = (tmp_path / "flow" / "loss.csv").read_text().splitlines()
    losses = [float(line.partition(",")[2]) for line in lines[1:]]
    assert len(losses) == 40
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    with Image.open(tmp_path / "flow" / "samples.png") as image:
        assert image.size == (8 * 64, 6 * 64)
        top = np.asarray(image)[:64].reshape(64, 8, 64, 3).mean(axis=(0, 2))
    # The columns are the two folders in turns, and the first row comes from the store.
    assert all(top[::2, 2] > 150) and all(top[1::2, 0] > 150)
    assert "Pictures: flow/samples.png" in ran.stdout


def test_crops_of_textures(tmp_path):
    ran = run(tmp_path, "examples/textures.py", "--out", "textures", "--count", "2")
    assert ran.returncode == 0, ran.stderr
    paths = sorted((tmp_path / "textures").rglob("*.png"))
    assert [path.relative_to(tmp_path / "textures").as_posix() for path in paths] == [
        f"{name}/{i:04d}.png"
        for name in ("brick", "galaxies", "grass", "gravel", "retina", "tissue")
        for i in range(2)
    ]
    for path in paths:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((96, 96), "RGB")
    assert len({path.read_bytes() for path in paths}) == len(paths)


def test_the_rates_of_a_loop_are_told(store, tmp_path):
    words = ["--batch", "8", "--turns", "1"]
    ran = run(tmp_path, "scripts/input_rate.py", store.with_name("photos"), store, *words)
    assert ran.returncode == 0, ran.stderr
    lines = [line.split("  ")[0] for line in ran.stdout.splitlines()]
    assert lines == ["LatentDataset", "safetensors alone", "on the fly, fcdm_nano"]
    assert all("latents/s" in line for line in ran.stdout.splitlines())


def test_the_time_of_decoding_is_told(store):
    words = ["--sides", "64", "--size", "32", "--turns", "1", "--most", "2"]
    ran = run(store.parent, "scripts/decode_time.py", store.with_name("photos"), *words)
    assert ran.returncode == 0, ran.stderr
    times, closeness = (table.splitlines()[1:] for table in ran.stdout.split("\n\n"))
    for name, line in zip(("Pillow", "whole", "as encode"), times, strict=True):
        assert line.startswith("64 to 32") and name in line
        assert all(float(word) > 0 for word in line.split()[-4:])
    assert all(float(line.split()[-1]) > 0 for line in closeness)


@pytest.mark.slow
def test_the_time_of_the_main_process_is_told_by_thread(tmp_path):
    words = ["--sizes", "32", "--pictures", "96", "--workers", "1", "--turns", "1"]
    ran = run(tmp_path, "scripts/main_process_time.py", *words)
    assert ran.returncode == 0, ran.stderr
    total, *lines = ran.stdout.splitlines()
    # The name of a thread may have a space.
    rows = (line.rsplit(maxsplit=1) for line in lines)
    threads = {name.strip(): int(time) for name, time in rows}
    assert {"main", "supervisor", "dispatch", "other"} <= set(threads)
    assert total == f"32x32: {total.split()[1]} us a picture"
    assert abs(int(total.split()[1]) - sum(threads.values())) <= len(threads)
