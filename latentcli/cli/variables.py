"""Refuses LATENTCLI_ variables that nothing reads: mostly, a name is mistyped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from latentcli.cli.other_names import either, meant
from latentcli.core.errors import UsageError
from latentcli.core.near_names import suggestion

PREFIX = "LATENTCLI_"
OTHERS = {
    "LATENTCLI_WEIGHTS": "Folder that holds a folder of weights for each preset.",
    "LATENTCLI_SILENCE_SECONDS": "After so long without a sign of life a rank counts as gone.",
    "LATENTCLI_RETRY_SECONDS": "So long remote storage is tried again where an error may pass.",
    "LATENTCLI_LEASE_SECONDS": "Between two signs of life of a job on remote storage.",
    "LATENTCLI_LAUNCHED": "Set for the processes that --devices starts.",
    "LATENTCLI_REQUIRE_CUDA": "Of the tests: without a GPU they fail.",
    "LATENTCLI_REQUIRE_CONSUMERS": "Of the tests: without the readers of exports they fail.",
    "LATENTCLI_SHARED": "Of the tests: where golden numbers and photographs are.",
    "LATENTCLI_CHROMIUM": "Of the tests: the browser that opens the reports.",
}
"""Variables that are no options. Those of the options are named by the commands themselves."""


def variable(key: str) -> str:
    """The environment variable of an option."""
    return f"{PREFIX}{key.upper()}"


def check_variables(root: Any, environment: Mapping[str, str], words: Iterable[str]) -> None:
    """UsageError for variables that neither a command below `root`, Typer's, nor OTHERS has.

    An empty variable counts as not set, as it does for options. The command that the words of the
    line name is asked first, as the code of others is loaded to be asked.
    """
    ours = {name for name, value in environment.items() if name.startswith(PREFIX) and value}
    named = [name for name in words if name in root.commands]
    known = {*OTHERS, *own_variables(root)}
    for name in dict.fromkeys([*named, *root.commands]):
        if ours <= known:
            return
        known.update(variables_of(root.commands[name]))
    if unknown := sorted(ours - known):
        told = ", ".join(f"{name}{likely(name, known)}" for name in unknown)
        what = "is not a variable" if len(unknown) == 1 else "are not variables"
        raise UsageError(
            f"The environment sets {told}, which {what} of latentcli. Correct the name or unset it."
        )


def likely(name: str, known: Collection[str]) -> str:
    """' (did you mean ...?)' with a variable that there is, or nothing.

    What other tools call an option comes before a name that is similar by its letters.
    """
    flags = {flag(variable): variable for variable in known}
    if options := meant(flag(name), flags):
        variables = (flags[option.partition(" ")[0]] for option in options)
        return f" (did you mean {either([*dict.fromkeys(variables)])}?)"
    return suggestion(name, known, PREFIX)


def flag(variable: str) -> str:
    """The option that a variable would set: LATENTCLI_BATCH_SIZE is --batch-size."""
    return f"--{variable.removeprefix(PREFIX).lower().replace('_', '-')}"


def variables_of(command: Any) -> Iterator[str]:
    """The variables of a command's options, and of the commands below it."""
    yield from own_variables(command)
    for below in getattr(command, "commands", {}).values():
        yield from variables_of(below)


def own_variables(command: Any) -> Iterator[str]:
    """The variables of a command's own options."""
    yield from (option.envvar for option in command.params if option.envvar)
