"""Computes the aspect-ratio buckets of a job, and the bucket and crop of a picture.

The rules that bear a trainer's name give the sizes that it gives, float for float, so that a cache
made here lines up with a data set that is configured there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError, UsageError
from latentcli.images.bucket_rules.rule import Size, Table, too_small
from latentcli.images.bucket_rules.rules import RULES

BUCKET_RULES = tuple(name for name in RULES if name != "file")
"""Rules that make their own sizes; a table read from a file has the rule `file`."""

_LARGE = 10**6
_LINE = re.compile(r"([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class Buckets:
    """The sizes that pictures are brought to, and the rule that gives each picture its own."""

    rule: str
    """One of BUCKET_RULES, or `file`."""
    table: Table
    """The buckets, (W, H) in pixels, sorted; none where the rule computes them by picture."""
    area: int
    """Pixels that no bucket exceeds, but for the rounding of a rule without a table; of
    `simpletuner-pixel`, the square of the shorter side."""
    step: int
    """Sides are multiples of this."""
    no_upscale: bool = False
    """Pictures are never enlarged; small ones get sizes that are not in the table."""
    min_side: int | None = None
    """Least side in pixels, of a table made with one."""
    max_side: int | None = None
    """Largest side in pixels, of a table made with one."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"bucket rule is {self.rule!r}, allowed are {', '.join(RULES)}")
        has_table = self.rule == "file" or RULES[self.rule].table is not None
        if bool(self.table) != has_table or self.step < 1 or self.area < 1:
            what = "a table" if has_table else "no table"
            raise ValueError(f"{self.rule} buckets need {what}, an area, and a step of at least 1")
        for size in self.table:
            if min(size) < self.step or any(side % self.step for side in size):
                raise ValueError(f"bucket {size} is not a multiple of the step {self.step}")

    def pick(self, size: Size) -> Size:
        """The bucket (W, H) of a picture of `size`; SampleError where a side would be 0."""
        target = RULES[self.rule].pick(self, size)
        if min(target) < self.step:
            raise too_small(self, size)
        return target

    def resized(self, size: Size, target: Size) -> Size:
        """(W, H) to resize a picture to before the crop; it covers `target`, its bucket."""
        return RULES[self.rule].resized(self, size, target)

    @property
    def largest(self) -> Size:
        """The bucket of most pixels; of a rule without a table, that of a large square."""
        if self.table:
            return max(self.table, key=lambda size: size[0] * size[1])
        return self.pick((_LARGE, _LARGE))

    @property
    def most_pixels(self) -> int | None:
        """About what no bucket exceeds; None where a long picture's may have any number."""
        return self.area if RULES[self.rule].bounded else None

    def described(self) -> dict[str, Any]:
        """Plain values for a store's spec; `described_buckets` reads them."""
        return {**asdict(self), "table": [list(size) for size in self.table]}


def make_buckets(
    rule: str,
    area_side: int | Size,
    step: int | None,
    divisor: int,
    no_upscale: bool = False,
    min_side: int | None = None,
    max_side: int | None = None,
) -> Buckets:
    """Buckets of at most `area_side` squared (or W x H) pixels, of a rule of BUCKET_RULES.

    `area`: for each width the largest height that fits, both ways round, and the square; sides
    from half to twice the square's. The nearest by the ratio of the aspect ratios wins. The step is
    64, or the least common multiple with the divisor.
    `kohya`: sides from 256 to 1024 in steps of 64, as sd-scripts has them. Where the area asks for
    it the limits give way: up to its longer side, down to its shorter side.
    `musubi`: musubi-tuner's table, in steps of 16.
    `ai-toolkit`, in steps of 16, and `simpletuner`, in steps of 64, have no table, and
    `simpletuner-pixel` takes the area's side as the shorter one of each picture.
    With `no_upscale` the first three make pictures smaller only. UsageError where these do not fit
    together, or a bucket would be no multiple of `divisor`.
    """
    if rule not in BUCKET_RULES:
        raise UsageError(f"bucket rule is {rule!r}; allowed are {', '.join(BUCKET_RULES)}")
    asked = RULES[rule]
    if step is None:
        step = math.lcm(asked.step, divisor) if asked.joins_divisor else asked.step
    check_step(step, divisor)
    reso = area_side if isinstance(area_side, tuple) else (area_side, area_side)
    area = max(reso[0], 0) * max(reso[1], 0)
    least = asked.least_steps * step
    if math.isqrt(area) < least:
        raise UsageError(
            f"bucket area is {reso[0]}x{reso[1]}; with steps of {step} the rule {rule} needs"
            f" {least}x{least} or more"
        )
    if asked.check is not None:
        asked.check(reso, step)
    if no_upscale and asked.always_enlarges is not None:
        raise UsageError(f"the bucket rule {rule} {asked.always_enlarges}; leave out --no-upscale")
    if asked.limits is None and (min_side, max_side) != (None, None):
        raise UsageError(f"the bucket rule {rule} has no least or largest side; leave them out")
    if asked.table is None:
        return Buckets(rule, (), area, step)
    low, high = asked.limits(reso, step, min_side, max_side) if asked.limits else (None, None)
    table = asked.table(area, step, low or step, high or area)
    if not table:
        raise UsageError(
            f"no bucket of {area} pixels in steps of {step} has sides from {low} to {high}; allow"
            " a wider range of sides"
        )
    return Buckets(rule, table, area, step, no_upscale, low, high)


