"""`latentcli inspect`: a store in, what it holds and how it was made out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from latentcli.cli import options as o
from latentcli.cli.jobfile import NEEDED
from latentcli.cli.output import output_of
from latentcli.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType


def inspect(
    context: typer.Context, store: o.Store = None, json: o.Json = False, quiet: o.Quiet = False
) -> None:
    """Describe a latent store: model, latent space, totals, statistics, failures."""
    if store is None:
        raise UsageError(NEEDED["store"])
    from latentcli.jobs.inspect import inspect_store

    output_of(context).show(inspect_store(store), data=tables)


def tables(document: Mapping[str, Any]) -> Iterable[RenderableType]:
    """One line per fact, then what failed."""
    from latentcli.reports.tables import store_tables

    yield from store_tables(document)
