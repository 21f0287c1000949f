"""The page of bench in a real browser: bars of times, speedups and shares, and the tables."""

from __future__ import annotations

import pytest
from browserkit import DESKTOP, PHONE, open_tab, running_browser

from latentcli.reports.bench_page import bench_page
from latentcli.reports.page import is_page, write_page

HOSTILE = "<b>m&amp;"
CEILINGS = {"gflop_per_second": {"fp32": 100.0}, "copy_gbyte_per_second": 10.0}


def row(model: str, op: str, batch: int, ms: float) -> dict:
    return {
        "model": model,
        "op": op,
        "resolution": "64x64",
        "batch": batch,
        "ms_per_batch": ms,
        "ms_p25": 0.9 * ms,
        "ms_p75": 1.2 * ms,
        "images_per_second": 1000 * batch / ms,
        "repeats": 10,
        "peak_memory_mib": 3.5,
        "speedup": 400 / ms,
        "speedup_p25": 380 / ms,
        "speedup_p75": 420 / ms,
        "memory_reduction": 0.25,
        "gflop": 1.5,
        "gbyte": 0.25,
        "matrix_share": 0.375,
        "copy_share": 0.125,
        "operators": 12,
    }


def document(**changes: object) -> dict:
    rows = [
        row(model, op, batch, ms)
        for op in ("encode", "decode")
        for batch in (1, 2, 4, 8, 16)
        for model, ms in ((HOSTILE, 123.456), ("base", 400.0))
    ]
    return {
        "device": "cpu",
        "dtype": "fp32",
        "cpu": "Some CPU",
        "cores": 8,
        "threads": 4,
        "torch": "2.13.0",
        "compiled": False,
        "random_weights": False,
        "baseline": "base",
        "models": [{"model": m, "weights": "bundled"} for m in (HOSTILE, "base")],
        "ceilings": CEILINGS,
        "warmup": 2,
        "repeats": 10,
        "load": {"before": 0.5, "after": 1.5},
        "rows": rows,
    } | changes


@pytest.fixture(scope="module")
def browser():
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("bench") / "page.html", bench_page(document()))


def test_it_is_known_as_a_page_and_names_are_text(browser, page):
    assert is_page(page)
    with open_tab(browser, page.as_uri()) as tab:
        assert tab.page.inner_text("h1") == f"Speed of {HOSTILE} against base"
        assert tab.page.locator("b").count() == 0
        assert HOSTILE in tab.page.locator("svg.chart").first.text_content()
        tab.check()


def test_bars_say_times_speedups_and_shares(browser, page):
    with open_tab(browser, page.as_uri()) as tab:
        section = tab.page.locator("section[aria-labelledby=encode]")
        charts = section.locator("svg.chart").all_text_contents()
        assert len(charts) == 2 * 5 + 2
        assert "123.5" in charts[0] and "400" in charts[0]
        assert "3.24" in charts[1] and "How many times as fast as base" in charts[1]
        assert "37.5" in charts[-2] and "12.5" in charts[-1]
        assert section.locator("svg.chart:visible").count() == 2 * 4 + 2
        section.locator("summary").click()
        assert section.locator("svg.chart:visible").count() == len(charts)
        table = section.locator("table").first.inner_text()
        for words in ("123.46", "111.11-148.15", "3.24x", "-25.0%", "3.5"):
            assert words in table
        assert "38%" in section.locator("table").last.inner_text()
        tab.check()


def test_without_a_baseline_and_a_measured_machine_there_are_times_alone(browser, tmp_path):
    rows = [row("m", "encode", 1, 20) | {"speedup": None}]
    alone = document(
        rows=rows, baseline=None, ceilings=None, models=[{"model": "m", "weights": "b"}]
    )
    path = write_page(tmp_path / "p.html", bench_page(alone))
    with open_tab(browser, path.as_uri()) as tab:
        assert tab.page.inner_text("h1") == "Speed of m"
        assert tab.page.locator("svg.chart").count() == 1
        assert "speedup" not in tab.page.inner_text("main")
        tab.check()


def test_bars_of_shares_are_parts_of_the_whole(browser, page):
    """12.5% is as short as it is, though it is the largest in its chart."""
    with open_tab(browser, page.as_uri()) as tab:
        charts = tab.page.locator("section[aria-labelledby=encode] svg.chart")
        width = "chart => Number(chart.querySelector('rect').getAttribute('width'))"
        matrix, copy = (charts.nth(n).evaluate(width) for n in (10, 11))
        assert matrix / copy == pytest.approx(3, rel=0.05)
        assert "the line is at 100%" in charts.nth(11).text_content()


def test_the_cases_of_a_single_model_are_bars_of_one_chart(browser, tmp_path):
    rows = [row("m", "encode", batch, 20) | {"speedup": None} for batch in (1, 4)]
    alone = document(
        rows=rows, baseline=None, ceilings=None, models=[{"model": "m", "weights": "b"}]
    )
    path = write_page(tmp_path / "p.html", bench_page(alone))
    with open_tab(browser, path.as_uri()) as tab:
        (text,) = tab.page.locator("svg.chart").all_text_contents()
        assert "64x64, batch 1: 20; 64x64, batch 4: 5" in text
        assert "Time of an image with m" in tab.page.inner_text("figcaption")
        tab.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("viewport", "most"), [(DESKTOP, 900), (PHONE, 700)])
def test_it_fits_every_screen_and_nobody_is_kept_out(browser, page, scheme, viewport, most):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with open_tab(browser, page.as_uri(), color_scheme=scheme, viewport=viewport) as tab:
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert tab.page.evaluate(wide) <= 0
        box = tab.page.locator("svg.chart").first.bounding_box()
        assert box["y"] + box["height"] <= most
        found = axe.run(tab.page).response["violations"]
        assert not [v["id"] for v in found if v["impact"] in ("serious", "critical")]
        tab.check()