def read_buckets(path: str, divisor: int) -> Buckets:
    """Buckets of a text file, one WIDTHxHEIGHT a line, or of a JSON list of [width, height].

    Empty lines and what follows a # are skipped. The nearest by the ratio of the aspect ratios
    wins. UsageError that names the line where the file holds something else, or a size that is no
    multiple of `divisor`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the bucket file {path}: {reason}") from error
    sizes = _json_sizes(text, path) if text.lstrip().startswith("[") else _line_sizes(text, path)
    if not sizes:
        raise UsageError(f"{path} holds no bucket; write one WIDTHxHEIGHT per line, like 1024x768")
    for where, size in sizes.items():
        check_size(size, divisor, where)
    table = tuple(sorted(set(sizes.values())))
    return Buckets("file", table, max(w * h for w, h in table), divisor)


def described_buckets(fields: Mapping[str, Any]) -> Buckets:
    """What `Buckets.described` described; StoreError where it did not."""
    try:
        return Buckets(**{**fields, "table": tuple((w, h) for w, h in fields["table"])})
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"The store's spec holds buckets that this version cannot read: {error}."
        ) from error


def check_step(step: int, divisor: int) -> None:
    """UsageError, with the step to use, where sides in this step break the model's size rule."""
    if step < 1 or step % divisor:
        better = math.lcm(max(step, 1), divisor)
        raise UsageError(
            f"bucket step is {step}; this model needs multiples of {divisor}: try"
            f" --bucket-step {better}"
        )


def check_size(size: Size, divisor: int, what: str = "size") -> None:
    """UsageError, with the nearest sizes, where `size` is no multiple of `divisor`."""
    if min(size) > 0 and not any(side % divisor for side in size):
        return
    up = "x".join(str(max(1, -(-side // divisor)) * divisor) for side in size)
    down = "x".join(str(max(1, side // divisor) * divisor) for side in size)
    nearest = up if up == down else f"{up} or {down}"
    raise UsageError(
        f"{what} is {size[0]}x{size[1]}; this model needs multiples of {divisor}: try {nearest}"
    )


def _line_sizes(text: str, path: str) -> dict[str, Size]:
    """Sizes by where they stand in the file."""
    sizes = {}
    for number, line in enumerate(text.splitlines(), 1):
        where, line = f"line {number} of {path}", line.partition("#")[0].strip()
        match = _LINE.fullmatch(line)
        if match:
            sizes[where] = int(match[1]), int(match[2])
        elif line:
            raise UsageError(
                f"{where} is {line[:40]!r}; write one WIDTHxHEIGHT per line, like 1024x768"
            )
    return sizes


def _json_sizes(text: str, path: str) -> dict[str, Size]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} begins like a JSON list but is not valid JSON: {error}"
        ) from error
    for number, item in enumerate(items, 1):
        pair = item if isinstance(item, list) and len(item) == 2 else [None]
        # A bool is an int to isinstance.
        if not all(type(side) is int and 0 < side < 10**6 for side in pair):
            shown = json.dumps(item)[:40]
            raise UsageError(
                f"item {number} of {path} is {shown}; write [width, height] in pixels, like"
                " [1024, 768]"
            )
    return {f"item {number} of {path}": (w, h) for number, (w, h) in enumerate(items, 1)}
