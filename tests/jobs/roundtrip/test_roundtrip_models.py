"""Which models are compared, in which order, and whose encoder each of them uses."""

from __future__ import annotations

import pytest
import torch
from jobkit import changed_model
from presetkit import toy_checkpoint

from latentcli.core.errors import UsageError, WeightsError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.models import check_models, load_compared_models


def job(*models: str, **options: object) -> RoundtripJob:
    return RoundtripJob(sources=("x",), models=models, device="cpu", **options)


def names(found: list) -> list[tuple[str, str, str]]:
    return [(c.name, c.encoder.info.name, c.decoder.info.name) for c in found]


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """flux2, its small decoder and the decoder of capacitor, at toy width."""
    for name in ("flux2", "flux2_small_decoder", "capacitor_decoder", "taef2"):
        toy_checkpoint(tmp_path, name)
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def test_the_baseline_comes_first_and_once(model, other_model):
    found = load_compared_models(job(model, other_model, baseline=other_model))
    assert [c.name for c in found] == ["other", "toy"]
    assert all(c.encoder is c.decoder for c in found)


def test_an_equal_encoder_is_shared(model, tmp_path):
    def retrained(state: dict[str, torch.Tensor]) -> None:
        for name in state:
            if name.startswith("decoder.") and state[name].is_floating_point():
                state[name] = state[name] + 0.01

    def nudged(state: dict[str, torch.Tensor]) -> None:
        name = next(name for name in state if name.startswith("encoder."))
        state[name] = state[name] + 1e-6

    twin = changed_model(model, tmp_path / "twin", retrained)
    near = changed_model(model, tmp_path / "near", nudged)
    first, second, third = load_compared_models(job(model, twin, near))
    assert second.encoder is first.encoder and second.decoder is not first.decoder
    assert (second.name, third.name) == ("twin", "near")
    assert third.encoder is third.decoder


def test_a_decoder_alone_takes_the_latents_of_its_space(presets):
    found = load_compared_models(job("capacitor_decoder", baseline="flux2"))
    assert names(found) == [
        ("flux2", "flux2", "flux2"),
        ("capacitor_decoder", "flux2", "capacitor_decoder"),
    ]
    found = load_compared_models(job("capacitor_decoder", "flux2"))
    assert names(found)[0] == ("capacitor_decoder", "flux2", "capacitor_decoder")


def test_a_decoder_alone_without_an_encoder_names_one(presets):
    for models in (("capacitor_decoder",), ("capacitor_decoder", "fcdm_nano")):
        with pytest.raises(UsageError, match=r"capacitor_decoder has only a decoder.*flux2"):
            check_models(job(*models))
        with pytest.raises(UsageError, match=r"capacitor_decoder has only a decoder.*flux2"):
            load_compared_models(job(*models))


def test_each_model_may_have_its_weights(model, tmp_path):
    toy_checkpoint(tmp_path, "taesd")
    with pytest.raises(WeightsError):
        load_compared_models(job(f"taesd={tmp_path / 'none'}", model))
    first, second = load_compared_models(job(f"taesd={tmp_path / 'taesd'}", model))
    assert first.name == "taesd"
    assert first.decoder.info.weights_path.startswith(str(tmp_path))
    assert second.name == "toy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "x", "baseline": "flux2"}, "NAME=PATH"),
        ({"decoders": ("flux2",), "baseline": "linear16"}, "no --baseline"),
        ({"decoders": ("fcdm_nano",)}, "same name"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(UsageError, match=message):
        check_models(job("fcdm_nano", **options))
