"""plan and --dry-run end as encode would with the same words, and say the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from clikit import Result, Run
from PIL import Image

pytestmark = pytest.mark.usefixtures("pictures")

WORDS = ("--size", 32, "-o", "out")


def prepared(cli: Run, toy: list[str]) -> None:
    """A store of the pictures, all of them encoded."""
    assert cli("encode", "images", *toy, *WORDS).code == 0


def with_failure(cli: Run, toy: list[str]) -> None:
    """A store that knows an input that failed."""
    Path("images/bad.png").write_text("no picture")
    assert cli("encode", "images", *toy, *WORDS).code == 3


def of_other_inputs(cli: Run, toy: list[str]) -> None:
    """A store of none of the inputs that are given now."""
    prepared(cli, toy)
    shutil.move("images", "others")
    Path("images").mkdir()
    Image.new("RGB", (50, 50), "red").save("images/new.png")


def foreign(cli: Run, toy: list[str]) -> None:
    """A folder of other things in the place of the store."""
    shutil.copytree("images", "out")


def unreadable(cli: Run, toy: list[str]) -> None:
    """No store, and an input that cannot be read."""
    Path("images/bad.png").write_text("no picture")


def nothing(cli: Run, toy: list[str]) -> None:
    """No store, and inputs that are sound."""


def error(result: Result) -> str:
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    return lines[0] if lines else ""


@pytest.mark.parametrize(
    ("before", "source", "more", "code"),
    [
        (nothing, "images", (), 0),
        (prepared, "images", (), 0),
        (prepared, "images", ("--flip", "both"), 1),
        (of_other_inputs, "images", (), 1),
        (foreign, "images", (), 1),
        (nothing, "nowhere", (), 2),
        (nothing, "images", ("--devices", 999), 2),
        (with_failure, "images", (), 3),
        (with_failure, "images", ("--max-bad", 1), 0),
        (unreadable, "images", (), 3),
        (unreadable, "images", ("--max-bad", "20%"), 0),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "encode --dry-run"])
def test_it_ends_as_encode_does(
    cli: Run,
    toy: list[str],
    verb: str,
    before: Callable[[Run, list[str]], None],
    source: str,
    more: tuple[object, ...],
    code: int,
) -> None:
    before(cli, toy)
    words = (source, *toy, *WORDS, *more)
    planned, made = cli(*verb.split(), *words), cli("encode", *words)
    assert (planned.code, made.code) == (code, code), (planned.err, made.err)
    same = error(made).replace("Everything else is done.", "Encode would end so too.")
    assert error(planned) == same


def test_the_document_is_out_before_the_error(cli: Run, toy: list[str]) -> None:
    prepared(cli, toy)
    planned = cli("plan", "images", *toy, *WORDS, "--flip", "both", "--json")
    assert planned.code == planned.document["exit_code"] == 1
    assert planned.document["refused"][0]["field"] == "latents.flip"
    assert planned.err.endswith(f"error: {planned.document['error']}\n")
    sound = cli("plan", "images", *toy, *WORDS, "--json").document
    assert (sound["exit_code"], sound["error"], sound["failed"]) == (0, None, 0)
