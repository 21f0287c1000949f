"""Judges failed inputs by --on-error and --max-bad, at each of them and at the end of the job."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from latentcli.core.errors import LatentCliError, TooManyFailures, UsageError
from latentcli.core.reasons import Reasons

OTHERS_DONE, NONE_LEFT = "Everything else is done.", "No input gave a result."
FEWEST_SEEN = 1000
"""Inputs that a share of --max-bad is taken of at least, while their number is not known."""


def allowed_failures(max_bad: str | None, inputs: int, option: str = "--max-bad") -> int:
    """How many of `inputs` may fail: `max_bad` is a number or a percentage, None is 0.

    UsageError, which names the option, where it is neither.
    """
    text = "0" if max_bad is None else max_bad.strip()
    try:
        # Decimal: in floats, 0.57% of 10,000 is less than 57.
        number = Decimal(text.removesuffix("%"))
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or number < 0 or (text.endswith("%") and number > 100):
        raise UsageError(f"{option} is {max_bad!r}; give a number such as 10, or 0.5%.")
    return int(inputs * number / 100) if text.endswith("%") else int(number)


@dataclass(slots=True)
class Failures:
    """The failed inputs of a job, and when they end it."""

    on_error: str
    max_bad: str | None
    inputs: int | None
    """How many there are, failed or not; None where that is not known beforehand."""
    kept: str
    """What stays of a job that ends early, as the beginning of a sentence."""
    again: str | None = None
    """What goes on from there; None where nothing does."""
    seen: int = 0
    """Inputs that came so far."""
    noted: list[dict[str, Any]] = field(default_factory=list)
    """Key and error of each, as the --json document has them."""
    reasons: Reasons = field(default_factory=Reasons)
    """The same in groups."""

    def add(self, key: str, source: str, why: str, error: str | None = None) -> None:
        """Notes an input, with `why` or another error, and judges it."""
        self.noted.append({"key": key, "error": error or why})
        self.reasons.add(why, key, source)
        self.judge(len(self.noted), source, why)

    def judge(self, failed: int, source: str, why: str) -> None:
        """Ends the job where its options say so, after `failed` inputs of which this is the last.

        `why` is "stage: reason". LatentCliError with --on-error stop, TooManyFailures where more
        have failed than --max-bad allows.
        """
        if self.on_error == "stop":
            goes_on = f", and {self.again} resumes" if self.again else ""
            raise LatentCliError(
                f"{source} failed at {why}. The job stops at the first failure (--on-error stop);"
                f" {self.kept}{goes_on}."
            )
        max_bad = "100%" if self.max_bad is None else self.max_bad
        inputs = max(self.seen, FEWEST_SEEN) if self.inputs is None else self.inputs
        allowed = allowed_failures(max_bad, inputs)
        # Where all inputs may fail, more than all of them is a matter of who counts first.
        if failed > allowed and allowed < inputs:
            go_on = f" and run {self.again} again" if self.again else ""
            raise TooManyFailures(
                f"The job stopped: {failed:,} input{'' if failed == 1 else 's'} failed, and"
                f" --max-bad {max_bad} allows {allowed:,} of {inputs:,}. The last was {source}, at"
                f" {why}. {self.kept[0].upper()}{self.kept[1:]}; correct the inputs, or give a"
                f" larger --max-bad{go_on}."
            )


def check_failed(
    failed: int,
    inputs: int,
    max_bad: str | None,
    rest: str = OTHERS_DONE,
    *,
    what: str = "failed",
    advice: str = "",
) -> None:
    """TooManyFailures where more inputs failed than --max-bad allows; without it, none may.

    `rest` says what is with the others, `what` is said of the failed ones, and `advice` is a
    sentence of what to do. Where there are no others, no --max-bad is offered.
    """
    allowed = allowed_failures(max_bad, inputs)
    if failed > allowed:
        rule = f"--max-bad {max_bad} allows {allowed:,}"
        if max_bad is None:
            rule = f"--max-bad {failed} accepts that"
        end = f"; {rule}. {rest}"
        if failed >= inputs:
            end = f". {NONE_LEFT if rest == OTHERS_DONE else rest}"
        raise TooManyFailures(
            f"{failed:,} of {inputs:,} input{'' if inputs == 1 else 's'} {what}{end}"
            f"{advice and ' '}{advice}"
        )
