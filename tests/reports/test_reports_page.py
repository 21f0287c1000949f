"""Pages that stand alone: what is escaped, what may be loaded, and how they are written."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from latentcli.reports.page import (
    TextCell,
    asset,
    chart_figure,
    facts_list,
    figures_table,
    html_page,
    json_list,
    section,
    write_page,
)

NASTY = "</script><img src=x onerror=alert(1)> & \u2028 \" ' 画"


class Reader(HTMLParser):
    """The elements with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open:
            self.text[self._open[-1]] = self.text.get(self._open[-1], "") + data

    def tags(self):
        return [tag for tag, _ in self.elements]


def test_a_page_names_no_other_file():
    page = "".join(html_page("T", "<p>b</p>", ["viewer.css"], ["viewer_dom.js"]))
    reader = Reader(page)
    links = [a.get("href") for tag, a in reader.elements if tag == "link"]
    assert links == ["data:,"]
    assert not [a for tag, a in reader.elements if tag == "script" and "src" in a]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "@import" not in page


def test_title_and_data_cannot_break_out():
    data = [("rows", json_list([NASTY, {"k": NASTY}]))]
    reader = Reader("".join(html_page(NASTY, "<p>b</p>", data=data)))
    assert reader.text["title"] == NASTY
    assert "img" not in reader.tags()
    held = re.search(r'id="rows">(.*?)</script>', "".join(html_page("t", "", data=data)), re.S)
    assert held is not None


def test_data_reads_back_as_it_was():
    page = "".join(html_page("t", "", data=[("rows", json_list([NASTY, "\udc80"]))]))
    text = re.search(r'id="rows">(.*?)</script>', page, re.S)
    assert text is not None
    assert json.loads(text[1]) == [NASTY, "\udc80"]
    assert json.loads("".join(json_list([]))) == []


def test_data_is_escaped_even_where_json_is_not_ascii():
    page = "".join(html_page("t", "", data=[("d", ['"<\u2028>"'])]))
    assert '"\\u003c\\u2028\\u003e"' in page


def test_data_is_taken_as_it_comes():
    seen = []

    def items():
        for i in range(3):
            seen.append(i)
            yield i

    pieces = html_page("t", "", data=[("d", json_list(items()))])
    while not next(pieces).endswith('id="d">'):
        assert not seen
    next(pieces)
    assert seen == [0]


def test_parts_escape_what_they_are_given():
    parts = [
        section("a", NASTY),
        facts_list({NASTY: NASTY, "none": None}),
        figures_table(["Name", "n"], [[NASTY, NASTY]], NASTY),
        figures_table(["Name", "n"], [["a", TextCell(NASTY, False, NASTY)]]),
        chart_figure("<svg></svg>", NASTY),
    ]
    for part in parts:
        assert "img" not in Reader(part).tags(), part
    assert "none" not in parts[1]


def test_a_table_aligns_figures_and_not_words():
    reader = Reader(figures_table(["Name", "n", "why"], [["a", "1", TextCell("b", False)]]))
    cells = [(tag, a.get("class"), a.get("scope")) for tag, a in reader.elements if tag[0] == "t"]
    assert [c for c in cells if c[0] in ("th", "td")] == [
        ("th", "text", "col"),
        ("th", None, "col"),
        ("th", "text", "col"),
        ("th", "text", "row"),
        ("td", None, None),
        ("td", "text", None),
    ]


def test_an_empty_table_has_its_headers():
    assert Reader(figures_table(["Name", "n"], [])).tags().count("th") == 2


def test_a_failed_page_leaves_the_old_one(tmp_path):
    path = tmp_path / "index.html"
    write_page(path, ["old"])

    def pieces():
        yield "new"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_page(path, pieces())
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_a_name_that_is_no_text_is_still_written(tmp_path):
    path = write_page(tmp_path / "p.html", ["a\udcffb"])
    assert path.read_text(encoding="utf-8") == "a?b"


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_read_on_every_ground(theme):
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", asset("page.css"))
    colours = {name: pair[theme] for name, *pair in found}
    words = [n for n in colours if n.startswith("series-")]
    assert len(words) == 6
    for name in [*words, "ink", "soft", "accent", "good", "bad"]:
        for ground in ("paper", "raised"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
