"""The results viewer with unusual data: strange names, missing figures, many rows."""

from __future__ import annotations

import shutil
import tracemalloc

import pytest
from browserkit import open_tab, running_browser
from reportkit import LPIPS, MEASURES, make_report, make_rows
from viewerkit import loaded, open_image, shown_keys, transforms

from latentcli.reports.viewer import Embedded, write_viewer

NASTY = (
    "quotes \"'`",
    "</script><b>",
    "<img src=x onerror=alert(1)>",
    "画像/été 🎈",
    "a" * 300,
    "hash#50%25?x=1&y",
    "clip_a#0001",
)
KEYS = [f"set/{i:02d}" for i in range(5)]


@pytest.fixture(scope="module")
def browser():
    with running_browser() as running:
        yield running


def test_strange_names_are_text_and_their_files_load(browser, tmp_path):
    strange = make_report(tmp_path / "odd #1 100% 画", NASTY, names=("</script>", '"&<b>'))
    with open_tab(browser, strange.url) as tab:
        page = tab.page
        assert page.locator("#grid .key").evaluate_all("all => all.map((k) => k.textContent)") == [
            *NASTY
        ]
        for index, key in enumerate(NASTY):
            open_image(page, index)
            assert page.text_content("#compare-key") == key
            assert page.locator("#stages img.there").count() == 7
            page.keyboard.press("Escape")
        assert page.locator("b, img[src=x]").count() == page.locator(".legend b").count()
        tab.check()


def test_figures_that_are_infinite_or_missing(browser, tmp_path):
    measures = [*MEASURES, LPIPS]
    rows = make_rows(["same", "tiny", "plain"], 2, measures, False)
    rows[0]["figures"][0]["psnr"] = None
    rows[0]["figures"][1]["psnr"] = None
    del rows[1]["figures"][0]["lpips"]
    odd = make_report(tmp_path / "odd", (), measures=measures, rows=rows)
    with open_tab(browser, odd.url) as tab:
        page = tab.page
        page.select_option("#sort", "figure-0-0")
        assert shown_keys(page)[-1] == "same"
        assert page.locator("#grid .figure").last.inner_text() == "small\n∞ dB"
        page.select_option("#sort", "figure-2-0")
        assert shown_keys(page)[-1] == "tiny"
        assert page.inner_text("#direction") == "↓ highest first"
        page.click("#direction")
        assert shown_keys(page)[-1] == "tiny"
        open_image(page, 0)
        assert page.locator("#stages .pane").count() == 5
        assert page.locator("#told .delta td").first.inner_text() == "0.00"
        tab.check()


@pytest.mark.parametrize("names", [("one",), ("a", "b", "c", "d")])
def test_one_model_and_four(browser, tmp_path, names):
    made = make_report(tmp_path / "r", KEYS, names=names)
    with open_tab(browser, made.url) as tab:
        page = tab.page
        open_image(page, 2)
        assert page.locator("#stages .pane").count() == 1 + 3 * len(names)
        assert len(set(transforms(page))) == 1
        assert page.locator("#spread-differences").is_visible() == (len(names) > 1)
        inside = page.eval_on_selector(
            "#stages", "s => s.scrollHeight <= s.clientHeight && s.scrollWidth <= s.clientWidth"
        )
        assert inside
        tab.check()


SSIM_GAUSS = MEASURES[1] | {"name": "ssim_gaussian", "label": "SSIM gauss"}


