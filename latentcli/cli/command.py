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

from latentcli.cli.help import PANELS, HelpAll
from latentcli.cli.jobfile import Job, resolve
from latentcli.cli.output import Output, output_of
from latentcli.cli.variables import variable
from latentcli.core.options import Option, check_names, flag_of, options_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WIDEST = 22
"""Columns of an option with its choices in the help; the text names them all anyway."""
NOTHING = " "
"""What a switch takes: without, Typer would call it a <bool>."""


def plain(name: str, text: str, *, metavar: str = NOTHING) -> Any:
    """An option that belongs to the command and not to the job."""
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
        "Job file with settings; options and LATENTCLI_* variables beat it. Paths in it are"
        " relative to the working directory.",
        metavar="JOB.toml",
    ),
]
Json = Annotated[bool, plain("json", "Print one JSON document on stdout at the end.")]
Quiet = Annotated[bool, plain("quiet", "Print only errors on stderr.")]

Body = Callable[[Output, Job, frozenset[str]], None]


def command(
    kind: type[Job],
    verb: str | None = None,
    *,
    reports: bool = True,
    examples: tuple[str, ...] = (),
) -> Callable[[Body[Job]], Callable[..., None]]:
    """Makes a command of a body that takes the job and the names of the fields that were set.

    `verb` is what job files call the command, where that is not the body's name; a command that
    reports nothing has neither --json nor --quiet. `examples` are command lines for the
    help, without the program's name.
    """

    def wrap(body: Body[Job]) -> Callable[..., None]:
        named = verb or body.__name__.replace("_", "-")

        def run(context: typer.Context, **params: Any) -> None:
            job, given = resolve(kind, named, params)
            check_names(job)
            body(output_of(context), job, given)

        run.__name__, run.__doc__ = body.__name__, body.__doc__
        run.__annotations__ = {}
        signature = inspect.Signature(parameters(kind, reports))
        vars(run).update(__signature__=signature, job=kind, examples=examples)
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
    hints["help_all"] = HelpAll
    defaults = {"context": inspect.Parameter.empty, "json": False, "quiet": False}
    defaults["help_all"] = False
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=hint
        )
        for name, hint in hints.items()
    ]


def rank(option: Option) -> int:
    """Where an option's panel stands in the help."""
    return [*PANELS].index(option.panel or option.section)


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
    """An option with its flags, variable and choices."""
    return typer.Option(
        *option.flags,
        help=shown(option.help),
        metavar=metavar(option),
        envvar=variable(option.key) if option.variable else None,
        show_envvar=False,
        show_default=False,
        autocompletion=completer(option),
    )


def completer(option: Option) -> Callable[[str], list[str]] | None:
    """What a shell asks for the values that an option may have; None where nobody knows them."""
    if not option.choices and option.offers is None:
        return None

    def offered(incomplete: str) -> list[str]:
        names = option.choices or (option.offers() if option.offers else ())
        if not option.commas:
            return list(names)
        before = incomplete.rpartition(",")[0]
        given = before.split(",")
        return [f"{before},{name}" if before else name for name in names if name not in given]

    return offered


def shown(text: str) -> str:
    """A text as completions show it: for rich, which makes them, brackets would be markup."""
    return text.replace("[", r"\[")


def metavar(option: Option) -> str:
    """What stands for the value in the help."""
    if option.metavar or option.type == "bool":
        return option.metavar or NOTHING
    if option.choices:
        shown = "|".join(option.choices)
        return shown if len(flag_of(option)) + len(shown) < WIDEST else option.key.upper()
    return "N" if "int" in option.type else option.key.upper()
