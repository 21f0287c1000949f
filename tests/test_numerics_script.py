"""scripts/numerics.py, whose figures decide where a bfloat16 network rounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "numerics.py"


@pytest.mark.slow
def test_a_residual_of_float32_would_gain_nothing_that_shows(photographs: Path) -> None:
    """Of real photographs: what the bfloat16 network loses, and what little of it is the sums'."""
    told = subprocess.run(
        [sys.executable, str(SCRIPT), str(photographs), "--casts", "fcdm_nano"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.strip("| ").split(" | ") for line in told.stdout.splitlines()[1:]]
    assert [row[:2] for row in rows] == [["fcdm_nano", "bfloat16"], ["fcdm_nano", "float32"]]
    (low, near, lost), (kept_low, _, kept_lost) = (
        [float(cell.split()[0]) for cell in row[2:]] for row in rows
    )
    assert 0.75 * low < kept_low < low < 0.6  # percent of the latents' RMS
    assert near > 50  # dB, of pictures decoded in bfloat16 and in float32
    assert abs(lost) < 0.1 and abs(lost - kept_lost) < 0.01  # dB against the photographs