@pytest.mark.parametrize(
    "names", [("a", "b"), ("fcdm_nano", "linear16"), ("capacitor_decoder", "b")]
)
@pytest.mark.parametrize("more", [[], [SSIM_GAUSS]])
def test_no_figure_of_a_picture_is_broken_in_two(browser, tmp_path, names, more):
    measures = [*MEASURES, *more]
    rows = make_rows(KEYS, 2, measures[:2], False)
    for row in rows:
        for figures in row["figures"]:
            figures |= {measure["name"]: 0.5 - row["index"] / 9 for measure in more}
    made = make_report(tmp_path / "r", (), names=names, measures=measures, rows=rows)
    with open_tab(browser, made.url) as tab:
        open_image(tab.page, 1)
        broken = tab.page.eval_on_selector_all(
            "#told :is(td, tbody th)",
            """all => all.filter((cell) => {
              const words = document.createRange();
              words.selectNodeContents(cell);
              const texts = [...words.getClientRects()].filter((box) => box.height > 12);
              const bottoms = texts.map((box) => box.bottom);
              const lines = Math.max(...bottoms) - Math.min(...bottoms) > 8;
              return lines || cell.getBoundingClientRect().right > innerWidth - 15;
            }).map((cell) => cell.textContent)""",
        )
        assert broken == []


def test_panes_of_each_model_lie_together(browser, tmp_path):
    """In columns where pictures are wide, in lines where they are high; the original first."""
    tall = make_rows(KEYS, 2, MEASURES, True)
    tall = [row | {"width": 48, "height": 64 if row["index"] else 32} for row in tall]
    made = make_report(tmp_path / "r", (), rows=tall)
    for index, (across, other) in {0: ("x", "y"), 1: ("y", "x")}.items():
        with open_tab(browser, made.url) as tab:
            open_image(tab.page, index)
            panes = {
                pane.get_attribute("data-pane"): pane.bounding_box()
                for pane in tab.page.locator("#stages .pane").all()
            }
            for m in (0, 1):
                of_model = [panes[f"{kind}-{m}"] for kind in ("picture", "difference", "pca")]
                assert len({round(box[across]) for box in of_model}) == 1
                assert len({round(box[other]) for box in of_model}) == 3
            assert panes["original"]["x"] < min(panes[f"picture-{m}"]["x"] for m in (0, 1))


def test_clips_latents_and_ends_have_tables(browser, tmp_path):
    lpips_first = [LPIPS, *MEASURES]
    rows = make_rows(["c/000000", "c/000001"], 2, lpips_first, True)
    of_clip = {"psnr": {"mean": 31.234}, "temporal": {"mean": 1.5}}
    clips = [{"key": "c", "psnr": None, "temporal": 1.5}]
    figures = [{"model": name, **of_clip, "clips": clips} for name in ("small", "large")]
    document = make_report(tmp_path / "first", (), rows=rows, measures=lpips_first).document
    models = [
        model
        | {
            "latents": {"mean": 0.01, "std": 0.9, "channel_std": [0.5, 1.25]},
            "pca_explained": 0.347,
            "worst": [{"key": "c/000001", "index": 1, "lpips": 0.5}],
        }
        for model in document["models"]
    ]
    delta = [document["delta"][0] | {"latent_cosine": {"mean": 0.125}}]
    told = {"media": "clips", "clips": 1, "clip_figures": figures, "models": models, "delta": delta}
    measures = [lpips_first[0], lpips_first[1] | {"of": 1}, lpips_first[2]]
    made = make_report(tmp_path / "r", (), rows=rows, measures=measures, **told)
    with open_tab(browser, made.url) as tab:
        page = tab.page
        text = page.locator("main").text_content()
        for words in (
            "2 frames of 1 clip (1 more could not be used),",
            "Whole clips",
            "31.23",
            "Worst LPIPS",
        ):
            assert words in text
        for words in (
            "0.500 to 1.250",
            "35%",
            "Cosine to large",
            "0.1250",
            "1 frames are too small",
        ):
            assert words in text
        assert "∞" in page.locator("details", has_text="Each clip").text_content()
        page.get_by_role("link", name="c/000001").first.click()
        assert page.inner_text("[data-pane=pca-0] figcaption").endswith("PCA, 35% of variance")
        tab.check()


def test_a_file_that_is_gone_is_named(browser, tmp_path):
    made = make_report(tmp_path / "r", KEYS[:2])
    (made.folder / "files" / "000" / "000000.1.webp").unlink()
    with open_tab(browser, made.url) as tab:
        tab.page.locator("#grid a").first.click()
        tab.page.get_by_text("No file files/000/000000.1.webp").wait_for()


