"""The first instant of a command: a signal is one line, and a terminal is told what goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from clikit import on_terminal
from harness.moments import Moment

pytestmark = pytest.mark.usefixtures("pictures")

LATENTCLI = (sys.executable, "-m", "latentcli")
IMPORTS = {
    "of the command line": Moment("import", "typer"),
    "of the display": Moment("import", "rich.live"),
    "within torch": Moment("import", "torch.nn.modules.conv"),
}
ENCODE = {
    **IMPORTS,
    "a scan": Moment("os.scandir", "images"),
    "the weights": Moment("open", "model.safetensors"),
    "the first picture": Moment("open", "picture 0.png"),
}


def struck(
    words: Sequence[object], moment: Moment, folder: Path, number: signal.Signals = signal.SIGINT
) -> subprocess.CompletedProcess[str]:
    """A command that gets a signal at a moment."""
    (folder / "hook").mkdir()
    env = {**os.environ, "OMP_NUM_THREADS": "1"} | moment.strike(folder / "hook", number)
    command = [*LATENTCLI, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def check_one_line(done: subprocess.CompletedProcess[str], name: str = "SIGINT") -> None:
    assert done.returncode == 75, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: Stopped by {name}. ")


@pytest.mark.parametrize("when", ENCODE)
def test_ctrl_c_in_the_first_instant_of_encode_is_one_line(
    toy: list[str], tmp_path: Path, when: str
) -> None:
    words = ["encode", "images", *toy, "--size", 32, "-o", "out", "--quiet"]
    done = struck(words, ENCODE[when], tmp_path)
    check_one_line(done)
    assert "Run the same command again" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_other_signals_are_heeded_too(tmp_path: Path, number: signal.Signals) -> None:
    done = struck(["models", "--json"], Moment("import", "typer"), tmp_path, number)
    check_one_line(done, number.name)
    assert done.stdout == (
        f'{{"error": "Stopped by {number.name}. Run the same command again.", "exit_code": 75}}\n'
    )


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        (("decode", "toy.latents", "-o", "back", "--device", "cpu"), Moment("open", "manifest")),
        (("decode", "toy.latents", "-o", "back"), Moment("open", "model.safetensors")),
        (("roundtrip", "images", "--workers", 0), Moment("os.scandir", "images")),
        (("verify", "toy.latents"), Moment("open", "manifest")),
        (("inspect", "toy.latents"), Moment("import", "numpy")),
    ],
)
def test_every_command_ends_so(
    words: tuple[object, ...], moment: Moment, store: Path, tmp_path: Path
) -> None:
    check_one_line(struck([*words, "--quiet"], moment, tmp_path))


def test_processes_of_devices_tell_it_as_soon_as_they_can(toy: list[str], tmp_path: Path) -> None:
    """Each begins with its signals held back: Python itself would answer with a traceback."""
    words = ["encode", "images", *toy, "--size", 32, "-o", "out", "--devices", 2, "--quiet"]
    moment = Moment("import", "latentcli.cli", of="LATENTCLI_LAUNCHED")
    done = struck(words, moment, tmp_path)
    assert done.returncode == 75
    line = "error: Stopped by SIGINT. Run the same command again."
    assert done.stderr.splitlines() == [line] * 2


def test_a_terminal_is_told_what_goes_on_before_anything_heavy_is_loaded(
    toy: list[str], tmp_path: Path
) -> None:
    """The process stands still before its first heavy import until the terminal shows a line."""
    (tmp_path / "hook").mkdir()
    variables, gate = Moment("import", "torch").wait(tmp_path / "hook")
    seen: list[bytes] = []

    def go_on(shown: bytes) -> None:
        if b"Loading ..." in shown and not seen:
            seen.append(shown)
            gate.write_text("go on")

    words = [*LATENTCLI, "encode", "images", *toy, "--size", "32", "-o", "out"]
    code, _, shown = on_terminal(words, columns=80, variables=variables, look=go_on)
    assert code == 0, shown
    order = ["Loading ...", "Looking for inputs ...", "Loading the model ...", "4/4"]
    assert sorted(order, key=shown.index) == order
    assert "Loading" not in shown[shown.index("4/4") :]
