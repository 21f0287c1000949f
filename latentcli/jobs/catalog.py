"""The presets as plain values: the --json document of `models`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from latentcli.models import registry


def list_models() -> list[dict[str, Any]]:
    """One entry per preset; asks no network and reads no weights."""
    return [asdict(card) for card in registry.list_models()]
