"""Keeps what a property has found, without a lock.

functools.cached_property of Python 3.11 has one for all objects of a class, and holds it while the
value is found, over requests to remote storage. A process that is forked meanwhile, as the workers
of a training program are, would wait for ever. Two threads may find a value twice here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Value = TypeVar("Value")


class cached(Generic[Value]):
    """A property whose value is found once and then stands in the object's dictionary."""

    def __init__(self, find: Callable[[Any], Value]) -> None:
        self._find = find
        self.__doc__ = find.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        if instance is None:
            return self
        return instance.__dict__.setdefault(self._name, self._find(instance))  # type: ignore[no-any-return]
