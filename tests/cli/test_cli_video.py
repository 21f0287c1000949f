"""`video-embed` and `video-distance`: their options are their jobs' fields, as told in the help."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clikit import Run
from typer.main import get_command

from latentcli.cli.app import app
from latentcli.jobs.config import CHOICES
from latentcli.jobs.video.config import VIDEO_CHOICES, VideoDistanceJob, VideoEmbedJob

JOBS = {"video-embed": VideoEmbedJob, "video-distance": VideoDistanceJob}


def parameters(verb: str) -> dict[str, Any]:
    return {p.name: p for p in get_command(app).commands[verb].params}


@pytest.mark.parametrize("verb", JOBS)
def test_the_options_are_the_fields_of_the_job(verb: str) -> None:
    named = parameters(verb).keys() - {"help", "json", "quiet"}
    assert named == {field.name for field in fields(JOBS[verb])}


@pytest.mark.parametrize("verb", JOBS)
def test_help_tells_the_defaults_and_the_choices(verb: str) -> None:
    options = parameters(verb)
    for field in fields(JOBS[verb]):
        text = options[field.name].help
        for choice in (CHOICES | VIDEO_CHOICES).get(field.name, ()):
            assert re.search(rf"\b{choice}\b", text), (field.name, choice)
        if field.default in (None, "", ()) or isinstance(field.default, bool):
            continue
        told = rf"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        default = rf"{told} \(default|Default: {told}\b|\(default\)"
        assert re.search(default, text), (field.name, text)


def files(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for name, shift in (("a", 0.0), ("b", 1.0)):
        np.save(folder / f"{name}.npy", rng.normal(size=(500, 4)) + shift)
    return [str(folder / "a.npy"), str(folder / "b.npy")]


def test_variables_set_options(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = files(tmp_path)
    assert cli("video-distance", *pair, "--json").document["compat"] == "centred"
    monkeypatch.setenv("LATENTCLI_COMPAT", "uncentred")
    assert cli("video-distance", *pair, "--json").document["compat"] == "uncentred"
    again = cli("video-distance", *pair, "--compat", "centred", "--json")
    assert again.document["compat"] == "centred"
    assert again.document["distance"] == pytest.approx(4, abs=0.8)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["video-embed", "-o", "f.safetensors"], "Give what to read"),
        (["video-embed", "x", "-o", "f.safetensors", "--frames", "some"], "--frames is 'some'"),
        (["video-embed", "x", "-o", "f.npy"], "must end in .safetensors"),
        (["video-distance", "a.npy", "b.npy"], "There is no file a.npy"),
        (["video-distance", "a.npy", "b.pkl", "--compat", "raw"], "allowed are centred"),
    ],
)
def test_wrong_usage(
    cli: Run, words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
