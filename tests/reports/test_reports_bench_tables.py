"""Bench documents as the tables of the model cards."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console, RenderableType

from latentcli.reports import bench_tables as tables

WIDE = 200


def text(*items: RenderableType, width: int = WIDE) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        for item in items:
            console.print(item)
    return captured.get()


def bench_row(**changes: Any) -> dict[str, Any]:
    row = {
        "model": "m",
        "op": "encode",
        "resolution": "64x64",
        "batch": 2,
        "ms_per_batch": 12.347,
        "ms_p25": 11.0,
        "ms_p75": 13.0,
        "images_per_second": 1620.7,
        "repeats": 10,
        "peak_memory_mib": None,
        "speedup": None,
        "memory_reduction": None,
    }
    return row | changes


def bench_document(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    document = {
        "device": "cpu",
        "dtype": "fp32",
        "cpu": "Some CPU",
        "cores": 8,
        "threads": 4,
        "torch": "2.13.0",
        "compiled": False,
        "random_weights": False,
        "models": [{"model": "m", "weights": "bundled"}],
        "warmup": 2,
        "repeats": 10,
        "load": {"before": 0.5, "after": 1.5},
        "rows": list(rows),
    }
    return document | changes


def test_without_a_baseline() -> None:
    shown = text(*tables.bench_tables(bench_document(bench_row())))
    assert "12.35" in shown
    assert "11.00-13.00" in shown
    assert "1,620.7" in shown
    assert "Some CPU, 4 of 8 threads, load 0.5 to 1.5" in shown
    assert "torch 2.13.0, fp32, eager" in shown
    assert "m bundled" in shown
    assert "speedup" not in shown
    assert "repeats" not in shown


def test_against_a_baseline() -> None:
    figures = {"speedup": 9.009, "speedup_p25": 8.5, "speedup_p75": 9.5}
    row = bench_row(memory_reduction=0.9194, peak_memory_mib=1606.5, **figures)
    shown = text(*tables.bench_tables(bench_document(row, baseline="flux2")))
    assert "encode, cpu fp32, against flux2\n" in shown
    assert shown.splitlines()[-1].split()[-4:] == ["1,606.5", "9.01x", "8.50-9.50", "-91.9%"]


@pytest.mark.parametrize("width", [200, 120, 100, 80, 70])
def test_no_figure_and_no_model_is_cut(width: int) -> None:
    figures = {"speedup": 9.009, "speedup_p25": 8.5, "speedup_p75": 9.5, "memory_reduction": -0.25}
    figures |= {"ms_per_batch": 25036.67, "ms_p25": 24000.0, "ms_p75": 26000.0}
    row = bench_row(model="capacitor_decoder", resolution="2048x2048", batch=128, **figures)
    shown = text(*tables.bench_tables(bench_document(row, baseline="flux2")), width=width)
    last = shown.rstrip().splitlines()[-1].split()
    assert last[:4] == ["2048x2048", "128", "capacitor_decoder", "25,036.67"]
    assert "9.01x" in last and "+25.0%" in last
    assert ("24,000.00-26,000.00" in last) == (width == 200)
    assert ("±4.0%" in last) == (80 < width < 200)
    assert ("1,620.7" in last) == (width > 80)


@pytest.mark.parametrize("width", [100, 80, 60])
def test_shares_of_the_machine(width: int) -> None:
    reached = {"gflop": 13.4, "gbyte": 0.5, "operators": 213}
    row = bench_row(ms_per_batch=100.0, matrix_share=0.674, copy_share=1.04, **reached)
    rates = {"gflop_per_second": {"fp32": 170.0, "bf16": 198.8}, "copy_gbyte_per_second": 12.26}
    told = text(*tables.bench_tables(bench_document(row, ceilings=rates)), width=width)
    first = "products fp32 170 GFLOP/s, bf16 199 GFLOP/s; copies 12.3 GB/s"
    assert first in " ".join(told.split())
    last = told.rstrip().splitlines()[-1].split()
    assert {"67%", "104%"} <= set(last)
    assert ({"13.40", "134", "5.0", "213"} <= set(last)) == (width == 100)
    assert ("213" in last) == (width >= 80)
    assert ", share of the machine's speed" not in text(
        *tables.bench_tables(bench_document(bench_row()))
    )


def test_a_row_may_lack_its_shares_of_the_machine() -> None:
    """As where memory was too short to count what the model asks for."""
    names = ("gflop", "gbyte", "operators", "matrix_share", "copy_share")
    rates = {"gflop_per_second": {"fp32": 170.0}, "copy_gbyte_per_second": 12.26}
    row = bench_row(**dict.fromkeys(names))
    told = text(*tables.bench_tables(bench_document(row, ceilings=rates)))
    assert told.rstrip().splitlines()[-1].split() == ["64x64", "2", "m"]


def test_words_of_figures() -> None:
    assert [tables.times(v) for v in (None, 9.009, 0.0714)] == ["", "9.01x", "0.071x"]
    assert [tables.change(v) for v in (None, 0.9194, -0.244, 0.00001, -0.00001)] == [
        *("", "-91.9%", "+24.4%", "0.0%", "0.0%")
    ]


def test_folders_are_told_apart_by_their_last_parts() -> None:
    assert tables.short_names(["flux2", "/a/b/mine"]) == {"flux2": "flux2", "/a/b/mine": "mine"}
    alike = tables.short_names(["mine", "/a/b/mine", "/a/c/mine"])
    assert list(alike.values()) == ["mine", "b/mine", "c/mine"]
    shown = text(*tables.bench_tables(bench_document(bench_row(model="/a/b/mine"))))
    assert "/a/b/mine" not in shown.split("encode, cpu")[1]


def test_one_call_of_one_model() -> None:
    shown = text(*tables.bench_tables(bench_document(bench_row(), repeats=1, warmup=1)))
    assert "one call after 1 untimed one\n" in shown.replace("  ", "").replace(" \n", "\n")


def test_a_table_for_each_op_with_its_own_rate() -> None:
    rows = (bench_row(), bench_row(op="decode"))
    encode, decode = text(*tables.bench_tables(bench_document(*rows))).split("decode, cpu")
    assert "images/s" in encode and "ms/image" not in encode
    assert "ms/image" in decode and "images/s" not in decode
    assert decode.splitlines()[-1].split()[-1] == "6.17"


def test_the_heading_says_what_was_changed() -> None:
    table = {"name": "encode", "published_batch": "128 and 32", "batch": 4}
    document = bench_document(
        bench_row(), preset_table=table, random_weights=True, compiled=True, baseline="b"
    )
    assert tables.heading(document, "encode") == (
        "encode, the rows of the published table at batch size 4 instead of 128 and 32, cpu fp32,"
        " compiled, against b, random weights"
    )
    assert "random: the speed is that of the networks" in text(*tables.bench_tables(document))
    as_published = document | {"preset_table": table | {"batch": None}}
    assert "instead" not in tables.heading(as_published, "encode")


def test_fewer_repeats_are_told() -> None:
    shown = text(*tables.bench_tables(bench_document(bench_row(repeats=3), seconds=5.0)))
    assert "10 calls (fewer after 5 s)" in shown
    assert shown.splitlines()[-1].split()[-1] == "3"


def test_checks_and_what_is_left_out() -> None:
    checks = [{"relative_rms": value, "tolerance": 1e-4} for value in (1e-6, 4e-6)]
    left_out = [{"model": "d", "op": "encode", "reason": "it has no encoder"}]
    shown = text(
        *tables.bench_tables(bench_document(bench_row(), checks=checks, left_out=left_out))
    )
    assert "2 outputs against eager float32, largest relative RMS 4e-06 (0.0001 allowed)" in shown
    assert "d in encode: it has no encoder" in shown


def test_a_gpu() -> None:
    told = {
        "sm_mhz": 345.0,
        "sm_max_mhz": 1980.0,
        "memory_mhz": 3201.0,
        "memory_max_mhz": 3201.0,
        "power_limit_w": 700.0,
        "power_w": None,
        "temperature_c": 30.0,
    }
    document = bench_document(
        bench_row(),
        device="NVIDIA H200",
        driver="570.1",
        cuda="12.8",
        cudnn=91002,
        flags={"cudnn_deterministic": True, "matmul_tf32": False},
        clocks={"before": told, "after": told | {"sm_mhz": 1755.0, "temperature_c": 61.0}},
    )
    shown = text(*tables.bench_tables(document))
    assert "SM 345 MHz before, 1755 after (at most 1980); memory 3201 MHz before" in shown
    assert "power limit 700 W; 30 to 61 °C" in shown
    assert "CUDA 12.8, cuDNN 91002" in shown
    assert "cudnn_deterministic on, matmul_tf32 off: as latentcli runs every job" in shown
    assert tables.clocks_text({"before": None, "after": None}) is None


def test_stages() -> None:
    document = {
        "stages": {"read": {"seconds": 0.5, "items": 10, "per_second": 20.0}},
        "image_stages_alone": 20.0,
        "model_alone": 40.0,
        "job": 18.0,
        "ratio": 0.9,
        "bottleneck": "read",
    }
    shown = text(*tables.stages_tables(document))
    assert "read       0.50      10            20.0" in shown
    assert "whole job / slower half  0.90" in shown
