"""What the tests of the jobs share: toy jobs with small units, and looks at their results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness.stores import tree
from harness.toys import toy_model, toy_pictures
from harness.warm import run_warm
from PIL import Image
from safetensors.torch import load_file, save_file

from latentcli.jobs.config import DecodeJob, EncodeJob
from latentcli.jobs.decode.job import run_decode
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.runtime.reporter import SILENT, Reporter

__all__ = ["toy_model", "toy_pictures", "tree"]


def encode_job(source: object, store: Path, model: str, **options: Any) -> EncodeJob:
    """Small units and batches, no resize, so that shapes mix."""
    settings = {
        "sources": (str(source),),
        "output": str(store),
        "model": model,
        "device": "cpu",
        "resize": None if "size" in options else "none",
        "batch_size": 3,
        "samples_per_shard": 4,
        "workers": 0,
        "self_check": False,
    }
    return EncodeJob(**settings | options)


def encode(
    source: object, store: Path, model: str, reporter: Reporter = SILENT, **options: Any
) -> dict[str, Any]:
    return run_encode(encode_job(source, store, model, **options), reporter)


def decode(
    store: object, output: Path, reporter: Reporter = SILENT, **options: Any
) -> dict[str, Any]:
    settings = {"store": str(store), "output": str(output), "device": "cpu"}
    return run_decode(DecodeJob(**settings | options), reporter)


def pictures_of(folder: Path) -> dict[str, np.ndarray]:
    """Pixels of every picture below a folder."""
    return {
        str(path.relative_to(folder).with_suffix("")): np.asarray(Image.open(path).convert("RGB"))
        for path in sorted(folder.rglob("[!.]*.*"))
    }


def rows_of(store: Path) -> list[dict[str, Any]]:
    """Rows of all commit records, in order."""
    records = sorted((store / "shards").glob("*.json"))
    return [row for record in records for row in json.loads(record.read_text())["rows"]]


def failures_of(store: Path) -> dict[str, dict[str, Any]]:
    """failures.jsonl by key."""
    lines = (store / "failures.jsonl").read_text().splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


def latents_of(store: Path) -> dict[str, torch.Tensor]:
    """All tensors of a store, read by the safetensors library."""
    found: dict[str, torch.Tensor] = {}
    for shard in sorted((store / "shards").glob("*.safetensors")):
        found |= load_file(shard)
    return found


def changed_model(
    model: str, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> str:
    """A copy of a model folder with its tensors changed in place."""
    state = load_file(Path(model) / "model.safetensors")
    change(state)
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text((Path(model) / "config.json").read_text())
    return str(folder)


def cli(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, that has torch imported already."""
    return run_warm(list(map(str, words)), environment(), cwd)


def environment() -> dict[str, str]:
    """Of child processes: one thread each, none of the caller's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LATENTCLI_")}
    return kept | {"OMP_NUM_THREADS": "1"}


def interrupt_after(count: int, number: int = signal.SIGTERM) -> Reporter:
    """A listener that sends this process a signal after some progress."""
    seen = 0

    def progress(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            os.kill(os.getpid(), number)

    return Reporter(progress=progress)
