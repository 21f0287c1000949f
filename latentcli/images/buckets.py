"""Computes the aspect-ratio buckets of a job, and the bucket and crop of a picture.

The rules `kohya` and `musubi` give the sizes that sd-scripts and musubi-tuner give, float for
float, so that a cache made here lines up with a data set that is configured there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentcli.core.errors import SampleError, StoreError, UsageError

Size = tuple[int, int]
"""(W, H) in pixels."""
Table = tuple[Size, ...]

BUCKET_RULES = ("area", "kohya", "musubi")
"""Rules that make their own table; a table read from a file has the rule `file`."""

_STEPS = {"area": 64, "kohya": 64, "musubi": 16}
_SIDES = (256, 1024)
_LINE = re.compile(r"([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class Buckets:
    """The sizes that pictures are brought to, and the rule that gives each picture its own."""

    rule: str
    """One of BUCKET_RULES, or `file`."""
    table: Table
    """The buckets, (W, H) in pixels, sorted."""
    area: int
    """Pixels that no bucket exceeds."""
    step: int
    """Sides are multiples of this."""
    no_upscale: bool = False
    """Pictures are never enlarged; small ones get sizes that are not in the table."""
    min_side: int | None = None
    """Least side in pixels, of a table made with one."""
    max_side: int | None = None
    """Largest side in pixels, of a table made with one."""

    def __post_init__(self) -> None:
        if self.rule not in _PICK:
            raise ValueError(f"bucket rule is {self.rule!r}, allowed are {', '.join(_PICK)}")
        if not self.table or self.step < 1:
            raise ValueError("buckets need a table and a step of at least 1")
        for size in self.table:
            if min(size) < self.step or any(side % self.step for side in size):
                raise ValueError(f"bucket {size} is no multiple of the step {self.step}")

    def pick(self, size: Size) -> Size:
        """The bucket (W, H) of a picture of `size`; SampleError where a side would be 0."""
        target = _PICK[self.rule](self, size)
        if min(target) < self.step:
            raise _too_small(self, size)
        return target

    def resized(self, size: Size, target: Size) -> Size:
        """(W, H) to resize a picture to before the crop; it covers `target`, its bucket."""
        return _RESIZED[self.rule](self, size, target)

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
    `musubi`: musubi-tuner's table, in steps of 16; it knows no limits of the sides.
    With `no_upscale` each rule makes pictures smaller only. UsageError where these do not fit
    together, or a bucket would be no multiple of `divisor`.
    """
    if rule not in BUCKET_RULES:
        raise UsageError(f"bucket rule is {rule!r}; allowed are {', '.join(BUCKET_RULES)}")
    if step is None:
        step = math.lcm(_STEPS[rule], divisor) if rule == "area" else _STEPS[rule]
    check_step(step, divisor)
    reso = area_side if isinstance(area_side, tuple) else (area_side, area_side)
    area = max(reso[0], 0) * max(reso[1], 0)
    least = 2 * step if rule == "musubi" else step
    if math.isqrt(area) < least:
        raise UsageError(
            f"bucket area is {reso[0]}x{reso[1]}; with steps of {step} the rule {rule} needs"
            f" {least}x{least} or more"
        )
    low, high = _limits(rule, reso, step, min_side, max_side)
    table = _TABLE[rule](area, step, low or step, high or area)
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
        raise UsageError(f"{path} holds no bucket; write one WIDTHxHEIGHT a line, like 1024x768")
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
            f"The store's spec tells buckets that this version cannot read: {error}."
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


