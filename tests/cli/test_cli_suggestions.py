"""A mistyped word gets the right suggestion, before anything heavy is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "safetensors", "huggingface_hub")
CODE = f"""
import contextlib, io, json, os, sys
sys.modules["diffusers"] = None
from latentcli.cli.app import main
found = {{}}
for line in json.load(sys.stdin):
    words = line.split()
    variables = dict(word.split("=") for word in words if word.startswith("LATENTCLI_"))
    os.environ |= variables
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        code = main([word for word in words if not word.startswith("LATENTCLI_")])
    found[line] = code, told.getvalue(), [name for name in {HEAVY} if name in sys.modules]
    for name in variables:
        del os.environ[name]
print(json.dumps(found))
"""
"""Runs command lines one after the other: exit code, messages, and what was loaded until then."""
NEAR = {
    "encod photos": "Did you mean 'encode'?",
    "models shwo": "Did you mean 'show'?",
    "encode photos --modle flux2": "(did you mean '--model'?)",
    "encode photos --batchsize 3": "(did you mean '--batch-size'?)",
    "encode photos --filter lancos": "(did you mean 'lanczos'?)",
    "roundtrip photos --metrics psnr,ssmi": "(did you mean 'ssim'?)",
    "export photos.latents --to koyha": "(did you mean 'kohya'?)",
    "encode photos --model full_capasitor": "Did you mean full_capacitor?",
    "encode photos -m Full_Capacitor": "Did you mean full_capacitor?",
    "decode photos.latents -m flux_2": "Did you mean flux2?",
    "roundtrip photos -m taef2 -m taefl1=w.pth": "Did you mean taef1?",
    "roundtrip photos --decoder flux2_small_decodr": "Did you mean flux2_small_decoder?",
    "bench --baseline taesd33": "Did you mean taesd3?",
    "budget photos -m sdlx": "Did you mean sdxl?",
    "video-embed photos -o x.safetensors -m sdv": "Did you mean svd?",
    "encode photos -m flux1": "no model named 'flux1'. For its latents there is taef1. Presets are",
    "models show full_capasitor": "Did you mean full_capacitor?",
    "encode phtos": "(did you mean 'photos'?)",
    "plan phtos": "(did you mean 'photos'?)",
    "roundtrip phtos": "(did you mean 'photos'?)",
    "bench --stages phtos --size 32": "(did you mean 'photos'?)",
    "video-embed phtos -o x.safetensors": "(did you mean 'photos'?)",
    "encode photos --weights wieghts.safetensors": "(did you mean 'weights.safetensors'?)",
    "decode photo.latents": "(did you mean 'photos.latents'?)",
    "inspect photo.latents": "(did you mean 'photos.latents'?)",
    "verify photo.latents": "(did you mean 'photos.latents'?)",
    "sync photo.latents": "(did you mean 'photos.latents'?)",
    "export photo.latents --to kohya": "(did you mean 'photos.latents'?)",
    "card photo.latents": "(did you mean 'photos.latents'?)",
    "push photo.latents a/b": "(did you mean 'photos.latents'?)",
    "video-distance wieghts.safetensors x.npy": "(did you mean 'weights.safetensors'?)",
    "encode photos --config jobs.toml": "(did you mean 'job.toml'?)",
    "encode photos --config job.toml": "(did you mean 'model'?)",
    "enc photos": "No such command 'enc'. Did you mean 'encode'?",
    "--model flux2 encode photos": "--model. Options stand behind a command, as in",
    "encode photos -q": "No such option: -q. latentcli encode --help-all lists the options.",
    "decode photos.latents --limit 3": "--limit. latentcli decode --help-all lists the options.",
    "decode photos.latents --size 512": "--size. latentcli decode --help-all lists the options.",
    "decode photos.latents out": "(out). latentcli decode takes only STORE without an option;",
    "verify nothing": "nothing is not a latent store: it has no manifest.json. Name the folder",
    "verify photos": "it has no manifest.json (did you mean 'photos.latents'?). Name the folder",
    "verify pictures": "it has no manifest.json (did you mean 'pictures.nano.latents'?). Name the",
    "sync pictures": "it has no manifest.json (did you mean 'pictures.nano.latents'?). Name the",
    "verify pictures.nano.latents/shards": "(did you mean 'pictures.nano.latents'?). Name the",
    "encode photos --config flat.toml": "[size]: size is a key; write it below a line [preprocess]",
    "encode photos --resolution 512": "No such option: --resolution (did you mean '--size' or",
    "encode photos --vae flux2": "(did you mean '--model'?)",
    "encode photos --out x": "(did you mean '--output'?)",
    "encode photos --num-workers 2": "(did you mean '--workers'?)",
    "encode photos --fp16": "(did you mean '--dtype'?)",
    "encode photos --gpu 0": "(did you mean '--device'?)",
    "encode photos --bs=4": "(did you mean '--batch-size'?)",
    "encode photos --caption_extension .txt": "(did you mean '--captions'?)",
    "encode --input photos": "No such option: --input. Sources are named without an option",
    "compress photos": "No such command 'compress'. Did you mean 'encode'?",
    "train photos.latents": "No such command 'train'. latentcli makes latents and trains nothing.",
    "frobnicate": "No such command 'frobnicate'. latentcli --help lists the commands.",
    "help frobnicate": "No such command 'frobnicate'. latentcli --help lists the commands.",
    "models fcdm_nano": "Did you mean 'latentcli models show fcdm_nano'?",
    "models org/name": "Did you mean 'latentcli models show org/name'?",
    "models list": "latentcli models lists the models, and latentcli models show NAME",
    "export photos.latents": "Give the format with --to: kohya,",
    "encode photos --size 250": "needs multiples of 16: try 256x256 or 240x240",
    "encode photos --size 272 -m full_capacitor": "needs multiples of 32: try 288x288 or 256x256",
    "encode photos --size 512 --area 256": "buckets: leave one out.",
    "plan photos --size 512 --area 256": "--size 512 makes all pictures of one size, and --area",
    "plan photos --size 250": "needs multiples of 16: try 256x256 or 240x240",
    "roundtrip photos -m taesd=weights.safetensors --size 100": "multiples of 8: try 104x104 or",
    "bench photos": "To time a job of files: latentcli bench --stages photos",
    "encode photos -o photos": "photos is a source: a latent store has a folder of its own.",
    "encode photos -o weights.safetensors": "weights.safetensors is a file: a latent store is",
    "encode nothing": "nothing holds no inputs: it is empty.",
    "roundtrip nothing": "nothing holds no inputs: it is empty.",
    "encode photos -m capacitor_decoder": "has only a decoder and cannot encode; flux2,",
    **{
        line: f"{line.split()[-1].partition('=')[0]} runs through diffusers, which is not"
        " installed: pip install 'latentcli[diffusers]'."
        for line in (
            "encode photos --model sdxl",
            "decode photos.latents -m flux2",
            "roundtrip photos -m sdxl=weights.safetensors",
            "roundtrip photos --decoder svd",
            "bench -m sdxl",
            "bench --baseline flux2_small_decoder",
        )
    },
    "LATENTCLI_SIZ=3 encode photos": "(did you mean 'LATENTCLI_SIZE'?)",
}
"""A command line, and what its error suggests."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """The outcome of each line, where photos/, photos.latents/ and a few files are."""
    folder = tmp_path_factory.mktemp("near")
    (folder / "photos").mkdir()
    (folder / "photos" / "a.png").touch()
    (folder / "nothing").mkdir()
    (folder / "photos.latents").mkdir()
    (folder / "photos.latents" / "manifest.json").touch()
    (folder / "job.toml").write_text("[model]\nmodle = 'flux2'\n")
    (folder / "flat.toml").write_text("size = 256\n")
    (folder / "weights.safetensors").touch()
    (folder / "pictures").mkdir()
    (folder / "pictures.nano.latents" / "shards").mkdir(parents=True)
    (folder / "pictures.nano.latents" / "manifest.json").touch()
    (folder / "pictures.nano.images.nano.latents").mkdir()
    (folder / "pictures.nano.images.nano.latents" / "manifest.json").touch()
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps(list(NEAR)),
        cwd=folder,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("LATENTCLI_")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", NEAR)
def test_a_mistyped_word_gets_the_right_suggestion_before_anything_heavy_is_loaded(
    found: dict[str, tuple[int, str, list[str]]], line: str
) -> None:
    code, told, heavy = found[line]
    assert code in (1, 2)
    (error,) = (part for part in told.splitlines() if part.startswith("error: "))
    assert NEAR[line] in error
    assert heavy == []
