"""Builds a command from its job: the fields are the options, and the body is given the job.

No option has a default here: None means "not given", and jobfile.py fills it from the job file or
the job's own default. So the defaults that help texts name are checked by a test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentcli.cli.jobfile import Job, resolve
from latentcli.cli.output import Output, output_of
from latentcli.core.options import SECTIONS, Option, options_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WIDEST = 16
"""Columns of choices that the help's second column shows; the text names them all anyway."""
NOTHING = " "
"""What a switch takes, for the help's second column."""
FIRST = ("write", "bench", "verify")
"""Panels that come first: what a command makes. The other ones follow the stages."""


def variable(name: str) -> str:
    """The environment variable of an option."""
    return f"LATENTCLI_{name.upper()}"


def plain(name: str, text: str, *, metavar: str = NOTHING) -> Any:
    """An option that belongs to the command and not to the job; it stands in the first panel."""
    return typer.Option(
        f"--{name}",
        help=text,
        metavar=metavar,
        envvar=variable(name),
        show_envvar=False,
        show_default=False,
    )


Config = Annotated[
    str | None,
    plain(
        "config",
        "Job file to take settings from; options and LATENTCLI_* variables beat it. Relative paths"
        " in it are relative to the working directory.",
        metavar="JOB.toml",
    ),
]
Json = Annotated[bool, plain("json", "Print one JSON document on stdout at the end.")]
Quiet = Annotated[bool, plain("quiet", "Say nothing on stderr but errors.")]

Body = Callable[[Output, Job, frozenset[str]], None]


def command(
    kind: type[Job], verb: str | None = None, *, reports: bool = True
) -> Callable[[Body[Job]], Callable[..., None]]:
    """Makes a command of a body that takes the job and the names of the fields that were set.

    `verb` is what job files call the command, where that is not the body's name; a command that
    reports nothing has neither --json nor --quiet.
    """

    def wrap(body: Body[Job]) -> Callable[..., None]:
        named = verb or body.__name__.replace("_", "-")

        def run(context: typer.Context, **params: Any) -> None:
            body(output_of(context), *resolve(kind, named, params))

        run.__name__, run.__doc__ = body.__name__, body.__doc__
        run.__annotations__ = {}
        vars(run)["__signature__"] = inspect.Signature(parameters(kind, reports))
        return run

    return wrap


@cache
def parameters(kind: type[DataclassInstance], reports: bool) -> list[inspect.Parameter]:
    """What Typer reads a command's options from, in the order of the help."""
    options = options_of(kind)
    hints: dict[str, Any] = {"context": typer.Context}
    if any(one.section for one in options.values()):
        hints["config"] = Config
    hints |= {
        name: annotation(options[name]) for name in sorted(options, key=lambda n: rank(options[n]))
    }
    if reports:
        hints |= {"json": Json, "quiet": Quiet}
    defaults = {"context": inspect.Parameter.empty, "json": False, "quiet": False}
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=hint
        )
        for name, hint in hints.items()
    ]


def rank(option: Option) -> int:
    """Where an option's panel stands in the help."""
    return ("", *FIRST, *SECTIONS).index(option.section)


def annotation(option: Option) -> Any:
    """What Typer is told of an option: its type and how it is typed and shown.

    Numbers stay text here: jobfile.py reads them, and tells a wrong one as it does in a job file.
    """
    several = option.type.startswith("tuple")
    hint: Any = list[str] if several else bool if option.type == "bool" else str
    return Annotated[hint | None, argument(option) if option.argument else setting(option)]


def argument(option: Option) -> Any:
    """What is typed without a flag."""
    return typer.Argument(
        metavar=option.metavar or option.key.upper(), help=shown(option.help), show_default=False
    )


def setting(option: Option) -> Any:
    """An option with its flags, variable, panel and choices."""
    return typer.Option(
        *option.flags,
        help=shown(option.help),
        metavar=metavar(option),
        envvar=variable(option.key) if option.variable else None,
        show_envvar=False,
        show_default=False,
        rich_help_panel=option.section or None,
        autocompletion=(lambda: list(option.choices)) if option.choices else None,
    )


def shown(text: str) -> str:
    """A text as the help shows it: rich takes what stands in brackets for markup, and drops it."""
    return text.replace("[", r"\[")


def metavar(option: Option) -> str | None:
    """What stands for the value in the help; None is what Typer calls its type."""
    if option.metavar or option.type == "bool":
        return option.metavar or NOTHING
    if option.choices:
        shown = "|".join(option.choices)
        return shown if len(shown) <= WIDEST else option.key.upper()
    return "N" if "int" in option.type else None