def covering_size(size: Size, target: Size) -> Size:
    """`size` scaled to just cover `target`: one side matches, the other is rounded half up."""
    (w, h), (width, height) = size, target
    if w * height >= width * h:
        return max(width, (2 * w * height + h) // (2 * h)), height
    return width, max(height, (2 * h * width + w) // (2 * w))


def _limits(
    rule: str, reso: Size, step: int, low: int | None, high: int | None
) -> tuple[int, int] | tuple[None, None]:
    """Least and largest side of a bucket."""
    if rule == "musubi":
        if low is not None or high is not None:
            raise UsageError("the bucket rule musubi has no least or largest side; leave them out")
        return None, None
    if low is not None and not 0 < low <= min(reso):
        raise UsageError(f"least bucket side is {low}; allowed is 1 to {min(reso)}, the area's own")
    if high is not None and high < max(reso):
        raise UsageError(
            f"largest bucket side is {high}; allowed is {max(reso)}, the area's own, or more"
        )
    if rule == "area":
        square = math.isqrt(reso[0] * reso[1])
        return low or -(-square // 2), high or 2 * square
    # sd-scripts brings its limits to whole steps: the lower one down, the upper one up.
    low = (low or min(_SIDES[0], *reso)) // step * step
    high = -(-(high or max(_SIDES[1], *reso)) // step) * step
    return max(low, step), high


def _area_table(area: int, step: int, low: int, high: int) -> Table:
    square = _down(math.isqrt(area), step)
    sizes = {(square, square)}
    for width in range(-(-low // step) * step, high + 1, step):
        height = _down(area // width, step)
        sizes |= {(width, height), (height, width)}
    return tuple(sorted(size for size in sizes if low <= min(size) and max(size) <= high))


def _kohya_table(area: int, step: int, low: int, high: int) -> Table:
    square = _down(math.isqrt(area), step)
    sizes = {(square, square)}
    for width in range(low, high + 1, step):
        height = min(high, _down(area // width, step))
        if height >= low:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def _musubi_table(area: int, step: int, low: int, high: int) -> Table:
    square = math.isqrt(area)
    widths = range(_down(square // 2, step), square + step, step)
    pairs = [(width, _down(area // width, step)) for width in widths]
    return tuple(sorted({*pairs, *((h, w) for w, h in pairs)}))


def _pick_by_ratio(buckets: Buckets, size: Size) -> Size:
    """Nearest aspect ratio in log space, then the larger area, then longer the picture's way."""
    (w, h), tall = size, size[1] > size[0]

    def order(bucket: Size) -> tuple[float, int, int]:
        # The log of this ratio is the distance. Swapping width and height everywhere gives the
        # same floats, so pictures and their turned copies get the same bucket, turned.
        a, b = w * bucket[1], h * bucket[0]
        return max(a, b) / min(a, b), -bucket[0] * bucket[1], -bucket[1 if tall else 0]

    width, height = min(buckets.table, key=order)
    if buckets.no_upscale:
        # What would be enlarged keeps the side that is too short, in whole steps.
        return min(width, _down(w, buckets.step)), min(height, _down(h, buckets.step))
    return width, height


def _pick_by_difference(buckets: Buckets, size: Size) -> Size:
    """Nearest width / height, and the first of the sorted table where two are as near."""
    aspect = size[0] / size[1]
    return min(buckets.table, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


def _pick_kohya(buckets: Buckets, size: Size) -> Size:
    if buckets.no_upscale:
        return _whole_steps(_kohya_shrunk(buckets, size), buckets.step)
    return size if size in buckets.table else _pick_by_difference(buckets, size)


def _pick_musubi(buckets: Buckets, size: Size) -> Size:
    if buckets.no_upscale and size[0] * size[1] <= buckets.area:
        return _whole_steps(size, buckets.step)
    return _pick_by_difference(buckets, size)


def _resized_kohya(buckets: Buckets, size: Size, target: Size) -> Size:
    if buckets.no_upscale:
        return _kohya_shrunk(buckets, size)
    (w, h), (width, height) = size, target
    scale = height / h if w / h > width / height else width / w
    return int(w * scale + 0.5), int(h * scale + 0.5)


def _resized_musubi(buckets: Buckets, size: Size, target: Size) -> Size:
    (w, h), (width, height) = size, target
    scale = max(width / w, height / h)
    return int(w * scale + 0.5), int(h * scale + 0.5)


def _kohya_shrunk(buckets: Buckets, size: Size) -> Size:
    """The picture within the area, with the side in whole steps that keeps its aspect better."""
    (w, h), step = size, buckets.step
    if w * h <= buckets.area:
        return size
    aspect = w / h
    width = math.sqrt(buckets.area * aspect)
    whole_width = _down(int(width + 0.5), step)
    its_height = _down(int(whole_width / aspect + 0.5), step)
    whole_height = _down(int(buckets.area / width + 0.5), step)
    its_width = _down(int(whole_height * aspect + 0.5), step)
    if 0 in (its_height, whole_height):
        raise _too_small(buckets, size)
    if abs(whole_width / its_height - aspect) < abs(its_width / whole_height - aspect):
        return whole_width, int(whole_width / aspect + 0.5)
    return int(whole_height * aspect + 0.5), whole_height


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
                f"{where} is {line[:40]!r}; write one WIDTHxHEIGHT a line, like 1024x768"
            )
    return sizes


def _json_sizes(text: str, path: str) -> dict[str, Size]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} begins like a JSON list but is none: {error}") from error
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


def _down(side: int, step: int) -> int:
    return side - side % step


def _whole_steps(size: Size, step: int) -> Size:
    return _down(size[0], step), _down(size[1], step)


def _too_small(buckets: Buckets, size: Size) -> SampleError:
    return SampleError(
        "preprocess",
        f"picture is {size[0]}x{size[1]}; not enlarged, a side is less than one bucket step of"
        f" {buckets.step} pixels",
    )


_TABLE: dict[str, Callable[[int, int, int, int], Table]] = {
    "area": _area_table,
    "kohya": _kohya_table,
    "musubi": _musubi_table,
}
_PICK: dict[str, Callable[[Buckets, Size], Size]] = {
    "area": _pick_by_ratio,
    "kohya": _pick_kohya,
    "musubi": _pick_musubi,
    "file": _pick_by_ratio,
}
_RESIZED: dict[str, Callable[[Buckets, Size, Size], Size]] = {
    "area": lambda buckets, size, target: covering_size(size, target),
    "kohya": _resized_kohya,
    "musubi": _resized_musubi,
    "file": lambda buckets, size, target: covering_size(size, target),
}
