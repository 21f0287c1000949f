"""An option on a field: what is derived of it, its place among others, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from latentcli.core.errors import UsageError
from latentcli.core.options import check_options, flag_of, like, option, options_of


def even(value: int) -> None:
    if value % 2:
        raise UsageError(f"{value} is odd.")


@dataclass(frozen=True, kw_only=True)
class Base:
    first: str | None = option(None, "First.", section="read")
    last: bool = option(True, "Last.", section="read")


@dataclass(frozen=True, kw_only=True)
class Job(Base):
    numbers: tuple[int, ...] = option((), "Numbers.", key="number", least=0)
    pair: int | None = option(None, "Pair.", check=even, flags=("--two", "-2"))
    share: float = option(0.5, "Share.", least=0, most=1)
    colour: str = option("red", "Colour.", choices=("red", "blue"))
    first: str | None = like(Base, "first", help="Another first.", section="write")


def test_what_is_derived():
    options = options_of(Job)
    assert list(options) == ["first", "last", "numbers", "pair", "share", "colour"]
    assert {name: told.type for name, told in options.items()} == {
        "first": "str",
        "numbers": "tuple[int, ...]",
        "pair": "int",
        "last": "bool",
        "share": "float",
        "colour": "str",
    }
    assert [told.flags for told in options.values()] == [
        ("--first",),
        ("--last/--no-last",),
        ("--number",),
        ("--two", "-2"),
        ("--share",),
        ("--colour",),
    ]
    assert [flag_of(told) for told in options.values()][1:4] == ["--last", "--number", "--two"]
    assert [told.key for told in options.values()][:3] == ["first", "last", "number"]


def test_an_option_of_another_job_differs_in_what_is_said():
    ours, theirs = options_of(Job)["first"], options_of(Base)["first"]
    assert (ours.help, ours.section) == ("Another first.", "write")
    assert (theirs.help, theirs.section) == ("First.", "read")
    assert Job().first is Base().first is None


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (Job(numbers=(3, -1)), "--number is -1; it must be at least 0."),
        (Job(pair=3), "3 is odd."),
        (Job(share=1.5), "--share is 1.5; it must be at least 0 and at most 1."),
        (Job(colour="green"), "--colour is 'green'; allowed are red, blue."),
        (Job(colour="bleu"), "--colour is 'bleu' (did you mean 'blue'?); allowed are red, blue."),
    ],
)
def test_what_is_refused(job, told):
    with pytest.raises(UsageError) as caught:
        check_options(job)
    assert str(caught.value) == told


def test_what_is_allowed():
    allowed = (Job(), Job(numbers=(0, 1), pair=2, share=1, colour="blue"))
    assert [check_options(job) for job in allowed] == [None, None]


def test_a_setting_that_is_none_is_a_mistake():
    with pytest.raises(TypeError, match="metavr"):
        option(1, "One.", metavr="N")
