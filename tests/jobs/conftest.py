"""A toy model, small folders of pictures and their stores, made once for all tests of the jobs."""

from __future__ import annotations

import jobkit
import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return str(jobkit.toy_model(tmp_path_factory.mktemp("model") / "toy"))


@pytest.fixture(scope="session")
def other_model(tmp_path_factory):
    return str(jobkit.toy_model(tmp_path_factory.mktemp("model") / "other", seed=1))


@pytest.fixture(scope="session")
def bundled():
    """The bundled model's name; without its weights the test is skipped."""
    from latentcli.models.pretrained import BUNDLED

    if not (BUNDLED / "fcdm_nano" / "model.safetensors").is_file():
        pytest.skip("the weights of fcdm_nano are not in this checkout")
    return "fcdm_nano"


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """23 pictures of four sizes, in turn, and two that are cut short."""
    return jobkit.toy_pictures(tmp_path_factory.mktemp("mixed"), 25, bad_every=11)


@pytest.fixture(scope="session")
def mixed_store(tmp_path_factory, mixed, model):
    """`mixed` in units of 4 and batches of 3, encoded without interruption or workers."""
    store = tmp_path_factory.mktemp("store") / "mixed"
    jobkit.encode(mixed, store, model)
    return store


@pytest.fixture(scope="session")
def moments_store(tmp_path_factory, mixed, model):
    store = tmp_path_factory.mktemp("store") / "moments"
    jobkit.encode(mixed, store, model, latents="moments")
    return store


@pytest.fixture(scope="session")
def raw_store(tmp_path_factory, mixed, model):
    store = tmp_path_factory.mktemp("store") / "raw"
    jobkit.encode(mixed, store, model, latents="raw")
    return store
