"""A mistyped word gets the right suggestion, before anything heavy is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "PIL", "safetensors", "huggingface_hub")
CODE = (
    "import sys\nfrom latentcli.cli.app import main\ncode = main()\n"
    f"print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stdout)\n"
    "sys.exit(code)"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """photos/, photos.latents/, job.toml and weights.safetensors in the working directory."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos.latents").mkdir()
    (tmp_path / "job.toml").write_text("[model]\nmodle = 'flux2'\n")
    (tmp_path / "weights.safetensors").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("encod photos", "Did you mean 'encode'?"),
        ("models shwo", "Did you mean 'show'?"),
        ("encode photos --modle flux2", "(did you mean '--model'?)"),
        ("encode photos --batchsize 3", "(did you mean '--batch-size'?)"),
        ("encode photos --filter lancos", "(did you mean 'lanczos'?)"),
        ("roundtrip photos --metrics psnr,ssmi", "(did you mean 'ssim'?)"),
        ("export photos.latents --to koyha", "(did you mean 'kohya'?)"),
        ("encode photos --model full_capasitor", "Did you mean full_capacitor?"),
        ("encode photos -m Full_Capacitor", "Did you mean full_capacitor?"),
        ("decode photos.latents -m flux_2", "Did you mean flux2?"),
        ("roundtrip photos -m flux2 -m taefl1=w.pth", "Did you mean taef1?"),
        ("roundtrip photos --decoder flux2_small_decodr", "Did you mean flux2_small_decoder?"),
        ("bench --baseline taesd33", "Did you mean taesd3?"),
        ("budget photos -m sdlx", "Did you mean sdxl?"),
        ("video-embed photos -o x.safetensors -m sdv", "Did you mean svd?"),
        ("models show full_capasitor", "Did you mean full_capacitor?"),
        ("encode phtos", "(did you mean 'photos'?)"),
        ("plan phtos", "(did you mean 'photos'?)"),
        ("roundtrip phtos", "(did you mean 'photos'?)"),
        ("bench --stages phtos --size 32", "(did you mean 'photos'?)"),
        ("video-embed phtos -o x.safetensors", "(did you mean 'photos'?)"),
        ("encode photos --weights wieghts.safetensors", "(did you mean 'weights.safetensors'?)"),
        ("decode photo.latents", "(did you mean 'photos.latents'?)"),
        ("inspect photo.latents", "(did you mean 'photos.latents'?)"),
        ("verify photo.latents", "(did you mean 'photos.latents'?)"),
        ("sync photo.latents", "(did you mean 'photos.latents'?)"),
        ("export photo.latents --to kohya", "(did you mean 'photos.latents'?)"),
        ("card photo.latents", "(did you mean 'photos.latents'?)"),
        ("push photo.latents a/b", "(did you mean 'photos.latents'?)"),
        ("encode photos --config jobs.toml", "(did you mean 'job.toml'?)"),
        ("encode photos --config job.toml", "(did you mean 'model'?)"),
        ("LATENTCLI_SIZ=3 encode photos", "(did you mean 'LATENTCLI_SIZE'?)"),
    ],
)
def test_a_mistyped_word(words: str, near: str) -> None:
    *variables, verb = words.split(" ", 1) if words.startswith("LATENTCLI_") else [words]
    env = {**os.environ, **dict(one.split("=") for one in variables)}
    command = [sys.executable, "-c", CODE, *verb.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode in (1, 2), done.stderr
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert near in error
    assert done.stdout == "\n", "something heavy was loaded"
