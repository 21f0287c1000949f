"""How every command tells of failed inputs: in groups, and without praise where all failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from clikit import Run
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("pictures")

LIMIT = ("--max-pixels", "3000")
"""The pictures have 3,072 and 3,840 pixels."""
DOTS = "...x..., ..."
TOO_LARGE = "decode_image: picture is ...x..., ...; the limit is 3,000 (--max-pixels raises it)"


def test_encode_and_inspect_group_what_differs_in_numbers_alone(cli: Run, toy: list[str]) -> None:
    made = cli("encode", "images", *toy, "--size", 32, "-o", "out", *LIMIT)
    assert made.code == 3
    first = f"{TOO_LARGE.replace(DOTS, '48x64, 3,072 pixels')}, as in picture 0"
    assert f"4 inputs failed, listed in out/failures.jsonl:\n  4 x {first}\n" in made.err
    failures = Path("out/failures.jsonl").read_text()
    errors = {json.loads(line)["error"] for line in failures.splitlines()}
    assert len(errors) == 2 and all("pixels; the limit is 3,000" in error for error in errors)
    shown = cli("inspect", "out")
    assert f"4   {first}" in shown.out and "..." not in shown.out
    assert cli("inspect", "out", "--json").document["failures"] == {TOO_LARGE: 4}


def test_roundtrip_groups_as_encode_does(cli: Run, tiny_model: Path) -> None:
    (Path("images") / "small.png").write_bytes(Path("images/picture 0.png").read_bytes())
    words = ("roundtrip", "images", "--model", tiny_model, "--workers", 0, "--size", 32)
    made = cli(*words, "--max-pixels", 3500, "--device", "cpu")
    assert made.code == 3
    line = TOO_LARGE.replace(DOTS, "80x48, 3,840 pixels").replace("3,000", "3,500")
    assert f"2 inputs failed, listed by --json:\n  2 x {line}, as in picture 2\n" in made.err
    told = cli(*words, "--max-pixels", 3500, "--json").document
    assert told["reasons"] == {line: 2} and len(told["failures"]) == 2


def test_decode_groups_as_encode_does(cli: Run, tiny_model: Path) -> None:
    sound = {"good": torch.zeros(8, 2, 2)}
    save_file(sound | {f"bad{n}": torch.zeros(n, 2, 2) for n in (4, 5)}, "f.safetensors")
    words = ("decode", "f.safetensors", "--model", tiny_model, "-o", "back", "--device", "cpu")
    made = cli(*words)
    reason = "decode: the latent has ... channels, the model takes 8"
    assert made.code == 3
    first = f"{reason.replace('...', '4')}, as in bad4"
    assert f"2 inputs failed, listed by --json:\n  2 x {first}\n" in made.err
    assert cli(*words, "--json").document["reasons"] == {reason: 2}


def test_a_job_in_which_all_failed_is_not_praised(cli: Run, toy: list[str]) -> None:
    for path in Path("images").iterdir():
        path.write_text("no picture")
    made = cli("encode", "images", *toy, "--size", 32, "-o", "out")
    assert made.code == 3
    lines = made.err.splitlines()
    assert lines[0] == "encode 4/4, 4 failed"
    assert lines[1].startswith("Encoded 0 images with ") and lines[1].endswith("; 4 failed.")
    assert not any(word in made.err for word in ("images/s", "slowest", "Next:", "decode out"))


def test_decode_in_which_all_failed_is_not_praised(cli: Run, tiny_model: Path) -> None:
    save_file({"bad": torch.zeros(4, 2, 2)}, "f.safetensors")
    made = cli("decode", "f.safetensors", "--model", tiny_model, "-o", "back", "--device", "cpu")
    assert made.code == 3
    assert "images/s" not in made.err and "slowest" not in made.err
    assert "error: 1 of 1 input failed. No input gave a result." in made.err


def test_one_failed_input_is_one_input(cli: Run, toy: list[str]) -> None:
    (Path("images") / "bad.png").write_text("no picture")
    made = cli("encode", "images", *toy, "--size", 32, "-o", "out", "--max-bad", "0%")
    assert made.code == 3
    assert "error: The job stopped: 1 input failed, and --max-bad 0% allows 0 of 5." in made.err
