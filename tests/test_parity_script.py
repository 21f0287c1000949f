"""scripts/parity.py on golden data, stated figures, toy checkpoints, and beside other code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from latentcli.models.fcdm import FAMILY as FCDM
from latentcli.models.weights import random_state

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
GOLDEN = ("dinac_small_d4", "dinac_small_d8", "fcdm_small", "fcdm_small_p32")

OWN_PACKAGE = """
from latentcli.models import FullCapacitor as Ours, FullCapacitorInferenceConfig

class FullCapacitor:
    @classmethod
    def from_pretrained(cls, path, device, dtype):
        self = cls()
        self.model = Ours.from_pretrained(path, device=device, dtype=dtype)
        return self

    def encode(self, images):
        return self.model.encode(images) + OFFSET

    def decode(self, latents, height, width, inference_config):
        return self.model.decode(latents, height, width, inference_config)
"""
"""A stand-in for the package that a model's authors publish, with an error of OFFSET."""


def parity(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script as a user runs it."""
    command = [sys.executable, str(SCRIPTS / "parity.py"), *map(str, words)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "80", **variables}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def main():
    """The script's main function: a new process takes seconds to import torch and diffusers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        patch.setenv("COLUMNS", "80")
        spec = spec_from_file_location("parity_script", SCRIPTS / "parity.py")
        assert spec is not None and spec.loader is not None
        script = module_from_spec(spec)
        spec.loader.exec_module(script)
        yield lambda *words: script.main([str(word) for word in words])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(values).resize((96, 64)).save(path)
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder with a toy FCDM checkpoint, as repositories hold them."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(FCDM.tiny)))
    save_file(random_state(lambda: FCDM.build(FCDM.tiny, None), 1), folder / "model.safetensors")
    return folder


def toy_preset(folder: Path, floor: float = -100) -> Path:
    """A preset file of the toy network, under the name of one whose authors have a package."""
    path = folder / "full_capacitor.toml"
    config = "\n".join(f"{key} = {value!r}" for key, value in FCDM.tiny.items())
    path.write_text(
        'family = "fcdm"\nsummary = "toy"\nlicence = "none"\ncard = "none"\n'
        f'[config]\n{config}\n[weights]\nrepo = "toy/toy"\n[latents]\nspace = "toy"\n'
        f"channels = {FCDM.tiny['bottleneck_dim']}\ndownscale = 16\nsize_divisor = 32\n"
        f"[self_check]\npsnr_floor = {floor}\n"
    )
    return path


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs the authors' package, with an error of its latents."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(offset: str) -> None:
        (tmp_path / "full_capacitor.py").write_text(OWN_PACKAGE.replace("OFFSET", offset))

    yield install
    sys.modules.pop("full_capacitor", None)


def rewrite(path: Path, change) -> None:
    """Changes the tensors of a safetensors file."""
    state = load_file(path)
    change(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


def test_golden_vectors(shared):
    done = parity("--golden", shared / "golden")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (*GOLDEN, "class token", "posterior", "ddim_linear_10_pdg2", "strength0"):
        assert word in done.stdout
    assert "All 73 comparisons" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_golden_model_that_differs(shared, tmp_path, main, capsys):
    for path in (shared / "golden").glob("fcdm_small_p32.*"):
        shutil.copyfile(path, tmp_path / path.name)
    weights = tmp_path / "fcdm_small_p32.safetensors"
    rewrite(weights, lambda state: state["decoder.out_proj.bias"].add_(1e-3))
    assert main("--golden", tmp_path) == 1
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert all(line.endswith("DIFFERS") for line in lines if line.startswith("  ddim"))
    assert any(line.startswith("  latents") and line.endswith("ok") for line in lines)


def test_facts(shared, main, capsys):
    assert main("--facts", shared / "facts") == 0
    out = capsys.readouterr().out
    presets = "flux2 sdxl svd taesd taesd3 tae192 tae_temporal effvit_sdxl dinac_ae semdisdiffae"
    for word in (*presets.split(), "whitened", "decoded_nf8", "names (with aliases)"):
        assert f"{word} " in out
    assert max(map(len, out.splitlines())) <= 80


def test_facts_without_the_model(shared, main, capsys):
    assert main("--facts", shared / "facts", "fcdm_nano") == 2
    assert "no numbers of fcdm_nano" in capsys.readouterr().err


def test_facts_of_another_network(shared, tmp_path, main, capsys):
    for name in ("manifests", "parity"):
        (tmp_path / name).mkdir()
    shutil.copyfile(
        shared / "facts" / "parity" / "effvit_decoder.npz",
        tmp_path / "parity" / "effvit_decoder.npz",
    )
    manifest = shared / "facts" / "manifests" / "effvit_decoder.json"
    document = json.loads(manifest.read_text())
    lost = next(iter(document))
    copy = tmp_path / "manifests" / manifest.name
    copy.write_text(json.dumps({name: form for name, form in document.items() if name != lost}))
    assert main("--facts", tmp_path, "effvit_svd") == 1
    assert f"1 missing: {lost}" in capsys.readouterr().out


def test_stated_figures_of_taef2(shared, main, capsys):
    facts = shared / "facts" / "parity"
    code = main(
        *("taef2", "--weights", shared / "weights" / "taef2"),
        *("--images", shared / "images" / "kodak" / "kodim23.png"),
        *("--reference", facts / "taef2_reference.json"),
    )
    out = capsys.readouterr().out
    assert code == 0
    for word in ("5,369,534 bytes", "158 float16", "33.3418", "SSIM 0.9310", "kodim23_crop"):
        assert word in out
    assert "reconstruction" in out and "All 5 comparisons" in out


def test_stated_figures_that_are_not_met(toy, picture, tmp_path, main, capsys):
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps({"set": {"per_image": {"picture.png": {"psnr": 30.0}}}}))
    assert main(toy, "--images", picture, "--reference", reference) == 1
    assert "DIFFERS" in capsys.readouterr().out
    reference.write_text(json.dumps({"set": {"per_image": {"other.png": {"psnr": 30.0}}}}))
    assert main(toy, "--images", picture, "--reference", reference) == 2
    assert "no figures for picture.png" in capsys.readouterr().err


def test_a_checkpoint_without_another_implementation(toy, picture, main, capsys):
    path = toy / "model.safetensors"
    rewrite(path, lambda state: [tensor.copy_(tensor.bfloat16()) for tensor in state.values()])
    assert main(toy, "--images", picture) == 0
    out = capsys.readouterr().out
    count = len(load_file(path))
    assert f"zero in {count} of {count} float32 tensors: bf16 values in an fp32 file" in " ".join(
        out.split()
    )
    assert f"{path.stat().st_size:,} bytes" in out and f"{count} float32" in out
    assert "picture.png   96x64" in out and "channels: mean |mean|" in out
    assert "no package is known" in out
    # The highest bit that bfloat16 has not.
    rewrite(path, lambda state: state["encoder.to_bottleneck.bias"].fill_(1 + 2**-8))
    assert main(toy, "--images", picture) == 0
    assert f"zero in {count - 1} of {count} float32 tensors" in capsys.readouterr().out


def test_without_pictures(toy, main, capsys):
    assert main(toy) == 0
    assert "astronaut.png   256x256" in capsys.readouterr().out


def test_a_wrong_tensor_is_named(toy, main, capsys):
    name = "encoder.to_bottleneck.bias"
    rewrite(toy / "model.safetensors", lambda state: state.update({name: torch.zeros(3)}))
    assert main(toy) == 1
    assert name in capsys.readouterr().err


def test_second_names_are_listed(shared, tmp_path, picture, main, capsys):
    for old, new in (("config.json", "config.json"), ("safetensors", "model.safetensors")):
        shutil.copyfile(shared / "golden" / f"dinac_small_d8.{old}", tmp_path / new)
    assert main(tmp_path, "--images", picture) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "tensors 170" in out and "all 160 tensors" in out
    assert "aliases 10: dino_token_alignment_head.block.proj_out.weight" in out


def test_diffusers_tiny(tmp_path, picture, main, capsys):
    diffusers = pytest.importorskip("diffusers")
    widths = (8, 8, 8, 8)
    torch.manual_seed(0)
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=widths, decoder_block_out_channels=widths
    )
    vae.save_pretrained(tmp_path / "tiny")
    assert main(tmp_path / "tiny", "--images", picture) == 0
    out = capsys.readouterr().out
    assert "AutoencoderTiny" in out and "All 2 comparisons" in out
    # The same tensors under another file name go through our names.
    weights = tmp_path / "other.safetensors"
    shutil.copyfile(tmp_path / "tiny" / "diffusion_pytorch_model.safetensors", weights)
    assert main(tmp_path / "tiny", "--weights", weights, "--images", picture) == 0
    assert "All 2 comparisons" in capsys.readouterr().out


