"""--compile of roundtrip: every model of the comparison has code for its full batches."""

from __future__ import annotations

import pytest
import torch
from compilekit import traced

from latentcli.core.errors import UsageError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.runtime.reporter import Reporter

__all__ = ["traced"]


def roundtrip(source, *models: str, reporter: Reporter | None = None, **options):
    settings = {
        "sources": (str(source),),
        "models": models,
        "device": "cpu",
        "metrics": ("psnr",),
        "workers": 0,
        "batch_size": 3,
        "max_bad": "100%",
    }
    return run_roundtrip(RoundtripJob(**settings | options), reporter or Reporter())


def test_all_models_are_compiled_before_the_first_picture(mixed, model, other_model, traced):
    told: list[str] = []
    on = roundtrip(
        *(mixed, model, other_model),
        reporter=Reporter(status=told.append),
        size="64",
        compile="on",
    )
    # Graphs hold no weights, so models of one structure share them.
    assert traced() == 2 and on["settings"]["compiled"] is True
    assert told.count("Compiling the network for 64x64 (encode)") == 2
    assert told.count("Compiling the network for 64x64 (decode)") == 2
    off = roundtrip(mixed, model, other_model, size="64")
    assert off["settings"]["compiled"] is False
    for left, right in zip(on["models"], off["models"], strict=True):
        assert left["psnr"]["mean"] == pytest.approx(right["psnr"]["mean"], abs=1e-3)
    assert on["stages"]["encode"]["items"] == off["stages"]["encode"]["items"]


def test_sizes_must_be_known(mixed, model, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("It was compiled."))
    with pytest.raises(UsageError, match=r"here they are not\. Give --size"):
        roundtrip(mixed, model, compile="on")
    with pytest.raises(UsageError, match="--max-memory computes large pictures in parts"):
        roundtrip(mixed, model, compile="on", size="64", max_memory="1GiB")
