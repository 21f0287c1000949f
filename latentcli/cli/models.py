"""Defines `latentcli models`, which lists the presets, and `models show`, which describes one."""

from __future__ import annotations

from typing import Annotated

import typer

from latentcli.cli.command import Json, Quiet
from latentcli.cli.help import HelpAll
from latentcli.cli.output import output_of
from latentcli.core.errors import UsageError

NAMELESS = "Name the model, such as latentcli models show fcdm_nano; latentcli models lists them."


def models(
    context: typer.Context, json: Json = False, quiet: Quiet = False, help_all: HelpAll = False
) -> None:
    """List the models: size, latent geometry, licence, and where the weights are."""
    if context.invoked_subcommand is not None:
        return
    from latentcli.jobs.runtime.model_cards import list_models
    from latentcli.reports.tables import models_tables

    output_of(context).show(list_models(), data=models_tables)


def names() -> list[str]:
    """What a shell offers to complete a model's name with."""
    from latentcli.jobs.runtime.model_cards import model_names

    return model_names()


Name = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="A preset of the list, its Hub id, or a preset's .toml file.",
        show_default=False,
        autocompletion=names,
    ),
]


def show(
    context: typer.Context,
    name: Name = None,
    json: Json = False,
    quiet: Quiet = False,
    help_all: HelpAll = False,
) -> None:
    """Show a model's card: structure, latents, published figures, licence, its weights."""
    if name is None:
        raise UsageError(NAMELESS)
    from latentcli.jobs.runtime.model_cards import show_model
    from latentcli.reports.cards import model_card

    output_of(context).show(show_model(name), data=model_card)
