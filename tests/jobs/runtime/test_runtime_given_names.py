"""Models and paths that are not there are refused early, with the sentence of the job itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latentcli.core.errors import LatentCliError, StoreError, UsageError, WeightsError
from latentcli.jobs.config import DecodeJob, EncodeJob
from latentcli.jobs.decode.job import run_decode
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.runtime.given_names import (
    check_decoded,
    check_encoder,
    check_input,
    check_inspected,
    check_model,
    check_new_store,
    check_sides,
    check_source,
    check_store,
    check_weights,
)
from latentcli.jobs.store.inspect import inspect_store
from latentcli.models.registry import load_model
from latentcli.shards.storage.paths import path_of
from latentcli.shards.store.manifest import read_manifest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """photos/ and its store, list.txt and tiny.latents/ in the working directory."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "tiny.latents").mkdir()
    (tmp_path / "photos.tiny.latents").mkdir()
    (tmp_path / "photos.tiny.latents" / "manifest.json").touch()
    (tmp_path / "list.txt").write_text("photos\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("check", "text"),
    [
        *((check_model, text) for text in ("flux2", "a/b", "./photos", "photos", "no/such.toml")),
        *((check_model, text) for text in ("flux2=w.safetensors", "../there/is/none")),
        *((check_source, text) for text in ("photos", "-", "s3://b/none", "pipe:cat x.tar", "@-")),
        *((check_source, text) for text in ("@list.txt", "no*.jpg", "{0..3}.tar", "file:///none")),
        *((check_store, text) for text in ("hf://datasets/a/b", "-")),
        *((check_decoded, text) for text in ("-", "list.txt")),
        *((check_inspected, text) for text in ("photos",)),
        *((check_weights, text) for text in ("list.txt", "~")),
    ],
)
def test_what_is_there_or_only_a_job_can_tell_is_let_through(
    check: Callable[[str], None], text: str
) -> None:
    assert check(text) is None


def test_what_only_a_look_into_a_folder_or_a_model_tells_is_let_through() -> None:
    Path("photos", "notes.txt").touch()
    check_input("photos")
    check_new_store("photos", ["list.txt"])
    check_new_store("tiny.latents", ["photos"])
    check_new_store("s3://b/list.txt", ["s3://b/list.txt"])
    check_sides("250", "org/name")
    check_sides("256", "full_capacitor")
    check_encoder("full_capacitor")


def test_the_name_of_a_model_with_weights_is_looked_at_alone() -> None:
    with pytest.raises(
        UsageError, match=r"There is no model named 'flux_2'\. Did you mean flux2\?"
    ):
        check_model("flux_2=/no/weights.safetensors")


@pytest.mark.parametrize(
    ("check", "text", "job", "kind", "near"),
    [
        (check_model, "flux_2", load_model, UsageError, "Did you mean flux2?"),
        (
            check_source,
            "phtos",
            lambda text: run_encode(EncodeJob(sources=(text,), workers=0)),
            UsageError,
            "(did you mean 'photos'?)",
        ),
        (
            check_source,
            "@lst.txt",
            lambda text: run_encode(EncodeJob(sources=(text,), workers=0)),
            UsageError,
            "(did you mean 'list.txt'?)",
        ),
        (
            check_store,
            "tiny.latent",
            lambda text: read_manifest(path_of(text)),
            StoreError,
            "(did you mean 'tiny.latents'?)",
        ),
        (
            check_store,
            "photos",
            lambda text: read_manifest(path_of(text)),
            StoreError,
            "(did you mean 'photos.tiny.latents'?)",
        ),
        (
            check_decoded,
            "tiny.latent",
            lambda text: run_decode(DecodeJob(store=text)),
            StoreError,
            "(did you mean 'tiny.latents'?)",
        ),
        (check_inspected, "tiny.latent", inspect_store, StoreError, "'tiny.latents'"),
        (
            check_weights,
            "lst.txt",
            lambda text: load_model("flux2", weights=text),
            WeightsError,
            "(did you mean 'list.txt'?)",
        ),
    ],
)
def test_the_sentence_is_that_of_the_job(
    check: Callable[[str], None],
    text: str,
    job: Callable[[str], object],
    kind: type[LatentCliError],
    near: str,
) -> None:
    with pytest.raises(kind) as early:
        check(text)
    with pytest.raises(kind) as late:
        job(text)
    assert str(early.value) == str(late.value)
    assert near in str(early.value)
