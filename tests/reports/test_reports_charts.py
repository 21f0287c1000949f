"""Charts: XML whatever the labels are, nothing outside of the drawing, lengths that are true."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.reports.chart_svg import compact, scale
from latentcli.reports.charts import bars, binned, bucket_map, channel_plot

LABELS = st.one_of(
    st.text(max_size=90),
    st.sampled_from(
        ["<script>alert(1)</script>", '"><svg onload=x>', "a & b", "]]>", "\x00\x1b[31m", "x" * 400]
    ),
)
ANY = st.floats(allow_nan=True, allow_infinity=True)
BINS = st.lists(st.integers(0, 10**9), min_size=9, max_size=9)
FEW = settings(max_examples=60, deadline=None)
SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str) -> ET.Element:
    """The chart, after a look at whether it can be read and lies within its box."""
    root = ET.fromstring(svg)
    assert (
        root.get("role") == "img" and root[0].tag == f"{SVG}title" and root[1].tag == f"{SVG}desc"
    )
    _, _, width, height = map(float, root.get("viewBox", "").split())
    for element in root.iter():
        assert element.tag.removeprefix(SVG) not in ("script", "image", "a")
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(name, 0)) <= width
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(name, 0)) <= height
        if element.tag == f"{SVG}path":
            assert all(
                0 <= y <= height
                for y in map(float, re.findall(r"V([-\d.e]+)", element.get("d", "")))
            )
            assert all(
                0 <= x <= width
                for x in map(float, re.findall(r"H([-\d.e]+)", element.get("d", "")))
            )
        for name, value in element.items():
            assert "#" not in value and "nan" not in value.lower().split(","), (name, value)
    return root


def text_of(svg: str) -> str:
    return " ".join(drawn(svg).itertext())


@FEW
@given(st.dictionaries(LABELS, BINS, max_size=5), LABELS, LABELS)
def test_any_histogram_is_drawn(series, title, unit):
    svg = binned(series, -1, 2.5, title=title, unit=unit)
    drawn(svg)
    assert svg == binned(series, -1, 2.5, title=title, unit=unit)


@FEW
@given(st.lists(st.tuples(LABELS, ANY), max_size=12), LABELS)
def test_any_bars_are_drawn_to_scale(items, title):
    root = drawn(bars(items, title=title, unit="s"))
    rects = list(root.iter(f"{SVG}rect"))
    values = [v for _, v in items if math.isfinite(v) and abs(v) <= 1e300]
    assert len(rects) == len(values)
    largest = max(map(abs, values), default=0)
    widths = [float(rect.get("width", "")) for rect in rects]
    for value, width in zip(values, widths, strict=True):
        share = abs(value) / largest if largest else 0
        assert width == pytest.approx(share * max(widths, default=0), abs=2e-3)


@FEW
@given(st.lists(st.tuples(ANY, ANY), min_size=1, max_size=40), st.sets(st.integers(0, 39)))
def test_any_channels_are_drawn(pairs, marked):
    values, expected = zip(*pairs, strict=True)
    band = ([v - 1 for v in expected], [v + 1 for v in expected])
    options = {"title": "t", "unit": "mean", "expected": expected, "band": band, "marked": marked}
    root = drawn(channel_plot(values, **options))
    usable = [v for v in values if math.isfinite(v) and abs(v) <= 1e300]
    assert len(list(root.iter(f"{SVG}circle"))) == len(usable)


@FEW
@given(
    st.dictionaries(
        st.tuples(st.integers(1, 9000), st.integers(1, 9000)), st.integers(0, 10**9), max_size=30
    )
)
def test_any_sizes_are_drawn_by_area(sizes):
    root = drawn(bucket_map(sizes, title="sizes"))
    there = [n for n in sizes.values() if n]
    radii = sorted(float(c.get("r", "")) for c in root.iter(f"{SVG}circle"))
    assert len(radii) == len(there)
    for count, radius in zip(sorted(there), radii, strict=True):
        assert radius == pytest.approx(max(17 * math.sqrt(count / max(there)), 3), abs=0.01)


def heights(svg: str, index: int = 0) -> list[float]:
    """Heights of a histogram's bins."""
    path = list(drawn(svg).iter(f"{SVG}path"))[index].get("d", "")
    ground = float(re.match(r"M[\d.]+,([\d.]+)", path)[1])
    return [ground - float(y) for y in re.findall(r"V([\d.]+)H", path)]


def test_a_bin_is_as_high_as_its_count():
    svg = binned({"a": [3, 1, 0, 0, 1]}, 0, 10, title="t", unit="dB")
    found = heights(svg)
    assert found[1] == pytest.approx(found[0] / 3, abs=0.02) == pytest.approx(found[4], abs=0.02)
    assert sum(h > 0 for h in found) == 3
    assert "a (5)" in text_of(svg) and "dB" in text_of(svg)


def test_series_of_different_lengths_are_compared_by_shares():
    svg = binned({"a": [1, 1], "b": [50, 50]}, 0, 1, title="t", unit="dB")
    assert "% of values" in text_of(svg)
    assert heights(svg, 0) == pytest.approx(heights(svg, 1), abs=0.02)
    equal = binned({"a": [1, 1], "b": [0, 2]}, 0, 1, title="t", unit="dB")
    assert "%" not in text_of(equal)


def test_what_cannot_be_drawn_is_told():
    assert "There are no values" in text_of(binned({}, 0, 1, title="t", unit="dB"))
    assert "no number" in text_of(bars([("a", math.nan)], title="t", unit="s"))
    assert "1 channel has no finite" in text_of(channel_plot([math.nan, 1], title="t", unit="u"))
    with pytest.raises(ValueError, match="go from 1 to 1"):
        binned({}, 1, 1, title="t", unit="u")
    with pytest.raises(ValueError, match="2 channels"):
        channel_plot([1, 2], title="t", unit="u", expected=[1])


def test_a_long_label_is_cut_and_told_whole():
    label = "decode_image: " + "very " * 30 + "long"
    root = drawn(bars([(label, 3)], title="t", unit="inputs"))
    texts = list(root.iter(f"{SVG}text"))
    assert any(t[0].text == label and t[0].tail.endswith("\u2026") for t in texts if len(t))


@FEW
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=8), st.integers(2, 8), st.booleans())
def test_a_scale_holds_its_values_between_round_ticks(values, ticks, whole):
    found = scale(values, 10, 300, ticks=ticks, whole=whole)
    assert found.low <= min(values) and max(values) <= found.high
    assert len(found.ticks) <= 2 * ticks + 3
    assert all(10 <= found.at(value) <= 300 for value in values)
    assert found.ticks[0] == found.low and found.ticks[-1] == found.high


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 10], ["0.0", "2.5", "5.0", "7.5", "10.0"]),
        ([-1, 1], ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        ([0, 4000], ["0", "1,000", "2,000", "3,000", "4,000"]),
        ([0, 0.004], ["0.000", "0.001", "0.002", "0.003", "0.004"]),
    ],
)
def test_tick_labels_are_exact(values, labels):
    found = scale(values, 0, 1, ticks=4)
    assert [found.label(tick) for tick in found.ticks] == labels


def test_counts_in_few_characters():
    assert [compact(n) for n in (7, 9999, 12_345, 4.8e6, 2e9)] == [
        "7",
        "9,999",
        "12.3k",
        "4.8M",
        "2G",
    ]