def test_nothing_to_show_is_still_a_page(browser, tmp_path):
    made = make_report(tmp_path / "r", [])
    with open_tab(browser, made.url) as tab:
        assert not tab.page.locator("#gallery").is_visible()
        tab.check()


def test_frames_of_clips_are_called_frames(browser, tmp_path):
    made = make_report(tmp_path / "r", ["c/a#0000", "c/a#0001"], media="clips")
    with open_tab(browser, made.url) as tab:
        assert "2 frames" in tab.page.inner_text(".lead")
        open_image(tab.page, 1)
        assert tab.page.inner_text("#compare-key") == "c/a#0001"
        tab.check()


def own_work(page):
    """Gives the seconds of processor time that the page's own thread has worked.

    What the clock says depends on what else the machine does.
    """
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(each["value"] for each in metrics if each["name"] == "TaskDuration")

    return seconds


def test_five_thousand_open_and_scroll(browser, tmp_path):
    many = make_report(tmp_path / "many", [f"set/{i:04d}" for i in range(5000)], pca=False)
    with open_tab(browser) as tab:
        page = tab.page
        work = own_work(page)
        page.goto(many.url)
        page.locator("#grid li").nth(10).wait_for()
        assert 0 < work() < 1
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.get_by_text("set/4999", exact=True).wait_for()
        assert page.locator("#grid li").count() < 400
        page.fill("#search", "499")
        page.get_by_text("of 5,000 shown").wait_for()
        assert page.locator("#grid li").count() == sum("499" in row["key"] for row in many.rows)
        tab.check()


def test_rows_need_no_memory(tmp_path):
    sample = make_rows(["k" * 200], 2, MEASURES, False)[0]
    document = make_report(tmp_path / "r", ["a"]).document
    write_viewer(tmp_path / "index.html", document, iter([sample]))
    tracemalloc.start()
    write_viewer(tmp_path / "index.html", document, (sample | {"index": i} for i in range(6_000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "index.html").stat().st_size > 2_000_000
    assert peak < 500_000


def as_single(report, whole):
    """The page of a report with its files inside; those of some pictures are all there."""
    paths = sorted((report.folder / "files").rglob("0*.*"))

    def files():
        for path in paths:
            if int(path.name[:6]) in whole or ".thumb." in path.name:
                yield path.name, path.read_bytes()

    alone = report.folder.with_suffix(".html")
    inside = Embedded(files, frozenset(whole), len(report.rows) - len(whole))
    write_viewer(alone, report.document, iter(report.rows), inside)
    shutil.rmtree(report.folder)
    return alone.as_uri()


def test_a_page_of_one_file_needs_no_other(browser, tmp_path):
    url = as_single(make_report(tmp_path / "r", KEYS), whole={0, 1, 2})
    with open_tab(browser, url) as tab:
        page = tab.page
        open_image(page, 1)
        assert page.locator("#stages img.there").count() == 7
        link = page.locator(".files a").last
        assert link.get_attribute("download") == "000001.1.webp"
        assert link.get_attribute("href").startswith("data:image/webp;base64,")
        page.click("[data-do=slider]")
        loaded(page)
        assert page.locator("#stages img.there").count() == 2
        tab.check()


def test_a_picture_that_is_a_thumbnail_only_says_so(browser, tmp_path):
    url = as_single(make_report(tmp_path / "r", KEYS), whole={0, 1, 2})
    with open_tab(browser, url) as tab:
        page = tab.page
        open_image(page, 0)
        page.click("[data-do=fade]")
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        loaded(page)
        assert page.inner_text("#compare-key") == KEYS[4]
        assert page.locator("#stages img.there").count() == 1
        assert page.locator("#stages .pane").get_attribute("data-pane") == "original"
        assert "only a thumbnail" in page.inner_text("#told")
        assert page.get_attribute("[data-do=slider]", "aria-disabled") == "true"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert page.locator("#stages .pane").get_attribute("data-pane") == "fade"
        tab.check()
