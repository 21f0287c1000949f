"""The live display on real terminals, plain lines elsewhere, neither of them too often."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest
from clikit import on_terminal
from rich.console import Console

from latentcli.cli.console import console_on
from latentcli.cli.display import LiveDisplay, NoDisplay, PlainDisplay, display_for, facts, picture
from latentcli.jobs.meter import Snapshot

SCRIPT = """
import sys, time
from latentcli.cli.output import Output
from latentcli.jobs.meter import Snapshot
n = int(sys.argv[1])
with Output().talk() as talk:
    talk.note("a note with [brackets] and a very long tail " + "x" * 90)
    for done in range(0, n + 1, max(n // 20, 1)):
        shares = {"read": 0.05, "decode_image": 0.6, "preprocess": 0.3, "encode": 1.0, "write": 0.2}
        talk.progress(Snapshot("encode", done, n, done // 10, done / 50, 123.4, shares))
        time.sleep(0.02)
"""


def snapshot(done: int, total: int = 100, failed: int = 0, rate: float = 10.0) -> Snapshot:
    return Snapshot("encode", done, total, failed, 1.0, rate, {"read": 0.5, "encode": 1.0})


@pytest.mark.parametrize(("columns", "lines"), [(120, 40), (80, 24), (40, 10), (20, 5), (8, 3)])
def test_on_a_terminal_of_any_size(columns: int, lines: int) -> None:
    code, out, shown = on_terminal(
        [sys.executable, "-c", SCRIPT, "2000"], columns=columns, lines=lines
    )
    assert (code, out) == (0, "")
    assert "Traceback" not in shown
    assert "\x1b[" in shown  # redrawn in place
    if columns >= 80:
        last = shown[shown.rindex("2,000/2,000") :]
        assert "123 images/s, 200 failed" in last
        for stage in ("read", "decode_image", "preprocess", "encode", "write"):
            assert stage in last
        assert "[brackets]" in shown


def test_no_line_is_wider_than_the_terminal() -> None:
    _, _, shown = on_terminal([sys.executable, "-c", SCRIPT, "2000"], columns=40)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert max(len(line) for part in text.split("\n") for line in part.split("\r")) <= 40


def test_a_dumb_terminal_gets_plain_lines() -> None:
    _, _, shown = on_terminal(
        [sys.executable, "-c", SCRIPT, "2000"], columns=80, variables={"TERM": "dumb"}
    )
    assert "\x1b" not in shown
    assert "encode 2,000/2,000, 123 images/s, 200 failed" in shown


def test_forced_colour_does_not_make_a_file_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(display_for(console_on(io.StringIO()), False), PlainDisplay)


def test_quiet_shows_nothing() -> None:
    stream = io.StringIO()
    display = display_for(console_on(stream), True)
    assert isinstance(display, NoDisplay)
    display.start()
    display.note("a")
    display.progress(snapshot(1))
    display.close()
    assert stream.getvalue() == ""


def test_plain_lines_come_now_and_then_and_at_the_end() -> None:
    stream = io.StringIO()
    display = PlainDisplay(console_on(stream), period=0.05)
    display.start()
    for done in range(1, 101):
        display.progress(snapshot(done, failed=done // 50))
        time.sleep(0.002)
    display.close()
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 12
    assert lines[-1] == "encode 100/100, 10.0 images/s, 2 failed"
    assert len(set(lines)) == len(lines)


def test_a_short_job_has_one_line() -> None:
    stream = io.StringIO()
    display = PlainDisplay(console_on(stream))
    display.start()
    for done in (1, 2, 3):
        display.progress(snapshot(done, total=3))
    display.close()
    assert stream.getvalue() == "encode 3/3, 10.0 images/s\n"


def test_long_notes_are_not_wrapped_in_a_file() -> None:
    stream = io.StringIO()
    PlainDisplay(console_on(stream)).note("[x] " + "word " * 60)
    assert stream.getvalue() == "[x] " + "word " * 60 + "\n"


def test_a_thousand_updates_draw_a_handful_of_times() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    display = LiveDisplay(console)
    display.start()
    start = time.perf_counter()
    for done in range(1000):
        display.progress(snapshot(done, total=1000))
    spent = time.perf_counter() - start
    display.close()
    frames = stream.getvalue().count("/1,000")
    assert frames <= 3 + spent / 0.125


def test_facts_leave_out_what_is_not_known() -> None:
    assert facts(snapshot(0, rate=0.0)) == ["0/100"]
    assert facts(snapshot(50, failed=2)) == ["50/100", "10.0 images/s", "5.0 s to go", "2 failed"]
    assert facts(snapshot(5)) == ["5/100"]  # half a second in, the rate says nothing yet


def test_an_empty_job_can_be_drawn() -> None:
    empty = Snapshot("encode", 0, 0, 0, 0.0, 0.0, {})
    Console(file=io.StringIO(), width=40).print(picture(empty))
