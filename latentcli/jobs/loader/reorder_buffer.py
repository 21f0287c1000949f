"""Puts numbered items of several threads into the order of their numbers.

What is on its way is bounded, in units of work and in bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 0.1
"""Seconds between two calls of `waiting`."""


@dataclass(slots=True)
class Slot:
    """What one item takes of the buffer's room."""

    load: int
    held: int
    """Bytes."""


class ReorderBuffer(Generic[T]):
    """One thread enters items, several make them, one takes them.

    The item that is to be taken next never waits for room, so the bounds cannot stop the flow.
    """

    def __init__(self, most: int, most_bytes: float, refill: float = 1.0) -> None:
        """`refill` is the share of the room up to which it empties before who waits to enter is
        woken: below 1 it is then for several items at once.
        """
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        """Guards all that is in here; notified when there is more room for bytes, and at the
        end."""
        self._room = threading.Condition(lock)
        """Notified when there is room for who enters, and at the end."""
        self._answered = threading.Condition(lock)
        """Notified when there is an answer for who takes: nobody else is woken for that, and who
        takes for nothing else."""
        self.over = False
        """Nobody takes items any more: what makes them should end."""
        self._most, self._most_bytes, self._refill = most, most_bytes, refill
        self._claims: dict[int, Slot] = {}
        self._ready: dict[int, T] = {}
        self._errors: dict[int, BaseException] = {}
        self._failure: BaseException | None = None
        self._entered = self._head = self._load = self._held = 0
        self._end: int | None = None

    def enter(self, load: int, held: int) -> int | None:
        """Waits for room for an item of so much work and bytes; its number, or None once over."""
        with self.changed:
            self._room.wait_for(lambda: self.over or self._has_room(load, held))
            if self.over:
                return None
            number, self._entered = self._entered, self._entered + 1
            self._claims[number] = Slot(load, held)
            self._load += load
            self._held += held
            return number

    def _has_room(self, load: int, held: int) -> bool:
        if not self._claims:
            return True
        return self._load + load <= self._most and self._held + held <= self._most_bytes

    def admit(self, number: int, held: int) -> bool:
        """Waits for room for more bytes of an item; False once over."""
        with self.changed:
            self.changed.wait_for(
                lambda: self.over or number == self._head or self._held + held <= self._most_bytes
            )
            if not self.over:
                self._claims[number].held += held
                self._held += held
            return not self.over

    def put(self, number: int, item: T) -> None:
        """An item is made."""
        with self.changed:
            self._ready[number] = item
            if number == self._head:
                self._answered.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """No item follows those entered; with an error, that is raised in the next one's place."""
        with self.changed:
            self._end = self._entered
            if error is not None:
                self._errors[self._end] = error
            self._answered.notify_all()

    def fail(self, error: BaseException) -> None:
        """The next item that is asked for is this error, whatever is ready."""
        with self.changed:
            self._failure = self._failure or error
            self._answered.notify_all()

    def close(self) -> None:
        """Ends all waiting in here."""
        with self.changed:
            self.over = True
            self.changed.notify_all()
            self._room.notify_all()

    def items(self, waiting: Callable[[], None] | None = None) -> Iterator[T]:
        """The items in order; `waiting` is called now and then while there is none."""
        while (item := self._take(waiting)) is not None:
            yield item

    def _take(self, waiting: Callable[[], None] | None) -> T | None:
        while True:
            with self.changed:
                if not self._is_known():
                    self._answered.wait_for(self._is_known, PATIENCE)
                if self._failure is not None:
                    raise self._failure
                if self._head in self._errors:
                    raise self._errors[self._head]
                if self._head in self._ready:
                    return self._leave()
                if self._head == self._end:
                    return None
            if waiting is not None:
                waiting()

    def _is_known(self) -> bool:
        """Whether there is an answer for who takes."""
        known = self._head in self._ready or self._head in self._errors or self._head == self._end
        return known or self._failure is not None

    def _leave(self) -> T:
        claim = self._claims.pop(self._head)
        item = self._ready.pop(self._head)
        self._head += 1
        self._load -= claim.load
        self._held -= claim.held
        self.changed.notify_all()
        if not self._claims or self._is_to_be_filled():
            self._room.notify_all()
        return item

    def _is_to_be_filled(self) -> bool:
        most, most_bytes = self._refill * self._most, self._refill * self._most_bytes
        return self._load <= most and self._held <= most_bytes
