"""The README says what one needs in its first screens, and is short."""

from __future__ import annotations

from harness.pages import README

MOST_LINES = 160
SCREEN = 50
"""Lines of a screen."""


def test_it_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_the_first_two_screens_answer():
    """How to install it, how to encode one's own images, and how to train from the store."""
    first = "\n".join(README.read_text(encoding="utf-8").splitlines()[: 2 * SCREEN])
    for needed in ("pip install", "latentcli encode ./images --model full_capacitor", "Train from"):
        assert needed in first
    assert "LatentDataset(" in first
