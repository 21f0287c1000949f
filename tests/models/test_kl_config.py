"""Configs of KL autoencoders that cannot be run, and a diffusers that is absent or too old."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from klkit import TINY, TINY_IMAGE, TINY_VIDEO, folder_of, on_meta

from latentcli.core.errors import LatentCliError, UsageError, WeightsError
from latentcli.models.kl import FAMILY
from latentcli.models.registry import load_model

needs_diffusers = pytest.mark.skipif(find_spec("diffusers") is None, reason="no diffusers")


@needs_diffusers
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"_class_name": "AutoencoderDC"}, "does not match any family"),
        ({"frobnicate": 1}, "AutoencoderKL does not know: frobnicate"),
        ({"batch_norm_eps": 1e-4}, "does not know: batch_norm_eps"),
        ({"latent_channels": "4"}, "latent_channels = '4'; it must be a positive whole number"),
        ({"latent_channels": None}, "latent_channels = None"),
        ({"block_out_channels": [8, 8, 0, 8]}, "block_out_channels"),
        ({"block_out_channels": [8, 8]}, "down_block_types has 4 entries"),
        ({"norm_num_groups": 3}, "diffusers cannot build AutoencoderKL"),
        ({"down_block_types": ["Nothing"] * 4}, "diffusers cannot build AutoencoderKL"),
        ({"act_fn": "rhubarb"}, "diffusers cannot build AutoencoderKL"),
        ({"use_quant_conv": 1}, "use_quant_conv = 1; it must be true or false"),
        ({"in_channels": 4}, "in_channels is 4, pictures have 3"),
        ({"scaling_factor": 0}, "scaling_factor is 0"),
        ({"latents_mean": [0.0] * 4}, "latents_mean and shift_factor"),
        ({"latents_std": [1.0] * 3}, "latents_std has 3 entries"),
    ],
)
def test_config_errors(tmp_path, change, word):
    folder = folder_of(tmp_path / "vae", TINY_IMAGE | change, {"x": torch.zeros(1)})
    with pytest.raises(LatentCliError, match=re.escape(word)):
        load_model(folder)


@needs_diffusers
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"patch_size": [2, 1]}, "patch_size is (2, 1)"),
        ({"decoder_block_out_channels": [8, 8]}, "decoder_block_out_channels has 2 entries"),
        ({"autoencoder": "AutoencoderDC"}, "autoencoder = 'AutoencoderDC'; allowed are"),
        ({"parts": "middle"}, "parts = 'middle'; allowed are both, encoder, decoder"),
    ],
)
def test_config_errors_of_flux2(change, word):
    with pytest.raises(WeightsError, match=re.escape(word)):
        on_meta(TINY | change)


def test_families_are_told_by_their_configs():
    for config in (TINY, TINY_IMAGE, TINY_VIDEO):
        assert FAMILY.recognises(config)
    for name in ("AutoencoderTiny", "AutoencoderDC", None):
        assert not FAMILY.recognises({"_class_name": name})
    assert not FAMILY.recognises({"model_dim": 8})


def without_diffusers(code: str) -> str:
    """What `code` prints in a Python of its own that cannot import diffusers."""
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'diffusers':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    run = [sys.executable, "-c", block + code]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()


def test_absent_diffusers_is_one_sentence_with_the_remedy():
    said = without_diffusers(
        "from latentcli.core.errors import UsageError\n"
        "from latentcli.models.registry import build_model, family\n"
        "assert family('kl').recognises({'_class_name': 'AutoencoderKL'})\n"
        "try:\n"
        "    build_model('flux2')\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )
    assert said == (
        "This model runs through diffusers, which is not installed:"
        " pip install 'latentcli[diffusers]'."
    )


def test_importing_the_family_does_not_import_diffusers():
    code = "import sys, latentcli.models.kl; print('diffusers' in sys.modules)"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True).stdout.strip() == "False"


def test_a_diffusers_without_the_class_is_too_old(monkeypatch):
    old = ModuleType("diffusers")
    old.__dict__["__version__"] = "0.30.0"
    monkeypatch.setitem(sys.modules, "diffusers", old)
    with pytest.raises(UsageError, match=r"diffusers 0\.30\.0 has no working AutoencoderKLFlux2"):
        on_meta(TINY)
