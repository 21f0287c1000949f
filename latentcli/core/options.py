"""Describes an option once, on the field of its job: for command lines, job files and variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from latentcli.core.errors import UsageError
from latentcli.core.near_names import suggestion

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SECTIONS = (
    *("read", "decode_image", "preprocess", "batch", "model", "measure", "encode", "decode"),
    *("encode_image", "write", "bench", "verify", "follow"),
)
"""Sections of a job file: the stages, and what only a few commands have."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Option:
    """All that a command line, a job file and a variable know of a field."""

    help: str
    section: str = ""
    """One of SECTIONS; an option without stands in no job file."""
    panel: str = ""
    """Panel of the help that it stands in, where that is not its section's."""
    daily: bool = False
    """Whether the short help has it: its first sentence, and the one that names the default."""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    check: Callable[[Any], object] | None = None
    """Raises UsageError for values that choices and bounds cannot tell."""
    exists: Callable[[str], object] | None = None
    """Raises for a name of what is not there; a job itself finds that out later."""
    offers: Callable[[], Iterable[str]] | None = None
    """What a shell completes a value with, where there are no choices."""
    commas: bool = False
    """Whether a word may hold several values, with commas between them."""
    needed: str = ""
    """What to say where nobody gave it; an option without is never needed."""
    key: str = ""
    """Its name in job files and variables; the field's, unless that one is a plural."""
    flags: tuple[str, ...] = ()
    """As it is typed; made of the key, unless there is a better one."""
    metavar: str = ""
    variable: bool = True
    argument: bool = False
    """Whether it is typed without a flag."""
    type: str = ""
    """The field's, without None: str, int, float, bool or a tuple of str or int."""


def option(default: T, help: str, **settings: Any) -> T:
    """A field of a job that is an option; the settings are those of Option."""
    return field(default=default, metadata={"option": Option(help=help, **settings)})


def like(job: type[DataclassInstance], name: str, **changes: Any) -> Any:
    """The option of another job, with what differs."""
    there = job.__dataclass_fields__[name]
    return option(there.default, **(vars(there.metadata["option"]) | changes))


@cache
def options_of(job: type[DataclassInstance]) -> dict[str, Option]:
    """Each field and its option, complete, in the order of the help."""
    found: dict[str, Option] = {}
    for item in fields(job):
        option: Option = item.metadata["option"]
        key = option.key or item.name
        kind = str(item.type).removesuffix(" | None")
        flag = f"--{key.replace('_', '-')}"
        switch = f"{flag}/--no-{flag.removeprefix('--')}"
        flags = option.flags or ((switch if kind == "bool" else flag),)
        found[item.name] = replace(option, key=key, flags=flags, type=kind)
    return found


def flag_of(option: Option) -> str:
    """How it is named in a message."""
    return option.flags[0].partition("/")[0]


def check_options(job: DataclassInstance) -> None:
    """UsageError where a field of a job has a value outside its choices or its range."""
    for name, option in options_of(type(job)).items():
        value = getattr(job, name)
        if value is None:
            continue
        if option.check is not None:
            option.check(value)
        for one in value if isinstance(value, tuple) else (value,):
            if option.choices and one not in option.choices:
                near = suggestion(str(one), option.choices)
                raise UsageError(
                    f"{flag_of(option)} is {one!r}{near}; allowed are {', '.join(option.choices)}."
                )
            check_range(option, one)


def check_range(option: Option, value: Any) -> None:
    """UsageError where a number is too small or too large."""
    if option.least is None or option.least <= value <= (
        value if option.most is None else option.most
    ):
        return
    top = "" if option.most is None else f" and at most {option.most}"
    raise UsageError(f"{flag_of(option)} is {value}; it must be at least {option.least}{top}.")


def check_names(job: DataclassInstance) -> None:
    """LatentCliError where a field of a job names a model or a path that is not there."""
    for name, option in options_of(type(job)).items():
        value = getattr(job, name)
        if option.exists is not None and value is not None:
            for one in value if isinstance(value, tuple) else (value,):
                option.exists(one)


def brief(option: Option) -> str:
    """The first sentence of its help, and the one that names the default."""
    first, *others = re.split(r"(?<=\.) ", option.help)
    return " ".join([first, *(text for text in others if text.startswith("Default:"))])
