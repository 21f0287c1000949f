"""Standard streams that are closed, full or gone: talk is dropped, lost data is told."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from harness.stores import tree

pytestmark = pytest.mark.usefixtures("pictures")

LATENTCLI = f"{sys.executable} -m latentcli"
FULL = Path("/dev/full")


def shell(words: str, redirections: str) -> subprocess.CompletedProcess[str]:
    """A command line with redirections of its own; what it does not redirect is read here."""
    script = f"exec {LATENTCLI} {words} {redirections}"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env)


@pytest.fixture
def encode(toy: list[str]) -> str:
    """The job that made `store`."""
    return " ".join(["encode images", *toy, "--size 32"])


@pytest.mark.parametrize(
    "redirections", ["--workers 1 <&- >&- 2>&-", "2>/dev/full", "--quiet 2>&-"]
)
def test_a_job_does_not_need_anybody_to_talk_to(
    encode: str, store: Path, redirections: str
) -> None:
    """No file of the store gets the number of a closed stream, and so what is printed."""
    done = shell(f"{encode} -o out", redirections)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert tree(Path("out") / "shards") == tree(store / "shards")
    assert json.loads(Path("out/manifest.json").read_text())["status"] == "complete"


def test_nor_do_the_processes_of_devices(encode: str, store: Path) -> None:
    done = shell(f"{encode} -o out --devices 2", "<&- >&- 2>&-")
    assert done.returncode == 0
    assert tree(Path("out") / "shards") == tree(store / "shards")


def test_a_terminal_that_goes_away_does_not_end_the_job(encode: str, store: Path) -> None:
    words = f"{LATENTCLI} {encode} -o out".split()
    master, slave = pty.openpty()
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    assert select.select([master], [], [], 60)[0] and os.read(master, 100)
    os.close(master)
    assert process.wait() == 0
    assert tree(Path("out") / "shards") == tree(store / "shards")


@pytest.mark.parametrize("words", ["models show fcdm_nano", "--help", "--version"])
def test_data_that_cannot_be_written_is_an_error(words: str) -> None:
    done = shell(words, f">{FULL}")
    assert done.returncode == 1
    assert done.stderr == (
        "error: Standard output cannot be written: No space left on device. What the command made"
        " elsewhere is kept.\n"
    )


def test_a_job_whose_document_cannot_be_written_is_done_all_the_same(
    encode: str, store: Path
) -> None:
    done = shell(f"{encode} -o out --json --quiet", f">{FULL}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: Standard output cannot be written: No space left")
    assert tree(Path("out") / "shards") == tree(store / "shards")


@pytest.mark.parametrize(
    ("words", "redirections", "told"),
    [
        ("decode - -o back", "<&-", "Standard input is closed; - reads a tar stream from it."),
        ("encode images -o -", ">&-", "Standard output is closed; -o - writes a tar stream to it."),
    ],
)
def test_a_stream_that_is_an_end_of_the_job_must_be_there(
    words: str, redirections: str, told: str
) -> None:
    done = shell(words, redirections)
    assert done.returncode == 2
    assert f"error: {told}\n" in done.stderr
