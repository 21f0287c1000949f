"""The README says what one needs in its first screens, and is short."""

from __future__ import annotations

from harness.pages import DOCS, README

from latentcli.models.presets import load_preset, preset_names

MOST_LINES = 160
SCREEN = 50
"""Lines of a screen."""


def test_it_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_an_install_without_a_gpu_is_told_the_index_without_cuda():
    for page in (README, DOCS / "faq.md"):
        text = page.read_text(encoding="utf-8")
        assert "torch --index-url https://download.pytorch.org/whl/cpu" in text
        assert "pip install -c constraints.txt ." in text


def test_the_models_that_are_missing_are_named():
    listed = README.read_text(encoding="utf-8").partition("\n## Models\n")[2].partition("\n## ")[0]
    assert "SD 1.5, SD 3 and FLUX.1 are not there" in listed
    full = {one.space for one in map(load_preset, preset_names()) if one.family == "kl"}
    assert not full & {"sd1", "sd3", "flux1"}


def test_the_first_two_screens_answer():
    """How to install it, how to encode one's own images, and how to train from the store."""
    first = "\n".join(README.read_text(encoding="utf-8").splitlines()[: 2 * SCREEN])
    for needed in ("pip install", "latentcli encode ./images --model full_capacitor", "Train from"):
        assert needed in first
    assert "LatentDataset(" in first
