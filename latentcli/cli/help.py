"""Shows the help of a command: what is needed daily, or with --help-all everything.

Other than Typer's own help, it has one column of options that lines up over all panels, takes no
text for markup, and leaves no blanks at the ends of lines.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from latentcli.cli.other_names import command_hint, models_hint
from latentcli.cli.values import as_typed
from latentcli.cli.variables import variable
from latentcli.core.near_names import nearest
from latentcli.core.options import Option, brief, flag_of, options_of
from latentcli.jobs.runtime.model_cards import model_names

if TYPE_CHECKING:
    from rich.console import RenderableType

PANELS = {
    "read": "Input",
    "model": "Model",
    "write": "Output",
    "": "Options",
    "bench": "What is timed",
    "measure": "What is measured",
    "verify": "Check",
    "preprocess": "Size and crop",
    "batch": "Speed and memory",
    "encode": "Latents",
    "decode": "Decoder",
    "encode_image": "Image and video files",
    "select": "Which inputs",
    "fields": "Tars, tables and captions",
    "decode_image": "Image and video decoding",
    "resume": "When the store exists already",
    "trouble": "When things go wrong",
    "follow": "Logs and metrics",
    "general": "General",
}
"""Section or panel of an option -> its title, in the order of the help."""
DAILY = ("config", "json", "quiet", "version", "debug")
"""Options of no job that the short help has too."""
FEW = 10
"""A command with no more options of its own shows all of them, in full."""
WIDEST = 120
"""Columns of the help on a wider terminal: longer lines are hard to read."""
LONGEST = 32
"""Most columns of an option with its value; a longer one is broken at its slash."""
INDENT = " " * 4
"""What stands in front of an option without a short form."""


@dataclass(frozen=True)
class Row:
    """A line of a panel: an argument, an option or a command, and what it is."""

    title: str
    name: str
    value: str
    text: str
    daily: bool = True


class HelpfulCommand(TyperCommand):
    """A command with this help, whose values stay as they are typed."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's, less its check of values."""
        return as_typed(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the short help."""
        formatter.write(page(ctx, everything=False))


class HelpfulGroup(TyperGroup):
    """A command with others below it, with this help, which suggests one command for a mistyped."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's, less its check of values."""
        return as_typed(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the short help, which is whole."""
        formatter.write(page(ctx, everything=True))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Typer's, with one suggestion in place of three."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = command_hint(args[0]) if ctx.parent is None else None
            begun = [name for name in self.commands if name.startswith(args[0])]
            near = begun[0] if len(begun) == 1 else nearest(args[0], self.commands)
            if hint is None and near:
                hint = f"Did you mean {near!r}?"
            if hint is None and ctx.info_name == "models":
                hint = models_hint(args[0], model_names())
            hint = hint or f"{ctx.command_path} --help lists the commands."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


def show_everything(context: typer.Context, wanted: bool) -> None:
    """Prints the whole help and ends the command, where it is asked for."""
    if wanted and not context.resilient_parsing:
        typer.echo(page(context, everything=True))
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        help="Show every option in full, variables and exit codes.",
        is_eager=True,
        callback=show_everything,
    ),
]


def page(context: Any, *, everything: bool) -> str:
    """The help as text, as wide as the terminal, or as COLUMNS says."""
    from rich.console import Console, Group

    console = Console(markup=False, highlight=False, emoji=False)
    console.width = min(console.width, WIDEST)
    with console.capture() as shown:
        console.print(Group(*parts(context, everything=everything)))
    return "\n".join(line.rstrip() for line in shown.get().splitlines())


def parts(context: Any, *, everything: bool) -> Iterator[RenderableType]:
    """Usage, what the command does, examples, the panels, and where there is more to read."""
    from rich.text import Text

    command = context.command
    options = own_options(command)
    shown_all = everything or len(options) <= FEW
    yield Text(command.get_usage(context), style="bold")
    yield Text("\n" + " ".join((command.help or "").split()))
    if examples := getattr(command.callback, "examples", ()):
        yield Text("\nExamples:")
        yield from (Text(f"  latentcli {line}", overflow="fold") for line in examples)
    yield Text()
    for rows in (commands_of(command), options_in(context, options, in_full=shown_all)):
        yield from panels([row for row in rows if shown_all or row.daily])
    if everything:
        yield Text(f"\n{command.epilog or ''}")
    else:
        rest = "variables and exit codes" if shown_all else f"all {len(options)} options, in full"
        yield Text(f"\n{context.command_path} --help-all shows {rest}.")


def own_options(command: Any) -> Mapping[str, Option]:
    """The options of the command's job, by field; none where it has no job."""
    job = getattr(command.callback, "job", None)
    return {} if job is None else options_of(job)


def commands_of(command: Any) -> list[Row]:
    """The commands below a command, by panel."""
    rows = []
    for name, below in getattr(command, "commands", {}).items():
        first = inspect.cleandoc(below.help or "").partition("\n\n")[0]
        title = getattr(below, "rich_help_panel", None) or "Commands"
        rows.append(Row(title, name, "", first.replace("\n", " ")))
    order = list(dict.fromkeys(row.title for row in rows))
    return sorted(rows, key=lambda row: order.index(row.title))


def options_in(context: Any, options: Mapping[str, Option], *, in_full: bool) -> list[Row]:
    """The arguments and options of a command, in the order of the help."""
    order = list(PANELS.values())
    rows = [
        row_of(parameter, options.get(parameter.name), in_full=in_full)
        for parameter in context.command.get_params(context)
    ]
    # What is needed daily comes first in its panel, as it does in the short help.
    return sorted(rows, key=lambda row: (order.index(row.title), not row.daily))


def row_of(parameter: Any, option: Option | None, *, in_full: bool) -> Row:
    """The row of an argument or option; one of no job is in the last panel."""
    is_argument = isinstance(parameter, TyperArgument)
    value = (parameter.metavar or "").strip()
    name, value = (value, "") if is_argument else (flags(parameter), value)
    if option is None:
        title = PANELS["read" if is_argument else "general"]
        daily = is_argument or parameter.name in DAILY
        text = parameter.help if in_full else parameter.help.partition(". ")[0].rstrip(".") + "."
        return Row(title, name, value, text, daily)
    several = is_argument and option.type.startswith("tuple") and not name.endswith("...")
    name += "..." if several else ""
    text = f"{option.help}{variable_of(option)}" if in_full else brief(option)
    title = PANELS[option.panel or option.section]
    return Row(title, name, value, text, option.daily or option.argument)


def flags(parameter: Any) -> str:
    """-m, --model; --flag/--no-flag: broken at the slash where that is too long for its column."""
    named = sorted([*parameter.opts], key=lambda flag: flag.startswith("--"))
    text = ", ".join(named)
    text = text if len(named[0]) == 2 else f"{INDENT}{text}"
    if not parameter.secondary_opts:
        return text
    opposite = parameter.secondary_opts[0]
    fits = len(text) + len(opposite) < LONGEST
    return f"{text}/{opposite}" if fits else f"{text}/\n{INDENT}{opposite}"


def variable_of(option: Option) -> str:
    """Which variable sets the option, where that is not what its name lets one expect."""
    name = variable(option.key)
    expected = variable(flag_of(option).removeprefix("--").replace("-", "_"))
    return f" Variable: {name}." if option.variable and name != expected else ""


def panels(rows: Iterable[Row]) -> Iterator[RenderableType]:
    """A panel for each title, whose second columns begin at the same place."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    widths = [len(line) for row in rows for line in f"{row.name} {row.value}".splitlines()]
    for title, group in groupby(rows, key=lambda row: row.title):
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(width=max(widths))
        table.add_column(ratio=1)
        for row in group:
            text = Text(row.text)
            text.highlight_regex(r"(?<![\w-])--[a-z][\w-]*", "cyan")
            table.add_row(Text.assemble((row.name, "bold cyan"), " ", (row.value, "yellow")), text)
        yield Panel(table, title=title, title_align="left", border_style="dim")
