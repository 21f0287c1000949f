"""`latentcli models`: nothing in, the presets and whether their weights are at hand out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from latentcli.cli import options as o
from latentcli.cli.output import output_of

if TYPE_CHECKING:
    from rich.console import RenderableType


def models(context: typer.Context, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List the models: size, latent geometry, licence, and whether the weights are at hand."""
    from latentcli.jobs.catalog import list_models

    output_of(context).show(list_models(), data=tables)


def tables(rows: Sequence[Mapping[str, Any]]) -> Iterable[RenderableType]:
    """One row per preset."""
    from latentcli.reports.tables import models_table

    yield models_table(rows)
