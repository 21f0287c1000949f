"""Takes turns between a network as it is, compiled, and recorded; a step of gpu_day.py."""

from __future__ import annotations

import time
from typing import Any

import torch
from turns import in_turns, ratio

from latentcli.jobs.bench.ceilings import seconds_of
from latentcli.jobs.inference.compiled_model import CALLS
from latentcli.jobs.inference.compiling import code_of
from latentcli.jobs.inference.engine import Engine, inference_config
from latentcli.jobs.inference.recording import recorded
from latentcli.jobs.settings.model import DecodeSettings

WORDS_KEPT = 2000
"""Characters of why there is no such way."""


def ways_of(engine: Engine, op: str, side: int, batch: int, repeats: int) -> dict[str, Any]:
    """The ways to run a network, in turns; why, where there is none."""
    spec, where = engine.model.spec, {"device": engine.device}
    given: tuple[Any, ...] = (torch.rand(batch, 3, side, side, **where) * 2 - 1,)
    if op == "decode":
        latents = torch.randn(batch, spec.channels, *spec.latent_size(side, side), **where)
        config = inference_config(DecodeSettings())
        given = (latents, side, side, config, torch.randn(batch, 3, side, side, **where))
    plain = CALLS[op](engine.model)
    makers = {"eager": lambda: plain, "compiled": lambda: code_of(plain)}
    if engine.accelerator.gpu:
        makers["recorded"] = lambda: recorded(plain, given, engine.accelerator)
        both = code_of(plain)
        makers["compiled and recorded"] = lambda: recorded(both, given, engine.accelerator)
    ready, seconds, failed = {}, {}, {}
    with torch.inference_mode():
        for name, make in makers.items():
            begin = time.perf_counter()
            try:
                way = make()
                way(*given)
                engine.accelerator.synchronize()
            except RuntimeError as error:
                failed[name] = str(error)[:WORDS_KEPT]
                continue
            seconds[name] = time.perf_counter() - begin
            ready[name] = lambda way=way: seconds_of(lambda: way(*given), 1, engine.accelerator)
        times = in_turns(ready, max(3, repeats))
    return {
        "seconds_to_make": seconds,
        "ms": {name: 1000 * sorted(each)[len(each) // 2] for name, each in times.items()},
        "speedup": {name: ratio(times["eager"], each) for name, each in times.items()},
        "failed": failed,
    }
