"""What a shell is offered: commands, options, choices, models and values with commas."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from latentcli.models.presets import preset_names

CODE = (
    "import atexit, sys\nfrom latentcli.cli.app import main\n"
    "heavy = ('torch', 'numpy', 'PIL', 'safetensors', 'huggingface_hub')\n"
    "atexit.register(lambda: print(*(m for m in heavy if m in sys.modules), file=sys.stderr))\n"
    "main()"
)


def offered(line: str) -> list[str]:
    """What bash is offered for the last word of a command line."""
    env = {
        **os.environ,
        "_LATENTCLI_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "\n"), "something heavy was loaded"
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("latentcli enc", ["encode"]),
        ("latentcli models s", ["show"]),
        ("latentcli encode --store", ["--store-dtype"]),
        ("latentcli encode --store-dtype f", ["fp16", "fp8"]),
        ("latentcli encode --model fu", ["full_capacitor"]),
        ("latentcli encode -m fu", ["full_capacitor"]),
        ("latentcli roundtrip photos --decoder flux2_", ["flux2_small_decoder"]),
        ("latentcli roundtrip photos --baseline fcdm", ["fcdm_nano"]),
        ("latentcli models show fcdm", ["fcdm_nano"]),
        ("latentcli encode --device c", ["cpu", "cuda"]),
        ("latentcli encode --captions n", ["none"]),
        ("latentcli export x.latents --to koh", ["kohya"]),
        ("latentcli roundtrip --metrics ps", ["psnr"]),
        ("latentcli roundtrip --metrics psnr,ss", ["psnr,ssim", "psnr,ssim_gaussian"]),
        ("latentcli roundtrip --metrics psnr,ssim,ss", ["psnr,ssim,ssim_gaussian"]),
        ("latentcli encode --model ./fu", []),
        ("latentcli encode pho", []),
    ],
)
def test_what_bash_is_offered(line: str, found: list[str]) -> None:
    assert sorted(offered(line)) == found


def test_all_models_are_offered() -> None:
    assert sorted(offered("latentcli bench -m ")) == preset_names()
