"""Knows the commands by name, and loads the code of one when it is asked for.

A command line needs one of them, and the answer to a mistyped name none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.main import get_command

from latentcli.cli.help import HelpfulCommand, HelpfulGroup

GROUPS = {
    "Encode and decode": ("encode", "decode", "plan", "sync"),
    "Inspect and check": ("inspect", "verify", "watch", "roundtrip", "models"),
    "Export and share": ("export", "card", "push"),
    "Measure": ("bench", "budget"),
    "Clusters": ("slurm",),
    "Video": ("video-embed", "video-distance"),
}
"""The panels of the help, and the commands in each."""
NAMES = tuple(name for names in GROUPS.values() for name in names)
PANEL = {name: title for title, names in GROUPS.items() for name in names}
MODULES = {"video-embed": "video", "video-distance": "video"}
"""Where a command is defined that has no module of its own name."""
SUBCOMMANDS = {"models": ("show",)}
"""Commands that have further ones below them, and run alone too."""
EPILOG = (
    "Every option can also be set by a variable, such as LATENTCLI_BATCH_SIZE for --batch-size."
    " Options beat variables, which beat the job file (--config), which beats defaults."
    " Exit codes: 0 done, 1 failed, 2 wrong usage, 3 more inputs failed than --max-bad allows,"
    " 75 interrupted (the same command resumes)."
)


class Commands(Mapping[str, Any]):
    """Typer's command of each name, made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in PANEL:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = made(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


class TopGroup(HelpfulGroup):
    """What stands above all commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, without the code behind them."""
        return list(NAMES)


def made(name: str) -> Any:
    """Typer's command of a name."""
    below = SUBCOMMANDS.get(name)
    app = typer.Typer(name=name, cls=HelpfulGroup, epilog=EPILOG, add_completion=False)
    if below:
        app.callback(invoke_without_command=True)(body(name, name))
    for one in below or (name,):
        app.command(one, cls=HelpfulCommand, epilog=EPILOG)(body(name, one))
    command: Any = get_command(app)
    command.rich_help_panel = PANEL[name]
    return command


def body(name: str, one: str) -> Callable[..., Any]:
    """The function of a command, or of one below it."""
    module = import_module(f"latentcli.cli.{MODULES.get(name, name)}")
    found: Callable[..., Any] = getattr(module, one.replace("-", "_"))
    return found
