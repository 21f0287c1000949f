"""An encode plan and its inputs in; what the job would do out. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentcli.jobs.encode_plan import EncodePlan, stored_parts
from latentcli.shards.commit import done_units
from latentcli.shards.inputs import InputList
from latentcli.shards.layout import INPUTS
from latentcli.shards.plan import FoundInput, append_units
from latentcli.shards.store import check_folder

BYTES_PER_VALUE = 2
"""bfloat16."""


def preview(plan: EncodePlan, found: Sequence[FoundInput]) -> dict[str, Any]:
    """The --json document of `encode --dry-run`; StoreError where the job would be refused."""
    done, left, shards = 0, 0, 0
    new = list(found)
    if not check_folder(plan.store, plan.manifest.spec) and (plan.store / INPUTS).exists():
        frozen = InputList.open(plan.store / INPUTS)
        units = done_units(plan.store, plan.manifest.spec_hash, frozen)
        done = sum(frozen.count(unit) for unit in units)
        left, shards = len(frozen) - done, frozen.units - len(units)
        known = {row.source for row in append_units(frozen, new, plan.samples_per_shard)}
        new = [item for item in new if item.path in known]
    return {
        "dry_run": True,
        "store": str(plan.store),
        "model": plan.manifest.model["name"],
        "media": "images" if plan.clips is None else "clips",
        "inputs": done + left + len(new),
        "to_encode": left + len(new),
        "already_encoded": done,
        "shards": shards + -(-len(new) // plan.samples_per_shard),
        "bytes": payload(plan, left + len(new)),
    }


def payload(plan: EncodePlan, inputs: int) -> int | None:
    """Bytes of the latents, where all pictures get one size; None where it depends on them.

    Class tokens are not counted.
    """
    if plan.recipe.preprocess.size is None or plan.clips is not None:
        return None
    width, height = plan.recipe.preprocess.size
    latent = plan.manifest.latent
    cells = (width // latent["downscale"]) * (height // latent["downscale"])
    parts = len([part for part in stored_parts(plan.manifest.spec) if part != "class_token"])
    return int(inputs * parts * cells * latent["channels"] * BYTES_PER_VALUE)
