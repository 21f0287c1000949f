"""The results viewer in a real headless Chromium, opened from the disk."""

from __future__ import annotations

import pytest
from browserkit import PHONE, open_tab, running_browser
from reportkit import MEASURES, make_report, make_rows
from viewerkit import loaded, open_image, scale_of, shown_keys, transforms

KEYS = [f"set/{i:02d}" for i in range(30)]


@pytest.fixture(scope="module")
def browser():
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"), KEYS)


@pytest.fixture
def tab(browser, report):
    with open_tab(browser, report.url) as opened:
        yield opened
        opened.check()


def zoom_wheel(page, pane, times=4):
    box = page.locator(f"[data-pane={pane}] .stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    for _ in range(times):
        page.mouse.wheel(0, -200)
    page.wait_for_timeout(80)


def test_tables_say_what_the_document_says(tab, report):
    text = tab.page.inner_text("main")
    psnr = report.document["models"][0]["psnr"]
    for name in ("mean", "std", "median", "min", "p5", "p95", "max"):
        assert f"{psnr[name]:.2f}" in text
    delta = report.document["delta"][0]["psnr"]["mean"]
    assert f"{delta:+.2f}".replace("-", "−") in text
    assert "30 images" in text
    assert "seed 42" in text
    assert "broken.jpg is cut off" in tab.page.text_content("main")


@pytest.mark.parametrize(
    ("choice", "value"),
    [
        ("figure-0-0", lambda r: r["figures"][0]["psnr"]),
        ("figure-1-1", lambda r: r["figures"][1]["ssim"]),
        ("difference-0-0-1", lambda r: r["figures"][0]["psnr"] - r["figures"][1]["psnr"]),
    ],
)
def test_sorts_by_figures_both_ways(tab, report, choice, value):
    page = tab.page
    page.select_option("#sort", choice)
    rising = [row["key"] for row in sorted(report.rows, key=value)]
    assert shown_keys(page)[:12] == rising[:12]
    page.click("#direction")
    assert shown_keys(page)[:12] == rising[::-1][:12]
    assert page.inner_text("#direction") == "↓ highest first"


def test_the_figure_sorted_by_stands_under_the_thumbnail(tab, report):
    tab.page.select_option("#sort", "difference-0-0-1")
    lowest = min(r["figures"][0]["psnr"] - r["figures"][1]["psnr"] for r in report.rows)
    first = tab.page.locator("#grid .figure").first.inner_text()
    assert first.split("\n") == ["small − large", f"−{-lowest:.2f} dB"]


def test_search_narrows_counts_and_charts(tab):
    page = tab.page
    assert page.inner_text("#count") == "30 shown"
    page.fill("#search", "SET/1 photos")
    page.get_by_text("10 of 30 shown").wait_for()
    assert shown_keys(page) == [f"set/{i}" for i in range(10, 20)]
    assert "10 images" in page.inner_text("#spread-values figcaption")
    page.fill("#search", "nowhere")
    page.locator("#none").wait_for()
    page.fill("#search", "")
    page.get_by_text("30 shown", exact=True).wait_for()


def test_chart_marks_the_picture_under_the_pointer(tab):
    page = tab.page
    assert page.locator("#spread-values path.mark").count() == 0
    page.locator("#grid li a").nth(2).hover()
    assert page.locator("#spread-values path.mark").count() == 2
    assert page.locator("#spread-differences path.mark").count() == 1


def test_all_panes_zoom_and_move_in_step(tab):
    page = tab.page
    open_image(page, 3)
    assert page.locator("#stages .pane").count() == 7
    before = scale_of(page)
    zoom_wheel(page, "picture-1")
    assert scale_of(page) > 2 * before
    moved = transforms(page)[0]
    page.mouse.down()
    page.mouse.move(200, 300, steps=3)
    page.mouse.up()
    assert len(set(transforms(page))) == 1
    assert transforms(page)[0] != moved
    page.keyboard.press("0")
    assert scale_of(page) == before
    page.keyboard.press("o")
    assert scale_of(page) == 1
    assert page.inner_text("#zoom") == "100%"


def test_the_point_under_the_wheel_stays(tab):
    page = tab.page
    open_image(page, 3)
    stage = page.locator("[data-pane=original] .stage")
    box = stage.bounding_box()
    at = (box["width"] * 0.6, box["height"] * 0.4)
    point = """([x, y]) => {
      const text = document.querySelector('#stages img').style.transform;
      const [left, top, scale] = text.match(/-?[\\d.]+/g).map(Number);
      return [(x - left) / scale, (y - top) / scale];
    }"""
    before = page.evaluate(point, at)
    page.mouse.move(box["x"] + at[0], box["y"] + at[1])
    page.mouse.wheel(0, -240)
    page.mouse.wheel(0, -240)
    page.wait_for_timeout(80)
    assert page.evaluate(point, at) == pytest.approx(before, abs=0.4)


def test_large_pixels_are_square_and_latents_always(tab):
    page = tab.page
    open_image(page, 3)
    rendering = "i => getComputedStyle(i).imageRendering"
    page.keyboard.press("o")
    assert page.eval_on_selector("[data-pane=original] img", rendering) == "auto"
    assert page.eval_on_selector("[data-pane=pca-0] img", rendering) == "pixelated"
    for _ in range(6):
        page.keyboard.press("+")
    assert page.eval_on_selector("[data-pane=original] img", rendering) == "pixelated"


def test_gain_turns_around_grey_and_says_the_total(tab):
    page = tab.page
    open_image(page, 3)
    assert page.inner_text("#gain-shown") == "× 4"
    page.keyboard.press("]")
    assert page.inner_text("#gain-shown") == "× 8"
    assert "difference × 8" in page.inner_text("[data-pane=difference-0]")
    slope, intercept = (
        float(page.get_attribute("#amplify feFuncG", name)) for name in ("slope", "intercept")
    )
    assert slope == 2
    assert 128 / 255 * slope + intercept == pytest.approx(128 / 255)


def test_panes_are_chosen(tab):
    page = tab.page
    open_image(page, 0)
    page.get_by_label("Differences").uncheck()
    page.get_by_label("Latents (PCA)").uncheck()
    assert page.locator("#stages .pane").count() == 3
    page.locator("#shown").get_by_label("large").uncheck()
    panes = page.eval_on_selector_all("#stages .pane", "all => all.map((p) => p.dataset.pane)")
    assert panes == ["original", "picture-0"]


def test_slider_moves_by_key_and_by_hand(tab):
    page = tab.page
    open_image(page, 3)
    page.click("[data-do=slider]")
    loaded(page)
    page.focus("#divider")
    page.keyboard.press("ArrowRight")
    assert page.input_value("#divider") == "50.5"
    line = page.locator("#stages .line").bounding_box()
    page.mouse.move(line["x"] + 22, line["y"] + line["height"] / 2)
    page.mouse.down()
    page.mouse.move(line["x"] + 222, line["y"] + line["height"] / 2, steps=4)
    page.mouse.up()
    stage = page.locator("#stages .stage").bounding_box()
    assert float(page.input_value("#divider")) == pytest.approx(
        50.5 + 100 * 200 / stage["width"], abs=1
    )
    clip = page.eval_on_selector("#stages .over", "e => getComputedStyle(e).clipPath")
    assert page.input_value("#divider") in clip
    assert len(set(transforms(page))) == 1


def test_the_slider_shows_the_model_and_not_the_baseline(browser, tmp_path):
    """The baseline comes first in a job's document."""
    rows = make_rows(KEYS[:3], 2, MEASURES, True)
    document = {"baseline": "base", "delta": None}
    made = make_report(tmp_path / "r", (), names=("base", "model"), rows=rows, **document)
    with open_tab(browser, made.url) as tab:
        page = tab.page
        open_image(page, 1)
        figure = rows[1]["figures"][1]["psnr"]
        for mode in ("slider", "fade"):
            page.click(f"[data-do={mode}]")
            loaded(page)
            caption = page.locator("#stages figcaption .end")
            assert caption.first.inner_text() == "Original"
            assert caption.last.inner_text().split() == ["model", f"{figure:.2f}", "dB"]
        page.focus("#stages")
        page.keyboard.press("Space")
        assert caption.last.inner_text() == "Original"
        tab.check()


def test_fade_shows_as_much_of_each_as_is_chosen(tab):
    page = tab.page
    open_image(page, 3)
    page.keyboard.press("4")
    loaded(page)
    opacity = "getComputedStyle(document.querySelector('#stages .fading')).opacity"
    assert page.evaluate(opacity) == "0.5"
    page.fill("#fade", "20")
    assert page.evaluate(opacity) == "0.2"
    assert page.inner_text("#fade-ends") == "Original 80%, small 20%"
    assert page.get_attribute("#stages .fading img", "src").endswith("000003.0.webp")
    assert page.get_attribute("#stages .stage > img", "src").endswith("000003.original.webp")
    page.keyboard.press("+")
    assert len(set(transforms(page))) == 1


@pytest.mark.parametrize(
    ("most", "options"), [(900, {}), (700, {"viewport": PHONE, "is_mobile": True})]
)
def test_the_first_picture_is_seen_at_once(browser, report, most, options):
    with open_tab(browser, report.url, **options) as tab:
        box = tab.page.locator("#grid img").first.bounding_box()
        assert box["y"] + box["height"] <= most
        for table in tab.page.locator(".scroll:visible").all():
            assert table.evaluate("box => box.getBoundingClientRect().right <= innerWidth")


def test_what_stands_under_a_picture_names_its_model(tab, report):
    page = tab.page
    psnr = report.rows[0]["figures"][0]["psnr"]
    first = page.locator("#grid .figure").first.inner_text()
    assert first.split() == ["small", f"{psnr:.2f}", "dB"]
    open_image(page, 0)
    for m, name in enumerate(("small", "large")):
        for kind in ("picture", "difference", "pca"):
            assert name in page.inner_text(f"[data-pane={kind}-{m}] figcaption")


def test_flip_swaps_in_place_by_key_click_and_hold(tab):
    page = tab.page
    open_image(page, 3)
    page.keyboard.press("3")
    loaded(page)
    front = "#stages img:not(.behind)"
    assert page.get_attribute(front, "src").endswith("000003.0.webp")
    page.keyboard.press("Space")
    assert page.get_attribute(front, "src").endswith("original.webp")
    page.locator("#stages .stage").click()
    assert page.get_attribute(front, "src").endswith("000003.0.webp")
    page.mouse.down()
    assert page.get_attribute(front, "src").endswith("original.webp")
    page.wait_for_timeout(350)
    page.mouse.up()
    assert page.get_attribute(front, "src").endswith("000003.0.webp")
    page.select_option("#first", "picture-1")
    page.keyboard.press("Escape")


def test_a_walk_with_keys_only(tab):
    page = tab.page
    page.keyboard.press("/")
    page.keyboard.type("set/1")
    page.get_by_text("10 of 30 shown").wait_for()
    for _ in range(5):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.hash") == "#image-10"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#compare[open]").wait_for()
    assert page.inner_text("#compare-place") == "2 of 10"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == "#image-13"
    page.keyboard.press("?")
    assert page.locator("#help[open]").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("#help[open]").count() == 0
    page.keyboard.press("Escape")
    page.locator("#compare[open]").wait_for(state="detached")
    assert page.evaluate("document.activeElement.hash") == "#image-13"
    page.wait_for_timeout(100)
    assert page.evaluate("location.hash") == ""


def test_end_and_home_reach_every_picture(tab):
    page = tab.page
    page.locator("#grid a").first.focus()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.hash") == "#image-29"
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.hash") == "#image-0"
    page.keyboard.press("ArrowDown")
    columns = int(page.evaluate("document.activeElement.hash").split("-")[1])
    assert columns > 3


def test_an_address_opens_its_picture_and_back_works(browser, report):
    with open_tab(browser, report.url + "#image-12") as tab:
        page = tab.page
        page.locator("#compare[open]").wait_for()
        assert page.inner_text("#compare-key") == KEYS[12]
        page.keyboard.press("Escape")
        page.locator("#compare[open]").wait_for(state="detached")
        assert page.evaluate("location.hash") == ""
        open_image(page, 5)
        page.go_back()
        page.locator("#compare[open]").wait_for(state="detached")
        page.go_forward()
        page.locator("#compare[open]").wait_for()
        assert page.inner_text("#compare-key") == KEYS[5]
        tab.check()


@pytest.mark.parametrize("address", ["#image-999", "#image-x", "#%00", "#pictures"])
def test_other_addresses_open_nothing(browser, report, address):
    with open_tab(browser, report.url + address) as tab:
        assert tab.page.locator("#grid li").count() > 5
        assert tab.page.locator("#compare[open]").count() == 0
        tab.check()


def test_the_theme_is_the_readers(browser, report):
    with open_tab(browser, report.url, color_scheme="dark") as tab:
        page = tab.page
        ground = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(ground) == "rgb(20, 20, 20)"
        page.get_by_role("button", name="Light colours").click()
        assert page.evaluate(ground) == "rgb(251, 251, 251)"
        page.reload()
        assert page.evaluate(ground) == "rgb(251, 251, 251)"
        tab.check()


def test_tables_can_be_read_without_scripts(browser, report):
    with open_tab(browser, report.url, java_script_enabled=False) as tab:
        text = tab.page.inner_text("main")
        assert f"{report.document['models'][0]['psnr']['mean']:.2f}" in text
        assert "The pictures need JavaScript" in text
        assert not tab.page.locator("#gallery").is_visible()
        tab.check()


@pytest.mark.parametrize("width", [360, 390])
def test_a_phone_has_no_sideways_scrolling(browser, report, width):
    phone = {"viewport": {"width": width, "height": 740}, "is_mobile": True, "has_touch": True}
    with open_tab(browser, report.url, **phone) as tab:
        page = tab.page
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.locator("#grid a").nth(1).tap()
        loaded(page)
        for mode in ("panes", "slider", "flip", "fade"):
            page.locator(f"[data-do={mode}]").tap()
            assert page.evaluate("document.getElementById('compare').scrollWidth") <= width
        small = """all => all.filter((b) => b.offsetParent)
          .map((b) => [b.textContent, b.offsetWidth, b.offsetHeight])
          .filter(([, w, h]) => w < 44 || h < 44)"""
        assert page.eval_on_selector_all("#compare :is(button, select)", small) == []
        columns = page.eval_on_selector_all(
            "#stages .pane", "all => new Set(all.map((p) => p.offsetLeft)).size"
        )
        assert columns == 1
        tab.check()


def touch(page, moves):
    session = page.context.new_cdp_session(page)

    def send(kind, *points):
        touches = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    for kind, points in moves:
        send(kind, *points)


def test_a_swipe_shows_the_next_picture_and_a_pinch_zooms(browser, report):
    with open_tab(browser, report.url, viewport=PHONE, is_mobile=True, has_touch=True) as tab:
        page = tab.page
        page.locator("#grid a").first.tap()
        loaded(page)
        level = [("touchMove", [(x, 262)]) for x in (250, 200, 120)]
        touch(page, [("touchStart", [(300, 260)]), *level, ("touchEnd", [])])
        page.get_by_role("heading", name="set/01").wait_for()
        before = scale_of(page)
        apart = [[(190 - d, 240), (190 + d, 240)] for d in (20, 40, 80)]
        spread = [("touchMove", points) for points in apart[1:]]
        touch(page, [("touchStart", apart[0]), *spread, ("touchEnd", [])])
        page.wait_for_timeout(80)
        assert scale_of(page) == pytest.approx(4 * before, rel=0.2)
        assert page.inner_text("#compare-key") == "set/01"
        tab.check()


def serious(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [
        (one["id"], [node["target"] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(browser, report, scheme, phone):
    options = {"viewport": PHONE, "is_mobile": True} if phone else {}
    with open_tab(browser, report.url, color_scheme=scheme, **options) as tab:
        page = tab.page
        page.locator("summary").last.click()
        assert serious(page) == []
        open_image(page, 3)
        assert serious(page) == []
        for mode in ("slider", "flip", "fade"):
            page.click(f"[data-do={mode}]")
            assert serious(page) == []
        page.keyboard.press("?")
        assert serious(page) == []
