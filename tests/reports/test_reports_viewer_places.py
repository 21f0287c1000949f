"""The results viewer on paper, on a phone, without scripts, and without its pictures."""

from __future__ import annotations

import shutil

import pytest
from browserkit import PHONE, open_tab, running_browser
from reportkit import SETTINGS, make_report

KEYS = [f"set/{i:02d}" for i in range(30)]


@pytest.fixture(scope="module")
def browser():
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    settings = SETTINGS | {"size": None, "divisor": 16}
    folder, names = tmp_path_factory.mktemp("report"), ("fcdm_nano", "linear16")
    return make_report(folder, KEYS, names, settings=settings)


def test_on_a_phone_a_long_lead_leaves_room_for_pictures_and_all_means(browser, report):
    with open_tab(browser, report.url, viewport=PHONE, is_mobile=True, has_touch=True) as tab:
        page = tab.page
        assert "30 images (1 more could not be used), own size" in page.inner_text(".lead")
        box = page.locator("#grid img").first.bounding_box()
        assert box["y"] + box["height"] <= 700
        cut = "box => box.scrollWidth - box.clientWidth"
        assert page.locator(".opening .scroll").evaluate(cut) <= 0
        assert page.inner_text("#count") == "30 shown"
        tab.check()


def test_on_a_phone_words_in_tables_stay_whole(browser, report):
    with open_tab(browser, report.url, viewport=PHONE, is_mobile=True, has_touch=True) as tab:
        cells = tab.page.locator("section[aria-labelledby=method] > .scroll td")
        lines = cells.evaluate_all("all => all.map((c) => c.clientHeight)")
        assert len(lines) == 2 * 6 and max(lines) < 40
        tab.check()


def test_a_table_that_goes_on_beyond_its_box_is_shaded_there(browser, report):
    with open_tab(browser, report.url, viewport=PHONE, is_mobile=True, has_touch=True) as tab:
        ground = "b => [b.scrollWidth > b.clientWidth, getComputedStyle(b).backgroundAttachment]"
        shown = tab.page.locator(".scroll:has(table.summary)").evaluate(ground)
        assert shown == [True, "local, scroll"]


def test_paper_is_light_and_has_whole_pictures_and_no_buttons(browser, report):
    a4 = {"width": 720, "height": 1000}
    with open_tab(browser, report.url, color_scheme="dark") as tab:
        page = tab.page
        page.get_by_role("button", name="Light colours").click()
        page.get_by_role("button", name="Dark colours").click()
        page.emulate_media(media="print", color_scheme="dark")
        page.set_viewport_size(a4)
        page.wait_for_timeout(100)
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(23, 23, 23)"
        assert page.locator("button:visible, input:visible, select:visible").count() == 0
        edges = "all => all.map((c) => c.getBoundingClientRect().right)"
        assert max(page.locator("#grid li").evaluate_all(edges)) <= a4["width"]
        assert page.locator("#grid li").first.evaluate("c => getComputedStyle(c).position") == (
            "static"
        )
        colours = "c => getComputedStyle(c).printColorAdjust"
        assert page.locator(".swatch").first.evaluate(colours) == "exact"
        tab.check()


def test_without_scripts_the_note_is_in_line_and_no_link_leads_to_charts(browser, report):
    with open_tab(browser, report.url, java_script_enabled=False) as tab:
        note = tab.page.locator("noscript p")
        assert "The pictures need JavaScript" in note.inner_text()
        assert note.bounding_box()["x"] == tab.page.locator("h1").bounding_box()["x"]
        assert not tab.page.get_by_role("link", name="Charts").is_visible()
        assert tab.page.get_by_role("link", name="All figures").is_visible()


def test_a_page_without_its_folder_says_what_is_missing(browser, report, tmp_path):
    with open_tab(browser, report.url) as tab:
        assert not tab.page.locator("#lost").is_visible()
    moved = shutil.copy(report.folder / "index.html", tmp_path / "index.html")
    with open_tab(browser, moved.as_uri()) as tab:
        tab.page.locator("#lost").wait_for()
        assert "the folder “files” must stand beside this page" in tab.page.inner_text("#lost")
        assert not tab.page.locator("#grid img").first.is_visible()


def test_one_picture_is_one_image(browser, report):
    with open_tab(browser, report.url) as tab:
        tab.page.fill("#search", "set/07")
        tab.page.get_by_text("1 of 30 shown").wait_for()
        assert "over 1 image." in tab.page.inner_text("#spread-values figcaption")
        tab.check()
