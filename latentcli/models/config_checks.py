"""Checks the keys and values of a model's config; all families refuse them in the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from latentcli.core.errors import WeightsError

Check = tuple[Callable[[Any], bool], str]
"""Whether a value will do, and what it must be."""


def is_whole(value: Any) -> bool:
    """Whether it is a positive whole number; a bool is none."""
    return type(value) is int and value > 0


def is_number(value: Any) -> bool:
    """Whether it is a number; a bool is none."""
    return type(value) in (int, float)


def is_text(value: Any) -> bool:
    """Whether it is a text, even an empty one."""
    return isinstance(value, str)


def list_of(accepts: Callable[[Any], bool], what: str, least: int = 1) -> Check:
    """A list of `least` values or more, all of which `accepts` takes."""

    def fits(value: Any) -> bool:
        is_list = isinstance(value, (list, tuple))
        return is_list and len(value) >= least and all(map(accepts, value))

    return fits, f"a list of {what}"


WHOLE: Check = (is_whole, "a positive whole number")
INTEGER: Check = (lambda value: type(value) is int, "a whole number")
NUMBER: Check = (is_number, "a number")
POSITIVE: Check = (lambda value: is_number(value) and value > 0, "a positive number")
SWITCH: Check = (lambda value: isinstance(value, bool), "true or false")
RANGE: Check = (lambda value: value in ((-1, 1), [-1, 1], (0, 1), [0, 1]), "[-1, 1] or [0, 1]")
"""What a decoder's pixels go from and to."""


def frozen(value: Any) -> Any:
    """A list as a tuple, any other value as it is."""
    return tuple(value) if isinstance(value, list) else value


def misfit(name: str, value: Any, wanted: str) -> WeightsError:
    """The error for the value of a config's key that is not what it must be."""
    return WeightsError(f"The config says {name} = {value!r}; it must be {wanted}.")


def check(name: str, value: Any, rule: Check) -> None:
    """WeightsError where the value of a config's key is not what the rule says."""
    accepts, wanted = rule
    if not accepts(value):
        raise misfit(name, value, wanted)


def refuse_unknown(given: Iterable[str], known: Iterable[str], who: str) -> None:
    """WeightsError where a config has keys that `who` does not know."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise WeightsError(
            f"The config has keys that {who} does not know: {', '.join(unknown)}."
            f" It knows {', '.join(sorted(known))}."
        )
