"""Turns options, LATENTCLI_* variables and a job file into one job dataclass.

Flags beat variables, which beat the job file, which beats the job's defaults. Loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from latentcli.cli.other_names import OPTION_NOTES, meant, noted
from latentcli.core.errors import UsageError
from latentcli.core.near_names import near_path, suggestion
from latentcli.core.options import (
    SECTIONS,
    Option,
    check_options,
    flag_of,
    options_of,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Job = TypeVar("Job", bound="DataclassInstance")


def resolve(kind: type[Job], verb: str, params: Mapping[str, Any]) -> tuple[Job, frozenset[str]]:
    """The job, and the names of the fields that somebody set.

    `params` are the command's parameters as Typer gives them: a flag's or its variable's value,
    None where there is neither. UsageError for values of a wrong type or outside their choices, for
    what is wrong in the job file, and for a field that is needed and that nobody set.
    """
    options = options_of(kind)
    settings = read_job_file(Path(params["config"]), verb, options) if params.get("config") else {}
    for name, value in params.items():
        if name in options and value not in (None, [], ()):
            option = options[name]
            settings[name] = typed(from_words(option, value), option, flag_of(option))
    job = kind(**settings)
    check_options(job)
    for name, option in options.items():
        if option.needed and not settings.get(name):
            raise UsageError(missing(option.needed, verb))
    return job, frozenset(settings)


def missing(sentence: str, verb: str) -> str:
    """The message where something is needed and was not given."""
    return f"{sentence} latentcli {verb} --help shows how."


def from_words(option: Option, value: Any) -> Any:
    """An option's words as the values that a job file would hold; what is no number stays text."""
    if option.commas:
        value = [part.strip() for text in value for part in text.split(",") if part.strip()]
    number = NUMBERS.get(option.type)
    if number is None:
        return value
    try:
        return [number(text) for text in value] if isinstance(value, list) else number(value)
    except ValueError:
        return value


def read_job_file(path: Path, verb: str, options: Mapping[str, Option]) -> dict[str, Any]:
    """A job file's settings by field name; UsageError says what is wrong and what is allowed."""
    document = load_toml(path)
    check_verb(path, document.pop("verb", verb), verb)
    fields = {option.key: name for name, option in options.items() if option.section}
    settings = {}
    for section, table in document.items():
        check_section(path, section, table, options.values())
        for key, value in table.items():
            option = options[fields[key]] if key in fields else None
            if option is None or option.section != section:
                raise UsageError(unknown_key(path, section, key, options.values(), verb))
            settings[fields[key]] = typed(value, option, f"{path}: [{section}] {key}")
    return settings


def load_toml(path: Path) -> dict[str, Any]:
    """The file's tables."""
    import tomllib  # costs time that commands without a job file have not

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = near_path(path) if isinstance(error, FileNotFoundError) else ""
        raise UsageError(f"The job file {path} cannot be read: {error.strerror}{near}.") from error
    except ValueError as error:
        raise UsageError(f"The job file {path} is not valid TOML: {error}.") from error


def check_verb(path: Path, found: Any, verb: str) -> None:
    """UsageError where the file is a job for another verb."""
    if found != verb:
        raise UsageError(
            f'{path} says verb = "{found}", so it is not a job for {verb};'
            f" run latentcli {found} --config {path}."
        )


def check_section(path: Path, section: str, table: Any, options: Iterable[Option]) -> None:
    """UsageError where no section has that name, or where the name holds a single value."""
    key = section.replace("-", "_")
    homes = {option.key: option.section for option in options if option.section}
    if section not in SECTIONS and not isinstance(table, dict) and key in homes:
        raise UsageError(
            f"{path} has an unknown section [{section}]: {key} is a key; write it below a line"
            f" [{homes[key]}], its section."
        )
    if section not in SECTIONS:
        raise UsageError(
            f"{path} has an unknown section [{section}]{suggestion(section, SECTIONS)};"
            f" allowed are {', '.join(SECTIONS)}."
        )
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {section} must be a section, written [{section}].")


def unknown_key(path: Path, section: str, key: str, options: Iterable[Option], verb: str) -> str:
    """The message for a key that this section does not have in this job."""
    homes = {option.key: option for option in options if option.section}
    allowed = [known for known, option in homes.items() if option.section == section]
    told = f"{path}: [{section}] has no key {key!r} for {verb}"
    if key in homes:
        told += f"; it belongs in [{homes[key].section}]"
    elif note := noted(key, OPTION_NOTES):
        return f"{told}. {note}"
    else:
        told += other_tools_key(section, key, homes.values()) or suggestion(key, allowed)
    keys = f"allowed are {', '.join(allowed)}" if allowed else f"{verb} has no settings there"
    return f"{told}; {keys}."


def other_tools_key(section: str, key: str, options: Iterable[Option]) -> str:
    """' (did you mean ...?)' for a key that is what other tools call an option, or nothing."""
    flags = {flag_of(option): option for option in options}
    keys = []
    for flag, _, value in (words.partition(" ") for words in meant(key, flags) or ()):
        option = flags[flag]
        setting = f'{option.key} = "{value}"' if value else option.key
        keys.append(setting if option.section == section else f"{setting} in [{option.section}]")
    return f" (did you mean {' or '.join(keys)}?)" if keys else ""


def typed(value: Any, option: Option, place: str) -> Any:
    """The value as the field's type; UsageError names the place and what was expected."""
    convert, expected = TYPES[option.type]
    try:
        return convert(value)
    except TypeError:
        raise UsageError(f"{place} is {value!r}; expected {expected}.") from None


def _text(value: Any) -> str:
    # 256 without quotes is a size and 10 is a count in a job file, although the fields are text
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError
    return str(value)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _several(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def read(value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(convert(item) for item in values)

    return read


NUMBERS: dict[str, Callable[[Any], int | float]] = {
    "int": int,
    "float": float,
    "tuple[int, ...]": int,
}
"""Fields that hold numbers, to the reader of an option's text."""

TYPES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "str": (_text, "text"),
    "int": (_integer, "a whole number"),
    "float": (_number, "a number"),
    "bool": (_switch, "true or false"),
    "tuple[str, ...]": (_several(_text), "text or a list of texts"),
    "tuple[int, ...]": (_several(_integer), "a whole number or a list of them"),
}
"""A field's type to its reader and to the words for what it takes."""
