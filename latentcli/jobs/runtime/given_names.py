"""Refuses models, paths and sizes that cannot be, before anything heavy is loaded.

A job would refuse each with the same sentence, some seconds later. What only a job can tell, such
as what a glob matches or a storage holds, is left to it: no folder is listed here.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from latentcli.core.errors import NoPlaceForStore, UsageError
from latentcli.core.near_names import (
    empty_source,
    missing_features,
    missing_latents,
    missing_list,
    missing_source,
    missing_store,
    missing_weights,
)
from latentcli.core.pixel_size import pixel_size
from latentcli.images.buckets import check_size
from latentcli.jobs.runtime.stdio import STDIN
from latentcli.models.presets import (
    check_extra,
    check_model_name,
    load_preset,
    no_encoder,
    preset_names,
)
from latentcli.shards.layout import MANIFEST
from latentcli.shards.storage.paths import is_remote
from latentcli.shards.store.place import OTHER, is_a_file, not_a_store

DECODED = "a .safetensors file, a trainer's cache, or - for a tar stream"
INSPECTED = "or a trainer's cache"
"""What decode and inspect read but for a store and its shards."""


def is_missing(text: str) -> bool:
    """Whether a text can only be a path of this machine, and nothing is there."""
    if text == STDIN or "://" in text or not text:
        return False
    return not os.path.lexists(Path(text).expanduser())


def check_model(text: str) -> None:
    """UsageError for a model that is no preset, Hub id, folder or .toml file; NAME=PATH is one.

    And for a preset whose extra is not installed: its weights are not worth a download then.
    """
    name = text.partition("=")[0]
    if "/" not in name and is_missing(text):
        check_model_name(name)
    if name in preset_names():
        check_extra(load_preset(name))


def check_encoder(text: str) -> None:
    """`check_model`, and UsageError for a preset that is a decoder alone."""
    check_model(text)
    preset = load_preset(text) if text in preset_names() else None
    if preset is not None and not preset.can_encode:
        raise no_encoder(preset.name, preset.space)


def check_sides(size: str | None, model: str) -> None:
    """UsageError where a preset cannot take pictures of --size."""
    if size is not None and model in preset_names():
        check_size(pixel_size(size, "--size"), load_preset(model).size_divisor)


def check_one_way(size: str | None, area: str | None) -> None:
    """UsageError where pictures are to be of one size and in buckets."""
    if size is not None and area is not None:
        raise UsageError(
            f"--size {size} makes all pictures of one size, and --area {area} keeps their shapes in"
            " buckets: leave one out."
        )


def check_input(text: str) -> None:
    """`check_source`, and UsageError for a folder of this machine that has nothing in it."""
    check_source(text)
    with suppress(OSError), os.scandir(Path(text).expanduser()) as entries:
        if next(entries, None) is None:
            raise empty_source(Path(text).expanduser().absolute())


def check_new_store(output: str | None, sources: Iterable[str]) -> None:
    """NoPlaceForStore where a store is to be written to a file, or to a source."""
    if output is None or output == STDIN or is_remote(output):
        return
    path = Path(output).expanduser()
    if path.is_file():
        raise is_a_file(path)
    if any(Path(source).expanduser() == path for source in sources):
        raise NoPlaceForStore(
            f"{output} is a source: a latent store has a folder of its own. {OTHER}"
        )


def check_source(text: str) -> None:
    """UsageError for a file, folder or list that is not there; not of patterns, commands, URLs."""
    if text.startswith("@"):
        if is_missing(text[1:]):
            raise missing_list(text[1:])
        return
    special = text.startswith("pipe:") or glob.has_magic(text) or "{" in text
    if not special and is_missing(text):
        raise missing_source(text)


def check_store(text: str) -> None:
    """StoreError for a folder of a store that is not there, or that is a folder without one."""
    if is_missing(text):
        raise missing_store(text)
    folder = Path(text).expanduser()
    if folder.is_dir() and not (folder / MANIFEST).exists():
        raise not_a_store(folder)


def check_decoded(text: str) -> None:
    """StoreError for latents to decode that are not there."""
    if is_missing(text):
        raise missing_latents(text, DECODED)


def check_inspected(text: str) -> None:
    """StoreError for latents to inspect that are not there."""
    if is_missing(text):
        raise missing_latents(text, INSPECTED)


def check_features(text: str) -> None:
    """UsageError for a file of features that is not there."""
    if is_missing(text):
        raise missing_features(text)


def check_weights(text: str) -> None:
    """WeightsError for weights that are not there."""
    if is_missing(text):
        raise missing_weights(text)
