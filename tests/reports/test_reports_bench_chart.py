"""The bar chart of a bench document, as PNG and SVG."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from latentcli.core.errors import UsageError
from latentcli.reports import bench_chart as chart


def rows(*models: str, ops: tuple[str, ...] = ("encode", "decode")) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "op": op,
            "resolution": size,
            "batch": 4,
            "ms_per_batch": 100.0 * (index + 1),
            "ms_p25": 90.0 * (index + 1),
            "ms_p75": 120.0 * (index + 1),
            "images_per_second": 40 / (index + 1),
            "speedup": 4 / (index + 1),
        }
        for op in ops
        for size in ("64x64", "128x128")
        for index, model in enumerate(models)
    ]


def document(*models: str, **changes: Any) -> dict[str, Any]:
    found = {
        "device": "cpu",
        "cpu": "Some CPU",
        "threads": 1,
        "dtype": "fp32",
        "torch": "2.13.0",
        "compiled": False,
        "random_weights": True,
        "baseline": models[-1],
        "repeats": 10,
        "rows": rows(*models),
    }
    return found | changes


def words(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("}text")]


def test_svg_says_everything() -> None:
    pytest.importorskip("matplotlib")
    found = words(chart.draw_chart(document("a", "b", "c"), "svg"))
    assert "Images a second, and speedup over c" in found
    assert found.count("a") == 4
    assert {"encode 64x64, batch 4", "decode 128x128, batch 4"} <= set(found)
    assert "40.0 images/s, 100 ms, 4.00x" in found
    told = " ".join(found)
    for fact in ("Some CPU, 1 thread, fp32", "torch 2.13.0", "eager", "random weights"):
        assert fact in told


def test_the_same_document_gives_the_same_svg() -> None:
    pytest.importorskip("matplotlib")
    assert len({chart.draw_chart(document("a", "b"), "svg") for _ in range(2)}) == 1


def test_png_is_a_picture_with_the_bars_in_their_lengths() -> None:
    pytest.importorskip("matplotlib")
    found = document("a", "b", rows=rows("a", "b", ops=("encode",))[:2])
    with Image.open(io.BytesIO(chart.draw_chart(found, "png"))) as picture:
        colours = picture.convert("RGB")
    wide, tall = colours.size
    assert wide > 600
    pixels = list(
        colours.get_flattened_data()
        if hasattr(colours, "get_flattened_data")
        else colours.getdata()
    )
    areas = [pixels.count(rgb(c)) for c in (chart.COLOURS[0], chart.BASELINE)]
    assert areas[0] / areas[1] == pytest.approx(2, rel=0.1)
    assert tall < wide


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def test_colours_differ_and_the_baseline_is_grey() -> None:
    found = chart.colours_of(["a", "b", "c"], "b")
    assert found["b"] == chart.BASELINE
    assert len(set(found.values())) == 3
    assert chart.BASELINE not in chart.colours_of(["a", "b"], None).values()


def test_a_compiled_bench_of_a_changed_table() -> None:
    table = {"name": "encode", "published_batch": "128 and 32", "batch": 4}
    told = chart.caption(document("a", compiled=True, preset_table=table))
    assert "torch.compile" in told
    assert "batch size 4 instead of the published table's" in told


@pytest.mark.parametrize("name", ["a.jpg", "a", "png"])
def test_other_suffixes_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"must end in \.png or \.svg"):
        chart.check_chart(name)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        chart.check_chart(str(tmp_path / "none" / "a.png"))


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing can be written there: File name too long"):
        chart.check_chart(str(tmp_path / f"{'a' * 252}.png"))


def test_without_matplotlib_the_extra_is_named() -> None:
    """A process in which matplotlib cannot be found, as where the extra is not installed."""
    code = (
        "import importlib.util as u, importlib.machinery as m, sys\n"
        "class Hide(m.PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'matplotlib': return None\n"
        "        return super().find_spec(name, path, target)\n"
        "sys.meta_path = [f for f in sys.meta_path if f is not m.PathFinder] + [Hide]\n"
        "from latentcli.cli.app import main\n"
        "sys.exit(main(['bench', '--chart', 'a.png']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "latentcli[charts]" in done.stderr
