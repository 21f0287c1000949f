"""Refuses models and paths that are not there, before anything heavy is loaded.

A job would refuse each with the same sentence, some seconds later. What only a job can tell, such
as what a glob matches or a storage holds, is left to it.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from latentcli.core.near_names import (
    missing_features,
    missing_latents,
    missing_list,
    missing_source,
    missing_store,
    missing_weights,
)
from latentcli.jobs.runtime.stdio import STDIN
from latentcli.models.presets import check_extra, check_model_name, load_preset, preset_names

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
    """StoreError for a folder of a store that is not there."""
    if is_missing(text):
        raise missing_store(text)


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
