"""`latentcli bench` as it is typed: tables, charts, job files and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from clikit import Run

from latentcli.cli.jobfile import resolve
from latentcli.jobs.bench.config import BenchJob
from latentcli.shards.sources.own_output import MARK, is_own

ROOT = Path(__file__).resolve().parents[2]


def quick(model: Path) -> tuple[object, ...]:
    return ("bench", "--model", model, "--repeats", 1, "--warmup", 0, "--device", "cpu")


def test_a_table_says_how_it_was_made(cli: Run, tiny_model: Path) -> None:
    command = (*quick(tiny_model), "--baseline", tiny_model, "--resolution", 32, "--batch", 1)
    shown = cli(*command, "--random-weights")
    assert shown.code == 0, shown.err
    for word in ("processor", "software", "eager", "checked", "against", "random weights", "1.00"):
        assert word in shown.out
    assert "encode, cpu fp32" in shown.out
    assert "decode, cpu fp32" in shown.out
    assert "USDT" not in shown.err


def test_a_published_table_at_another_batch_size(cli: Run, tiny_model: Path) -> None:
    found = cli(*quick(tiny_model), "--preset-table", "encode", "--batch", 1, "--json")
    assert found.code == 0, found.err
    rows = found.document["rows"]
    assert [(r["op"], r["resolution"], r["batch"]) for r in rows] == [
        ("encode", "256x256", 1),
        ("encode", "512x512", 1),
    ]
    assert found.document["preset_table"]["published_batch"] == "128 and 32"


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_chart(cli: Run, tiny_model: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"chart.{suffix}"
    shown = cli(*quick(tiny_model), "--resolution", 32, "--batch", 1, "--chart", path)
    assert shown.code == 0, shown.err
    assert str(path) in shown.out.replace("\n", "")
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.glob("[!.]*")] == [path.name]
    assert is_own(str(path)) == (tmp_path / MARK).exists() == (suffix == "png")


def test_a_page(cli: Run, tiny_model: Path, tmp_path: Path) -> None:
    page = tmp_path / "speed.html"
    shown = cli(*quick(tiny_model), "--resolution", 32, "--batch", 1, "--report", page)
    assert shown.code == 0, shown.err
    assert f"Page: {page}" in shown.err
    assert page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--chart", "a.jpg"), "must end in .png or .svg"),
        (("--preset-table", "encode", "--resolution", "256"), "leave out --resolution"),
        (("--preset-table", "both"), "allowed are encode, decode"),
        (("--seconds", "-1"), "--seconds is -1.0; it must be at least 0"),
        (("photos",), "latentcli bench --stages photos"),
    ],
)
def test_refusals(cli: Run, words: tuple[str, ...], told: str) -> None:
    shown = cli("bench", *words)
    assert shown.code == 2
    assert told in shown.err


def test_the_example_job_file() -> None:
    job, _ = resolve(BenchJob, "bench", {"config": str(ROOT / "configs" / "jobs" / "bench.toml")})
    assert job.models == ("full_capacitor", "dinac_ae_d2", "capacitor_decoder")
    assert (job.baseline, job.random_weights, job.repeats) == ("flux2", True, 7)


def test_figures_are_shown_where_the_chart_fails(
    cli: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = pytest.importorskip("matplotlib.figure")

    def disk_full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    # What the probe of the place finds may be otherwise hours later.
    monkeypatch.setattr(figure.Figure, "savefig", disk_full)
    chart = tmp_path / "chart.png"
    words = (*quick(tiny_model), "--resolution", 32, "--batch", 1, "--chart", chart)
    shown = cli(*words)
    assert shown.code == 1
    assert "ms/batch" in shown.out
    assert "could not be made: No space left on device" in shown.err
    assert cli(*words, "--json").document["rows"]


def test_a_narrow_terminal_still_shows_the_models(
    cli: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = (*quick(tiny_model), "--baseline", tiny_model, "--resolution", 32, "--batch", 1)
    assert tiny_model.name in cli(*command).out.split("encode, cpu")[1]
