"""A small job over made-up inputs: what the real one does with a store, without a model."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from latentcli.core.types import InputRow, Row
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import INPUTS
from latentcli.shards.sources.file_list import FoundInput, FoundInputs
from latentcli.shards.sources.find_inputs import assign_units
from latentcli.shards.sources.match import Match
from latentcli.shards.store.commit import CommitRecord, Contents, commit_unit
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.manifest import Manifest, read_manifest, write_manifest
from latentcli.shards.store.unit_state import DONE, unit_states
from latentcli.shards.store.writer import finish, open_for_writing

CHANNELS = 4


def manifest(**spec: object) -> Manifest:
    return Manifest(
        tool="latentcli 0.0",
        spec={"size": 16, "model": {"name": "toy", "revision": None}, **spec},
        model={"name": "toy"},
        latent_space="toy#whitened",
        latent={"channels": CHANNELS, "downscale": 8, "size_divisor": 8},
        preprocessing={"resize": "short side"},
        self_check={"psnr": 31.5},
    )


def found(count: int, name: str = "img") -> list[FoundInput]:
    keys = [f"{name}/{i:04d}" for i in range(count)]
    return [FoundInput(f"/data/{key}.jpg", key, 100, 7) for key in keys]


def latent(key: str) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    values = torch.randn(CHANNELS, 2, 3, generator=torch.Generator().manual_seed(seed))
    return values.to(torch.bfloat16)


def append_units(
    frozen: Iterable[InputRow], inputs: Sequence[FoundInput], samples_per_shard: int
) -> list[InputRow]:
    """Rows of the inputs whose path is not in the frozen list, in new units after its last."""
    match = Match(inputs if isinstance(inputs, FoundInputs) else FoundInputs.of(inputs))
    for item in frozen:
        match.position(item)
    return match.new_rows(samples_per_shard)


def row(item: InputRow) -> Row:
    if item.key.endswith("3"):
        return Row(item.key, item.source, "failed", stage="decode_image", error="truncated")
    return Row(item.key, item.source, "ok", original_size=(24, 16), latent_shape=(CHANNELS, 2, 3))


def commit(store: Path, inputs: InputList, unit: int, description: Manifest) -> CommitRecord:
    rows = [row(item) for item in inputs.rows(unit)]
    latents = {item.key: latent(item.key) for item in rows if item.status == "ok"}
    sums = ChannelSums()
    for values in latents.values():
        sums.add(values[None])
    return commit_unit(
        store,
        unit,
        {f"{key}/latent": values for key, values in latents.items()},
        {"format": "latentcli", "latent_space": "toy#whitened", "unit": str(unit)},
        Contents(
            spec_hash=description.spec_hash,
            rows=rows,
            channels=sums.to_json(),
        ),
    )


def done_units(store: Path, spec_hash: str, inputs: InputList) -> set[int]:
    """Units that need no more work."""
    return {s.unit for s in unit_states(store, spec_hash, inputs) if s.state == DONE}


def run_job(store: Path, count: int = 10, per_unit: int = 4, more: int = 0) -> Manifest:
    """Everything to the end, going on where another run stopped; `more` inputs are appended."""
    description = manifest()
    with StoreLock(store):
        open_for_writing(store, description)
        if not (store / INPUTS).exists():
            write_inputs(store / INPUTS, assign_units(found(count), per_unit))
        if more:
            old = InputList.open(store / INPUTS)
            write_inputs(store / INPUTS, [*old, *append_units(old, found(more, "new"), per_unit)])
        inputs = InputList.open(store / INPUTS)
        done = done_units(store, description.spec_hash, inputs)
        for unit in sorted(set(range(inputs.units)) - done):
            commit(store, inputs, unit, description)
        return finish(store, description, inputs.numbers, ChannelSums())


def replace_status(store: Path) -> Manifest:
    """Makes a finished store a running one."""
    description = replace(read_manifest(store), status="running")
    write_manifest(store, description)
    return description


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder with its bytes (None for a folder), hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


if __name__ == "__main__":
    run_job(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
