"""linear16: its figure on Kodak, its maths, its file and how it is made, and the page about it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from latentcli.core.errors import WeightsError
from latentcli.models.linear import FAMILY, LinearAutoencoder
from latentcli.models.presets import load_preset
from latentcli.models.pretrained import BUNDLED
from latentcli.models.registry import load_model
from latentcli.models.weights import file_sha256

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "internals" / "adding-a-model.md").read_text(encoding="utf-8")
WEIGHTS = BUNDLED / "linear16" / "model.safetensors"
KODAK_PSNR = 33.51
MOST_BYTES = 210_000


@pytest.fixture(scope="module")
def linear16() -> LinearAutoencoder:
    model = load_model("linear16")
    assert isinstance(model, LinearAutoencoder)
    return model


def pixels_of(path: Path) -> Tensor:
    """[1, 3, H, W] in 0..255, sides cut to multiples of 16."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float()
    return pixels[..., : pixels.shape[-2] // 16 * 16, : pixels.shape[-1] // 16 * 16]


def psnr(model: LinearAutoencoder, pixels: Tensor) -> float:
    """8 bit PSNR of a picture through latents rounded to bfloat16."""
    latents = model.encode(pixels / 127.5 - 1).bfloat16()
    levels = ((model.decode(latents).clamp(-1, 1) + 1) * 127.5).round()
    return 10 * torch.log10(255**2 / (levels - pixels).square().mean()).item()


def test_kodak(linear16, shared):
    paths = sorted((shared / "images" / "kodak").glob("*.png"))
    assert len(paths) == 24
    mean = np.mean([psnr(linear16, pixels_of(path)) for path in paths])
    assert mean == pytest.approx(KODAK_PSNR, abs=0.01)
    assert load_preset("linear16").published["kodak_psnr"] == KODAK_PSNR


def test_photographs_without_the_shared_folder(linear16, photographs):
    """astronaut, coffee and chelsea, at 256 pixels: 31.3, 30.9 and 36.4 dB."""
    for name, least in (("astronaut", 31.0), ("coffee", 30.5), ("chelsea", 36.0)):
        assert psnr(linear16, pixels_of(photographs / f"{name}.png")) > least


def test_basis_is_orthonormal_and_sorted(linear16):
    unit = linear16.basis @ linear16.basis.T
    assert (unit - torch.eye(128)).abs().max() < 2e-4, "float16 storage"
    assert (linear16.running_var.diff() < 0).all()


def test_encode_is_the_projection_of_patches_and_decode_its_transpose(linear16):
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    patches = torch.nn.functional.unfold(images, 16, stride=16)
    centred = patches - linear16.patch_mean[:, None]
    raw = (linear16.basis @ centred).view(2, 128, 2, 3)
    std = linear16.running_var.sqrt().view(1, -1, 1, 1)
    torch.testing.assert_close(linear16.encode(images), raw / std, atol=1e-4, rtol=0)
    back = linear16.basis.T @ raw.flatten(2) + linear16.patch_mean[:, None]
    expected = torch.nn.functional.fold(back, (32, 48), 16, stride=16)
    torch.testing.assert_close(linear16.decode(raw / std), expected, atol=1e-5, rtol=0)


def test_decoded_pictures_come_back_exactly(linear16):
    images = linear16.decode(torch.randn(1, 128, 2, 2, generator=torch.Generator().manual_seed(0)))
    again = linear16.decode(linear16.encode(images))
    assert (again - images).abs().max() < 2e-3 * images.abs().max()


def test_bfloat16_changes_nothing(linear16):
    asked = load_model("linear16", dtype="bf16")
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert asked.dtype == torch.float32
    assert torch.equal(asked.encode(images), linear16.encode(images))


def test_the_bundled_file(linear16):
    assert WEIGHTS.stat().st_size < MOST_BYTES
    assert load_file(WEIGHTS)["basis"].dtype == torch.float16
    assert file_sha256(WEIGHTS) == load_preset("linear16").sha256
    assert (linear16.info.origin, linear16.spec.space) == ("bundled", "latentcli/linear16")
    assert f"{WEIGHTS.stat().st_size:,} bytes" in PAGE


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"pca_components": 8},
        {"patch_size": 0, "pca_components": 8},
        {"patch_size": 4, "pca_components": 8.0},
        {"patch_size": 4, "pca_components": 8, "whiten": True},
    ],
)
def test_config_errors(config):
    with pytest.raises(WeightsError, match="patch_size and pca_components, positive whole numbers"):
        FAMILY.build(config, None)


def train(output: Path, *tars: Path) -> None:
    script = ROOT / "scripts" / "train_linear.py"
    command = [sys.executable, script, "--images", *tars, "--output", output]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def test_the_script_makes_a_model(tmp_path, photographs):
    names = ("chelsea", "astronaut", "coffee")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for name in names:
            data = (photographs / f"{name}.png").read_bytes()
            member = tarfile.TarInfo(f"{name}.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    for folder in ("one", "two"):
        train(tmp_path / folder, tmp_path / "photos.tar")
    files = [tmp_path / folder / "model.safetensors" for folder in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    model = load_model(tmp_path / "one")
    astronaut = pixels_of(photographs / "astronaut.png")
    # Two photographs of 256 pixels are enough for 28.8 dB, on a patch grid of another offset.
    assert psnr(model, astronaut) > 28.5
    std = model.encode(astronaut / 127.5 - 1).std()
    assert 0.5 < std < 2, "latents are whitened by the photographs' own variances"


@pytest.mark.slow
def test_the_script_makes_the_bundled_file_again(tmp_path, shared):
    names = ("train-cid22.tar", "train-clic.tar")
    train(tmp_path, *(shared / "images" / name for name in names))
    made, bundled = load_file(tmp_path / "model.safetensors"), load_file(WEIGHTS)
    assert made.keys() == bundled.keys()
    for name, tensor in bundled.items():
        # Another processor may round the last float16 digit otherwise.
        torch.testing.assert_close(made[name].float(), tensor.float(), atol=1e-3, rtol=1e-3)
    config = "linear16/config.json"
    assert (tmp_path / "config.json").read_text() == (BUNDLED / config).read_text()


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_quotes_the_code_as_it_is():
    quoted = ("latentcli/models/linear.py", "tests/models/contractkit.py")
    sources = [(ROOT / path).read_text(encoding="utf-8") for path in quoted]
    excerpts = fenced("python")
    assert len(excerpts) >= 6
    for excerpt in excerpts:
        assert any(f"\n{excerpt}" in source for source in sources), excerpt
    preset = (ROOT / "configs" / "models" / "linear16.toml").read_text(encoding="utf-8")
    assert fenced("toml") == [preset]
    lines = len(sources[0].splitlines())
    assert f"`latentcli/models/linear.py` has {lines} lines" in PAGE


def test_the_page_names_files_that_exist():
    paths = re.findall(r"`([\w-]+(?:/[\w.-]+)+/?)`", PAGE)
    assert len(set(paths)) >= 6
    for path in paths:
        assert (ROOT / path).exists(), path
    for path in re.findall(r"python (scripts/\S+)", PAGE):
        assert (ROOT / path).is_file()
