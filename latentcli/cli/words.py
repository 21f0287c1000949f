"""Formats the counts, sizes, times and paths of a summary in plain words."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from latentcli.core.reasons import with_example
from latentcli.jobs.loader.left_out import left_out_words
from latentcli.jobs.runtime.advice import WORDS

LONG_START = 1.0
"""Seconds of start-up from which a summary tells them."""


def count(number: int, noun: str) -> str:
    """1 image, 2,000 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """9.5 s, 2 min 05 s, 3 h 07 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rate(per_second: float | None, noun: str = "images") -> str:
    """153 images/s, with as many digits as mean something."""
    return f"{digits(per_second or 0.0)} {noun}/s"


def digits(value: float) -> str:
    """153, 9.5 or 0.25: as many digits as mean something."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 1 else 2}f}"


def command(*words: str) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(["latentcli", *words])


def outcome(verb: str, document: Mapping[str, Any]) -> str:
    """The first line of a summary; `verb` is the document's own count: encoded or decoded."""
    done, skipped, failed = (int(document[k] or 0) for k in (verb, "skipped", "failed"))
    took, clips = duration(document["seconds"]), document.get("media") == "clips"
    noun = "clip" if clips else "image"
    if not done and skipped:
        but = f", {failed:,} failed" if failed else ""
        if document.get("filtered"):
            but += f", {document['filtered']:,} left out by the filters"
        return f"Nothing to do: {count(skipped, noun)} {verb} already{but} ({took})."
    pace = rate(document["images_per_second"], "frames" if clips else "images")
    frames = f" ({count(document['frames'], 'frame')})" if clips else ""
    parts = [
        f"{verb.capitalize()} {count(done, noun)}{frames} with {document['model']} in {took}"
        + (f" ({start_up(document)}{pace})" if done else "")
    ]
    if skipped:
        parts.append(f"{skipped:,} {'was' if skipped == 1 else 'were'} {verb} before")
    if failed:
        parts.append(f"{failed:,} failed")
    if document.get("filtered"):
        parts.append(f"{document['filtered']:,} left out by the filters")
    return f"{'; '.join(parts)}."


def start_up(document: Mapping[str, Any]) -> str:
    """How long a job took until its first images, where that is long."""
    seconds = document.get("startup_seconds") or 0.0
    return f"start-up {duration(seconds)}, then " if seconds >= LONG_START else ""


def slowest(document: Mapping[str, Any]) -> Iterator[str]:
    """What limited a job and what would help, or else what took longest, where one is known."""
    stage, reason = document.get("bottleneck"), document.get("bottleneck_reason")
    if reason:
        yield f"{reason}."
    elif stage in WORDS:
        yield f"The slowest stage was {stage}: {WORDS[stage]}."


def failures(document: Mapping[str, Any]) -> Iterator[str]:
    """How many inputs failed, where they are listed, and the commonest three reasons."""
    listed, reasons = document["failures"], Counter(document["reasons"])
    if not listed:
        return
    where = f"listed in {listed}" if isinstance(listed, str) else "listed by --json"
    yield f"{count(document['failed'], 'input')} failed, {where}:"
    for text, number in reasons.most_common(3):
        yield f"  {number:,} x {with_example(text, document.get('reason_examples', {}))}"
    if len(reasons) > 3:
        yield f"  and {count(len(reasons) - 3, 'other reason')}"


def filtered(document: Mapping[str, Any]) -> Iterator[str]:
    """How many inputs the filters left out, and why."""
    if document.get("filtered"):
        yield f"{count(document['filtered'], 'input')} left out by the filters:"
        reasons = document["filter_reasons"].items()
        yield from (f"  {number:,} x {text}" for text, number in reasons)


def fields(document: Mapping[str, Any]) -> Iterator[str]:
    """What was chosen among the pictures of samples in tars, and how many had none."""
    for item in document.get("field_choices", ())[:3]:
        yield (
            f"Of {count(item['samples'], 'sample')} in {count(item['tars'], 'tar')}:"
            f" {item['choice']}; first in {item['first']}. --image-field chooses another."
        )
    number = document.get("nothing_to_encode", 0)
    if number:
        none = "clip" if document["media"] == "clips" else "picture"
        yield f"Without a {none}, and so not encoded: {count(number, 'sample')}."


def left_out(document: Mapping[str, Any]) -> Iterator[str]:
    """What the sources hold that was no input, where there was any."""
    if told := left_out_words(document.get("left_out_by", {})):
        yield f"Not taken as inputs: {told}."
