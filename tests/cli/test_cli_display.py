"""The live display on real terminals, plain lines elsewhere, neither of them too often."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from typing import Any

import pytest
from clikit import on_terminal
from rich.console import Console

from latentcli.cli.console import console_on
from latentcli.cli.display import Display, LiveDisplay, PlainDisplay, display_for, facts, picture
from latentcli.jobs.runtime.advice import Setting
from latentcli.jobs.runtime.bottleneck import Interval, Reading, thread_groups
from latentcli.jobs.runtime.meter import Meter, Snapshot

SCRIPT = """
import sys, time
from latentcli.cli.output import Output
from latentcli.jobs.runtime.meter import Meter
n, now = int(sys.argv[1]), [0.0]
with Output().reporter() as reporter:
    reporter.note("a note with [brackets] and a very long tail " + "x" * 90)
    meter = Meter("encode", n, reporter.progress, 2, clock=lambda: now[0], cores=8)
    meter.begin()
    for _ in range(20):
        now[0] += n / 20 / 123.4
        share = n / 20 / 123.4
        for stage, busy in dict(read=0.1, decode_image=1.3, preprocess=0.6, encode=0.39).items():
            meter.add(stage, busy * share, n // 20)
        meter.add("write", 0.2 * share, n // 20)
        meter.advance(n // 20, n // 200)
        time.sleep(0.02)
"""
SENTENCE = (
    "The slowest stage is decode_image: 1.9 of 2 workers busy; the model is idle 61%;"
    " more --workers or smaller sources would help"
)


class Clock:
    """A clock that goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def windows(seconds: float = 20.0, **busy: float) -> tuple[Interval, Interval]:
    """The last 10 seconds with these stages busy, and the whole job with half of that."""
    first = Reading(0.0, {})
    before = Reading(seconds - 10, {})
    now = Reading(seconds, {stage: (10 * share, 1200) for stage, share in busy.items()})
    groups = thread_groups(busy, 2, {}, ())
    return tuple(Interval(since, now, groups, Setting(cores=8)) for since in (before, first))


def snapshot(
    done: int, total: int | None = 100, failed: int = 0, rate: float = 10.0, **more: Any
) -> Snapshot:
    recent, whole = more.pop("windows", None) or windows(read=0.5, encode=0.5)
    return Snapshot("encode", done, total, failed, 1.0, rate, recent, whole, **more)


def drawn(seen: Snapshot, width: int, *, closing: bool = False) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(picture(seen, closing=closing))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


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
    assert type(display) is Display
    display.start()
    display.note("a")
    display.status("b")
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


def test_a_status_stands_until_there_are_figures() -> None:
    stream = io.StringIO()
    display = LiveDisplay(Console(file=stream, force_terminal=True, width=80))
    display.start()
    display.status("Looking for inputs")
    assert "Looking for inputs ..." in stream.getvalue()
    display.progress(snapshot(1))
    shown = len(stream.getvalue())
    display.status("Too late")
    display.close()
    assert "Too late" not in stream.getvalue()
    assert "Looking" not in stream.getvalue()[shown:]


class Heard(io.StringIO):
    """A stream that tells when something is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def flush(self) -> None:
        if self.getvalue():
            self.written.set()


def test_a_log_is_told_of_a_step_that_takes_long() -> None:
    stream = Heard()
    display = PlainDisplay(console_on(stream), patience=0.0)
    display.start()
    display.status("Looking for inputs")
    assert stream.written.wait(60)
    display.close()
    assert stream.getvalue() == "Looking for inputs ...\n"


def test_a_log_is_not_told_of_steps_that_are_over() -> None:
    stream = Heard()
    display = PlainDisplay(console_on(stream), patience=3600.0)
    display.start()
    timers = []
    for step in ("Loading", "Looking for inputs"):
        display.status(step)
        timers.append(display.waiting)
    display.progress(snapshot(1))
    display.status("Too late")
    assert display.waiting is None
    for timer in timers:
        timer.join(60)  # cancelled, so it ends without having said anything
    assert stream.getvalue() == ""


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


@pytest.mark.parametrize(
    ("done", "total", "guess", "text"),
    [
        (12345, None, False, "12,345 images"),
        (12345, 50000, True, "12,345/~50,000"),
        (50001, 50000, True, "50,001 images"),
    ],
)
def test_a_total_that_nobody_knows(done: int, total: int | None, guess: bool, text: str) -> None:
    seen = snapshot(done, total=total, total_is_guess=guess)
    assert facts(seen) == [text, "10.0 images/s"]
    lines = drawn(seen, 80)
    assert any(text in line for line in lines)
    assert ("%" in lines[0]) is (total is not None) and ("~" in lines[0]) is guess


def test_ranks_are_told() -> None:
    assert facts(snapshot(50, ranks=4))[-1] == "4 ranks"


def busy_job(**more: Any) -> Snapshot:
    shares = {"read": 0.1, "decode_image": 1.3, "preprocess": 0.6, "encode": 0.39, "write": 0.05}
    return snapshot(1200, total=4000, rate=120.0, windows=windows(**shares), **more)


def test_the_picture_at_80_columns() -> None:
    assert drawn(busy_job(), 80) == [
        f"{'encode ━━━━━━━━━━━━':47} 30%",
        "  1,200/4,000, 120 images/s, 23.3 s to go",
        "  read         ╸                0.1 of 2 120/s",
        "  decode_image ━━━━━━━━━━       1.3 of 2 120/s",
        "  preprocess   ━━━━╸            0.6 of 2 120/s",
        "  encode       ━━━━━━                39% 120/s",
        "  write        ╸                      5% 120/s",
        "The slowest stage is decode_image: 1.9 of 2 workers busy; the model is idle 61%;",
        "more --workers or smaller sources would help",
    ]


def test_the_picture_at_40_columns() -> None:
    lines = drawn(busy_job(), 40)
    assert max(map(len, lines)) <= 40
    assert lines[4:6] == [
        "  decode_image ━━━━━━╸    1.3 of 2 120/s",
        "  preprocess   ━━━        0.6 of 2 120/s",
    ]
    assert " ".join(lines[8:]) == SENTENCE


def test_the_last_picture_is_of_the_whole_job_and_leaves_the_limit_to_the_summary() -> None:
    lines = drawn(busy_job(), 80, closing=True)
    assert lines[3] == "  decode_image ━━━━━            0.7 of 2 60.0/s"
    assert not any("limit" in line for line in lines)


def test_a_stage_without_items_has_no_rate() -> None:
    groups = thread_groups(("write",), 1, {}, ())
    window = Interval(Reading(0.0, {}), Reading(10.0, {"write": (1.0, 0)}), groups)
    assert drawn(snapshot(1, windows=(window, window)), 80)[-1] == "  write ━╸               10%"


def test_a_log_is_told_the_limit_each_time_it_changes_but_once_a_minute() -> None:
    stream, clock = io.StringIO(), Clock()
    display = PlainDisplay(console_on(stream), clock=clock)
    display.start()
    reading = {
        "decode": busy_job(),
        "encode": snapshot(1, windows=windows(decode_image=0.3, encode=0.95)),
        "nobody": snapshot(1, windows=windows(decode_image=0.3, encode=0.3)),
    }
    told: list[tuple[float, str]] = []
    order = ["decode"] * 30 + ["nobody"] * 10 + ["decode"] * 10 + ["encode", "decode"] * 8
    for name in order:
        clock.now += 5
        before = len(stream.getvalue())
        display.progress(reading[name])
        new = stream.getvalue()[before:].splitlines()
        assert new[0].startswith("encode ")
        told += [(clock.now, line.split()[4].rstrip(":")) for line in new[1:]]
    assert [name for _, name in told] == ["decode_image", "encode", "decode_image"]
    assert [at for at, _ in told] == [60.0, 255.0, 320.0]
    assert SENTENCE in stream.getvalue().splitlines()


def test_a_meter_can_be_shown() -> None:
    stream = io.StringIO()
    display = LiveDisplay(Console(file=stream, force_terminal=True, width=80))
    display.start()
    meter = Meter("encode", None, display.progress)
    meter.begin()
    meter.add("encode", 0.1, 3)
    meter.advance(3)
    display.close()
    assert "3 images" in stream.getvalue()


def test_an_empty_job_can_be_drawn() -> None:
    nothing = Interval(Reading(0.0, {}), Reading(0.0, {}))
    empty = snapshot(0, total=0, rate=0.0, windows=(nothing, nothing))
    assert drawn(empty, 40)[1] == "  0/0"
