"""Options, LATENTCLI_* variables and a job file in, one job dataclass out.

Flags beat variables, which beat the job file, which beats the job's defaults. Loads no torch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from latentcli.core.errors import UsageError
from latentcli.jobs.config import SECTIONS, check_choices
from latentcli.jobs.failures import allowed_failures


class JobClass(Protocol):
    """Any of the job dataclasses of jobs/config.py."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Job = TypeVar("Job", bound=JobClass)

FIELDS = {"model": "models", "decoder": "decoders"}
"""Key of a section to the job's field, for jobs that take several of it."""

LISTS = ("resolution", "batch", "metrics")
"""Settings whose flags may hold several values, with commas between them."""

NEEDED = {
    "sources": "Give what to read: folders, image files, quoted globs or @list.txt.",
    "store": "Give the store: the folder that latentcli encode wrote.",
}
"""Fields that have no default, and what to say where nobody gave them."""


def section_of(key: str) -> str | None:
    """The section that a key stands in; None for keys that a job file does not have."""
    return next((section for section, keys in SECTIONS.items() if key in keys), None)


def resolve(
    kind: type[Job], verb: str, params: Mapping[str, Any], *, needs: str | None = None
) -> tuple[Job, frozenset[str]]:
    """The job, and the names of the fields that somebody set.

    `params` are the command's parameters as Typer gives them: a flag's or its variable's value,
    None where there is neither. `needs` is a field that must be set. UsageError otherwise, for
    values of a wrong type or outside their choices, and for what is wrong in the job file.
    """
    types = {field.name: str(field.type) for field in fields(kind)}
    settings = read_job_file(Path(params["config"]), verb, types) if params.get("config") else {}
    for name, value in params.items():
        if name in types and value not in (None, [], ()):
            settings[name] = typed(
                from_words(name, value, types[name]), types[name], option_of(name)
            )
    if needs is not None and not settings.get(needs):
        raise UsageError(f"{NEEDED[needs]} latentcli {verb} --help shows how.")
    job = kind(**settings)
    check_choices(job)
    if "max_bad" in settings:
        allowed_failures(settings["max_bad"], 0)  # the job asks for it only when it is done
    return job, frozenset(settings)


def option_of(name: str) -> str:
    """A field's option, as it is typed."""
    key = next((key for key, field in FIELDS.items() if field == name), name)
    return f"--{key.replace('_', '-')}"


def from_words(name: str, value: Any, hint: str) -> Any:
    """An option's words as the values that a job file would hold; what is no number stays text."""
    if name in LISTS:
        value = [part.strip() for text in value for part in text.split(",") if part.strip()]
    number = NUMBERS.get(hint.removesuffix(" | None"))
    if number is None:
        return value
    try:
        return [number(text) for text in value] if isinstance(value, list) else number(value)
    except ValueError:
        return value


def read_job_file(path: Path, verb: str, types: Mapping[str, str]) -> dict[str, Any]:
    """A job file's settings by field name; UsageError says what is wrong and what is allowed."""
    document = load_toml(path)
    check_verb(path, document.pop("verb", verb), verb)
    settings = {}
    for section, table in document.items():
        check_section(path, section, table)
        allowed = keys_for(section, types)
        for key, value in table.items():
            if key not in allowed:
                raise UsageError(unknown_key(path, section, key, allowed, verb))
            name = key if key in types else FIELDS[key]
            settings[name] = typed(value, types[name], f"{path}: [{section}] {key}")
    return settings


def load_toml(path: Path) -> dict[str, Any]:
    """The file's tables."""
    import tomllib  # costs time that commands without a job file have not

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The job file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UsageError(f"The job file {path} is no valid TOML: {error}.") from error


def check_verb(path: Path, found: Any, verb: str) -> None:
    """UsageError where the file is a job for another verb."""
    if found != verb:
        raise UsageError(
            f'{path} says verb = "{found}", so it is no job for {verb};'
            f" run latentcli {found} --config {path}."
        )


def check_section(path: Path, section: str, table: Any) -> None:
    """UsageError where no section has that name, or where the name holds a single value."""
    if section not in SECTIONS:
        raise UsageError(
            f"{path} has an unknown section [{section}]{suggestion(section, SECTIONS)};"
            f" allowed are {', '.join(SECTIONS)}."
        )
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {section} must be a section, written [{section}].")


def keys_for(section: str, types: Mapping[str, str]) -> tuple[str, ...]:
    """The section's keys that this job has."""
    return tuple(k for k in SECTIONS[section] if k in types or FIELDS.get(k) in types)


def unknown_key(path: Path, section: str, key: str, allowed: Iterable[str], verb: str) -> str:
    """The message for a key that this section does not have in this job."""
    allowed = tuple(allowed)
    hint = suggestion(key, allowed)
    home = section_of(key)
    if home is not None and home != section:
        hint = f"; it belongs in [{home}]"
    keys = f"allowed are {', '.join(allowed)}" if allowed else f"{verb} has no settings there"
    return f"{path}: [{section}] has no key {key!r} for {verb}{hint}; {keys}."


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """', did you mean ...?' or nothing."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def typed(value: Any, hint: str, place: str) -> Any:
    """The value as the field's type; UsageError names the place and what was expected."""
    convert, expected = TYPES[hint.removesuffix(" | None")]
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
