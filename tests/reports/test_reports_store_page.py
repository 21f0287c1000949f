"""The page of a store in a real browser: it opens from the disk, without errors, for everybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browserkit import DESKTOP, PHONE, open_tab, running_browser
from PIL import Image

from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.store.inspect import inspect_store
from latentcli.reports.store_page import normal_counts
from latentcli.reports.store_pictures_page import samples_text

HOSTILE = '<img src=x onerror=alert(1)>"&'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of nine pictures, one with a hostile name, and one file that is none."""
    folder = tmp_path_factory.mktemp("store_page")
    source = folder / "pictures"
    source.mkdir()
    values = np.random.default_rng(0)
    for index in range(9):
        size = [(96, 64), (64, 64), (64, 96)][index % 3]
        pixels = values.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        name = f"{HOSTILE}.png" if index == 0 else f"{index}.png"
        Image.fromarray(pixels).resize(size).save(source / name)
    (source / "bad.png").write_bytes(b"")
    run_encode(
        EncodeJob(
            sources=(str(source),),
            output=str(folder / "store"),
            model="linear16",
            device="cpu",
            resize="none",
            workers=0,
            self_check=False,
        )
    )
    document = inspect_store(str(folder / "store"), str(folder / "report"))
    return Path(document["report"]["path"])


@pytest.fixture(scope="module")
def browser():
    with running_browser() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [None, PHONE])
def test_the_page_opens_without_errors_and_fits(browser, page, scheme, viewport):
    options = {"color_scheme": scheme} | ({"viewport": viewport} if viewport else {})
    with open_tab(browser, page.as_uri(), **options) as tab:
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert tab.page.evaluate(wide) <= 0
        tab.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert tab.page.evaluate(wide) <= 0
        charts = tab.page.locator("svg.chart:visible")
        assert charts.count() >= 8
        for index in range(charts.count()):
            assert charts.nth(index).bounding_box()["width"] > 250
        tab.page.locator("ul.thumbs").scroll_into_view_if_needed()
        decoded = (
            "Promise.all([...document.querySelectorAll('ul.thumbs img')].map(i => i.decode()))"
        )
        assert len(tab.page.evaluate(decoded)) == 18
        tab.check()


@pytest.mark.parametrize(("viewport", "most"), [(DESKTOP, 900), (PHONE, 700)])
def test_the_first_picture_and_its_latent_are_seen_at_once(browser, page, viewport, most):
    with open_tab(browser, page.as_uri(), viewport=viewport) as tab:
        source, latent = (tab.page.locator("ul.thumbs img").nth(i) for i in (0, 1))
        boxes = [image.bounding_box() for image in (source, latent)]
        assert all(box["y"] + box["height"] <= most for box in boxes)
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        assert boxes[0]["y"] == boxes[1]["y"]
        assert source.get_attribute("alt").startswith("Source of ")


def test_names_are_text_and_nothing_else(browser, page):
    with open_tab(browser, page.as_uri()) as tab:
        captions = tab.page.locator("ul.thumbs figcaption").all_inner_texts()
        assert HOSTILE in captions
        assert tab.page.locator("img[onerror], img[src='x']").count() == 0
        tab.check()


def test_the_page_can_be_read_without_scripts(browser, page):
    with open_tab(browser, page.as_uri(), java_script_enabled=False) as tab:
        shown = tab.page.locator("h2").all_inner_texts()
        assert shown[:3] == ["Pictures", "Failures", "Channels"] and shown[-1] == "The store"
        assert tab.page.locator("th", has_text="file is empty").is_visible()
        tab.check()


def test_charts_follow_the_theme(browser, page):
    colours = set()
    for scheme in ("light", "dark"):
        with open_tab(browser, page.as_uri(), color_scheme=scheme) as tab:
            fill = "getComputedStyle(document.querySelector('svg.chart circle')).fill"
            text = "getComputedStyle(document.querySelector('svg.chart text')).fill"
            colours |= {tab.page.evaluate(fill), tab.page.evaluate(text)}
    assert len(colours) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_is_found(browser, page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with open_tab(browser, page.as_uri(), color_scheme=scheme) as tab:
        found = axe.Axe().run(tab.page).response["violations"]
        told = [(v["id"], v["nodes"][0]["html"]) for v in found]
        assert not [v for v in found if v["impact"] in ("serious", "critical")], told


def test_normal_counts_are_those_of_the_distribution():
    drawn = {"low": -4.0, "high": 4.0, "counts": [25] * 8, "below": 0, "above": 0}
    counts = normal_counts(drawn)
    assert sum(counts) == pytest.approx(200, rel=1e-3)
    assert counts[3] == counts[4] == pytest.approx(200 * 0.3413, rel=1e-3)


def test_a_long_name_is_cut_and_told_to_a_pointer(browser, page):
    """So a line of pictures is as high as the others."""
    with open_tab(browser, page.as_uri()) as tab:
        captions = tab.page.locator("ul.thumbs figcaption")
        first = captions.first
        before = first.evaluate("c => [c.title, c.textContent]")
        assert before[0] == before[1]
        first.evaluate("c => (c.textContent = 'a name '.repeat(40))")
        heights = captions.evaluate_all("all => all.map((c) => c.clientHeight)")
        assert heights[0] <= 2 * heights[1] + 2


def test_one_sample_is_not_samples():
    assert [samples_text(count) for count in (1, 24)] == ["1 sample", "24 samples"]
