"""Samples of all kinds for formats that are read without a trainer, and the files made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from goldens import sample, setting
from harness.made_up_stores import noise
from hypothesis import strategies as st

from latentcli.exports.format import ExportFormat, ExportSample, Setting

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ROWS = st.fixed_dictionaries(
    {
        "count": st.integers(1, 7),
        "same_size": st.booleans(),
        "labelled": st.booleans(),
        "mirrored": st.booleans(),
        "captions": st.lists(TEXTS, min_size=7, max_size=7),
    }
)
"""What a set of samples is like."""
CAPTIONS = ["", "a cat", "eine Katze über Bäumen", "猫 🐈", "two\nlines", "null \0 in it", "ß"]


def rows_of(
    format: ExportFormat,
    rows: dict[str, Any] | int,
    *,
    same_size: bool = False,
    labelled: bool = False,
    mirrored: bool = False,
    **more: Any,
) -> tuple[list[ExportSample], Setting]:
    """Samples of 4 channels, of one size or several, every third without a class; their setting."""
    like = {"same_size": same_size, "labelled": labelled, "mirrored": mirrored}
    if isinstance(rows, dict):
        like |= rows
    count, captions = (
        (rows["count"], rows["captions"]) if isinstance(rows, dict) else (rows, CAPTIONS)
    )
    samples = []
    for i in range(count):
        h, w = (3, 2) if like["same_size"] else (1 + i % 3, 2 + 300 * (i == 4))
        latent = noise(4, h, w, seed=i)
        one = sample(
            latent,
            f"folder {i % 2}/pic.{i}é",
            index=i,
            caption=captions[i % len(captions)],
            original_size=(64 + i, 48),
            resized_size=(w * 8, h * 8),
            crop=(0, 0, w * 8, h * 8),
            mirrored=noise(4, h, w, seed=100 + i) if like["mirrored"] else None,
        )
        if like["labelled"] and i % 3 != 2:
            one = replace(one, label=i % 3)
        samples.append(one)
    known = {"shape": (3, 2) if like["same_size"] else None, "count": count, "dtype": "float16"}
    known |= {"labelled": like["labelled"], "mirrored": like["mirrored"]}
    return samples, setting(format, format.variants[0].name, **(known | more))


def whole(
    format: ExportFormat, samples: list[ExportSample], one: Setting, per_file: int
) -> dict[str, bytes]:
    """All files of an export that has so many samples in a file."""
    files: dict[str, bytes] = {}
    facts = []
    for number, begin in enumerate(range(0, len(samples), per_file)):
        group = format.write(samples[begin : begin + per_file], number, one)
        files |= {file.path: file.data for file in group.files}
        # As the journal keeps them.
        facts.append(json.loads(json.dumps(group.facts)))
    return files | {file.path: file.data for file in format.finish(facts, one)}


def class_in(sample: ExportSample, one: Setting) -> int | None:
    """What a column of classes has for a sample; None where there is no such column."""
    return (-1 if sample.label is None else sample.label) if one.labelled else None
