"""`latentcli plan`: what it prints, and that it has the very options of encode."""

from __future__ import annotations

import inspect
import io

import pytest
from rich.console import Console

from latentcli.cli.encode import encode
from latentcli.cli.plan import plan
from latentcli.cli.plan_tables import plan_tables

NOTHING = {"inputs": 0, "why": "", "examples": []}
DOCUMENT = {
    "store": "s",
    "model": "m",
    "media": "images",
    "kind": "files",
    "tars": None,
    "inputs": 5,
    "inputs_are_guess": False,
    "to_encode": 3,
    "already_encoded": 2,
    "texts": 0,
    "filtered": 0,
    "looked_at": 0,
    "shards": 1,
    "bytes": 2048,
    "reasons": {
        "new": {"inputs": 3, "why": "not in the store yet", "examples": ["a", "b", "c"]},
        "failed": NOTHING,
        "done": {"inputs": 2, "why": "encoded already", "examples": ["x"]},
    },
    "refused": [],
    "devices": 2,
    "probe": {"inputs": 1, "images_per_second": 10.0, "seconds": 7200, "device_hours": 4.0},
}


def shown(**changes: object) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=80)
    for item in plan_tables(DOCUMENT | changes):
        console.print(item)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_it_has_the_options_of_encode() -> None:
    assert inspect.signature(plan).parameters == inspect.signature(encode).parameters
    assert plan.__name__ == "plan" and plan.__doc__ != encode.__doc__


def test_what_would_be_done_and_what_it_costs() -> None:
    assert shown() == [
        "Would encode 3 images with m.",
        "inputs    why                     for example",
        "     3    not in the store yet    a, b",
        "     2    encoded already         x",
        "To be written: about 2.0 KiB.",
        "Time: about 2 h 00 min on 2 devices (4.00 device-hours), from 1 image at 10.0",
        "images/s.",
        "Store: s (1 shard to write)",
    ]


def test_texts_that_have_changed():
    lines = shown(texts=2)
    assert lines[4:6] == [
        "Captions or fields of 2 shards have changed; they are updated without encoding.",
        "To be written: about 2.0 KiB.",
    ]


def test_nothing_to_do() -> None:
    lines = shown(shards=0, to_encode=0, probe=None)
    assert lines[0] == "Nothing to encode: 5 images, all done before."
    assert not any("written" in line for line in lines)


def test_tars_are_counted_by_guess() -> None:
    lines = shown(tars=5, kind="tars", inputs_are_guess=True)
    assert lines[0] == "Would encode about 3 images with m." and lines[1].startswith("tars")
    lines = shown(tars=5, kind="parquet", shards=0)
    assert lines[0] == "Nothing to encode: 5 parquet files, all done before."
    assert lines[1].startswith("parquet files")


def test_what_the_filters_leave_out() -> None:
    line = "The filters leave out 12 of the 64 inputs that were looked at."
    assert line in shown(looked_at=64, filtered=12)
    assert not any("filters" in line for line in shown(looked_at=64))


def test_a_store_of_another_spec() -> None:
    lines = shown(refused=[{"field": "preprocess.size", "there": [256, 256], "now": None}])
    assert lines == [
        "s was made with another spec; encode would refuse to add to it:",
        "  preprocess.size: [256, 256] in the store, None now",
        "Use the same options, or another output folder (-o).",
    ]


def test_a_store_of_another_model_lists_no_parts_of_networks() -> None:
    fields = ("model.config.depth", "model.config.width", "model.name")
    lines = shown(refused=[{"field": field, "there": 1, "now": 2} for field in fields])
    assert lines[1:-1] == [
        "  model.config.*: 2 fields, as of another model",
        "  model.name: 1 in the store, 2 now",
    ]


@pytest.mark.parametrize("unknown", ["bytes", "probe"])
def test_what_is_not_known_is_left_out(unknown: str) -> None:
    assert len(shown(**{unknown: None})) < len(shown())
