"""What a shell is offered: commands, options, choices, models and values with commas."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from latentcli.models.presets import preset_names

CODE = """
import contextlib, io, json, os, sys
from latentcli.cli.app import main
found = {}
for line in json.load(sys.stdin):
    os.environ |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main()
    heavy = [m for m in ("torch", "numpy", "PIL", "huggingface_hub") if m in sys.modules]
    found[line] = sorted(shown.getvalue().split()), heavy
print(json.dumps(found))
"""
"""Completes command lines one after the other: what is offered, and what was loaded until then."""
ALL_MODELS = "latentcli bench -m "
OFFERED = {
    "latentcli enc": ["encode"],
    "latentcli models s": ["show"],
    "latentcli encode --store": ["--store-dtype"],
    "latentcli encode --store-dtype f": ["fp16", "fp8"],
    "latentcli encode --model fu": ["full_capacitor"],
    "latentcli encode -m fu": ["full_capacitor"],
    "latentcli roundtrip photos --decoder flux2_": ["flux2_small_decoder"],
    "latentcli roundtrip photos --baseline fcdm": ["fcdm_nano"],
    "latentcli models show fcdm": ["fcdm_nano"],
    "latentcli encode --device c": ["cpu", "cuda"],
    "latentcli encode --captions n": ["none"],
    "latentcli export x.latents --to koh": ["kohya"],
    "latentcli roundtrip --metrics ps": ["psnr"],
    "latentcli roundtrip --metrics psnr,ss": ["psnr,ssim", "psnr,ssim_gaussian"],
    "latentcli roundtrip --metrics psnr,ssim,ss": ["psnr,ssim,ssim_gaussian"],
    "latentcli encode --model ./fu": [],
    "latentcli encode pho": [],
    ALL_MODELS: preset_names(),
}
"""A command line, and what its last word may become."""


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[list[str], list[str]]]:
    """What bash is offered for each line."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps(list(OFFERED)),
        capture_output=True,
        text=True,
        env={**os.environ, "_LATENTCLI_COMPLETE": "complete_bash"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", OFFERED)
def test_a_shell_is_offered_what_fits_before_anything_heavy_is_loaded(
    found: dict[str, tuple[list[str], list[str]]], line: str
) -> None:
    offered, heavy = found[line]
    assert offered == OFFERED[line]
    assert heavy == []
