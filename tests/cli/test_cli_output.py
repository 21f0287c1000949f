"""stdout is data, stderr is talk: what goes where in each mode, and how summaries read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from latentcli.cli import words
from latentcli.cli.encode import summary
from latentcli.cli.output import Output, asked
from latentcli.reports.tables import Column, make_table

ENCODED: dict[str, Any] = {
    "store": "my pictures.latents",
    "model": "fcdm_nano",
    "encoded": 1200,
    "skipped": 1,
    "failed": 0,
    "seconds": 75.0,
    "images_per_second": 16.0,
    "bottleneck": "decode_image",
    "shards": 2,
    "bytes": 3 * 2**20,
    "geometry": "f16c128",
    "latent_space": "latentcli/fcdm_nano#whitened",
    "failures": None,
    "reasons": {},
}


@pytest.mark.parametrize(
    ("given", "variables", "wanted"),
    [
        (["encode", "--json"], {}, True),
        (["encode", "--", "--json"], {}, False),
        (["encode"], {"LATENTCLI_JSON": "1"}, True),
        (["encode"], {"LATENTCLI_JSON": "Yes"}, True),
        (["encode"], {"LATENTCLI_JSON": "0"}, False),
        (["encode"], {}, False),
    ],
)
def test_asked(given: list[str], variables: dict[str, str], wanted: bool) -> None:
    assert asked("json", given, variables) is wanted


def shown(out: Output) -> None:
    out.show({"a": 1}, data=lambda d: [f"data {d['a']}"], summary=lambda d: ["talk", "[red]more"])


def test_human(capsys: pytest.CaptureFixture[str]) -> None:
    shown(Output())
    assert capsys.readouterr() == ("data 1\n", "talk\n[red]more\n")


@pytest.mark.parametrize(
    ("columns", "widest"), [(None, 140), ("100", 100), ("0", 140), ("wide", 140), ("", 140)]
)
def test_a_table_in_a_pipe_is_as_wide_as_columns_says(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: str | None,
    widest: int,
) -> None:
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    row = {"name": "tiny", "summary": "a long " * 18 + "summary"}
    columns_shown = (
        Column("name", lambda r: r["name"]),
        Column("is", lambda r: r["summary"], figure=False),
    )
    Output().show({}, data=lambda d: [make_table(columns_shown, [row])])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == widest
    assert all(line == line.rstrip() for line in lines)


def test_columns_change_no_message_and_no_document(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    text = "a sentence of more columns than ten"
    Output().fail(text, 1)
    Output(as_json=True).show({"text": text})
    out, err = capsys.readouterr()
    assert err == f"error: {text}\n" and json.loads(out) == {"text": text}


def test_quiet_leaves_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    shown(Output(quiet=True))
    assert capsys.readouterr() == ("data 1\n", "")


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=True)
    shown(out)
    assert out.fail("too many", 3) == 3
    got = capsys.readouterr()
    assert json.loads(got.out) == {"a": 1}
    assert got.err == "error: too many\n"


def test_an_error_alone_is_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert Output(as_json=True, quiet=True).fail("no", 1, "Usage: x") == 1
    got = capsys.readouterr()
    assert json.loads(got.out) == {"error": "no", "exit_code": 1}
    assert got.err == "Usage: x\nerror: no\n"


def test_names_that_are_no_text_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).show({"store": "caf\udce9"})
    assert json.loads(capsys.readouterr().out) == {"store": "caf\udce9"}


def test_encode_summary() -> None:
    assert list(summary(ENCODED)) == [
        "Encoded 1,200 images with fcdm_nano in 1 min 15 s (16.0 images/s); 1 was encoded before.",
        "Store: my pictures.latents (2 shards, 3.0 MiB, f16c128, latentcli/fcdm_nano#whitened)",
        "The slowest stage was decode_image: decoding the files.",
        "Next:",
        "  latentcli decode 'my pictures.latents'",
        "  latentcli inspect 'my pictures.latents'",
    ]


def test_the_limit_is_told_where_it_is_known() -> None:
    reason = "The slowest stage is decode_image: 1.9 of 2 workers busy; more --workers would help"
    assert list(words.slowest(ENCODED | {"bottleneck_reason": reason})) == [f"{reason}."]
    (fallback,) = words.slowest(ENCODED | {"bottleneck_reason": None})
    assert fallback.startswith("The slowest stage was decode_image: ")


def test_a_long_start_is_told_apart_from_the_rate() -> None:
    (told,) = {words.outcome("encoded", ENCODED | {"startup_seconds": 8.9})}
    assert "(start-up 8.9 s, then " in told
    assert "start-up" not in words.outcome("encoded", ENCODED | {"startup_seconds": 0.9})


def test_nothing_left_to_do() -> None:
    done = {**ENCODED, "encoded": 0, "skipped": 9, "bottleneck": None, "seconds": 0.25}
    first, *rest = summary(done)
    assert first == "Nothing to do: 9 images encoded already (0.2 s)."
    assert not any("slowest" in line for line in rest)


def test_failures_are_told_by_reason() -> None:
    reasons = {"read: odd": 1, "read: bad": 3, "read: worse": 2, "read: rare": 1, "read: other": 1}
    told = list(words.failures({"failed": 8, "failures": "failures.jsonl", "reasons": reasons}))
    assert told == [
        "8 inputs failed, listed in failures.jsonl:",
        "  3 x read: bad",
        "  2 x read: worse",
        "  1 x read: odd",
        "  and 2 other reasons",
    ]


def test_failures_in_the_document() -> None:
    failures = [{"key": "a", "error": "read: no file"}]
    told = words.failures({"failed": 1, "failures": failures, "reasons": {"read: no file": 1}})
    assert list(told) == ["1 input failed, listed by --json:", "  1 x read: no file"]


def test_without_failures_nothing_is_said() -> None:
    assert not list(words.failures({"failed": 0, "failures": None, "reasons": {}}))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (7325, "2 h 02 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text
