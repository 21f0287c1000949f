"""Leaves what is typed as the text that it is, for jobfile.py to read.

Typer checks every value with pydantic, which takes longer to load than all that a command needs
before it knows what to do: a fifth of a second, at each start. Ours are texts, lists of texts and
switches, and only the words of a switch's variable, such as yes and 0, mean something to Typer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True, slots=True)
class AsTyped:
    """Stands for Typer's check of a parameter."""

    check: Callable[[], Any]
    """Makes Typer's own."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """A text, a list of texts, or a bool; None, or (), where nothing is given."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        if several and not isinstance(value, str):
            return list(value)
        if param.type_descriptor.annotation is bool and not isinstance(value, bool):
            return self.check().coerce(value, param=param, ctx=ctx)
        return value


def as_typed(parameters: Sequence[Any]) -> list[Any]:
    """Typer's parameters, whose values stay as they are typed."""
    for parameter in parameters:
        # Versions of Typer without this method load no pydantic either.
        if hasattr(type(parameter), "get_runtime_param"):
            checked = partial(type(parameter).get_runtime_param, parameter)
            parameter.get_runtime_param = partial(AsTyped, checked)
    return list(parameters)