@pytest.mark.parametrize("class_name", ["AutoencoderKL", "AutoencoderKLFlux2"])
def test_diffusers_kl(class_name, tmp_path, picture, main, capsys):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    widths = (8, 16, 16, 16)
    vae = getattr(diffusers, class_name)(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )
    if class_name == "AutoencoderKLFlux2":
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.01, 2)
    vae.save_pretrained(tmp_path / "kl")
    assert main(tmp_path / "kl", "--images", picture) == 0
    out = capsys.readouterr().out
    assert class_name in out and "All 2 comparisons" in out


@pytest.mark.parametrize(("offset", "code"), [("0.0", 0), ("0.01", 1)])
def test_the_authors_own_package(offset, code, own_package, toy, tmp_path, picture, main, capsys):
    own_package(offset)
    assert main(toy_preset(tmp_path), "--weights", toy, "--images", picture) == code
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "full_capacitor FullCapacitor" in out
    latents = next(line for line in lines if line.startswith("  latents"))
    assert latents.rstrip().endswith("DIFFERS" if code else "ok")
    assert next(line for line in lines if line.startswith("  pictures")).rstrip().endswith("ok")
    assert "none of the sizes it should have: 458,783,216" in " ".join(out.split())


def test_a_package_that_fails(own_package, toy, tmp_path, picture, main, capsys):
    own_package("None")
    assert main(toy_preset(tmp_path), "--weights", toy, "--images", picture) == 1
    assert "full_capacitor FullCapacitor is installed but does not run" in capsys.readouterr().err


def test_photographs_below_the_floor(toy, tmp_path, picture, main, capsys):
    preset = toy_preset(tmp_path, floor=18)
    assert main(preset, "--weights", toy, "--images", picture) == 1
    out = capsys.readouterr().out
    assert "the floor is 18" in out and "full_capacitor is not installed" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "Name a model"),
        (("--golden", ".", "--device", "cuda"), "leave out --device"),
        (("--golden", "."), "no golden vectors"),
        (("--facts", "."), "none of the files"),
        (("no_such_model",), "no model named 'no_such_model'"),
        (("fcdm_nano", "--images", "nowhere.png"), "no picture or folder nowhere.png"),
    ],
)
def test_wrong_usage(words, told, tmp_path, monkeypatch, main, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(*words) == 2
    assert told in capsys.readouterr().err


def test_absent_weights(tmp_path, main, capsys):
    assert main("taesd", "--weights", tmp_path / "nowhere") == 2
    err = capsys.readouterr().err
    assert "There are no weights at" in err and "Traceback" not in err
