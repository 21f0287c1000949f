"""What a roundtrip writes lies beside its sources, and what cannot be measured is an error."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest
from jobkit import cli, interrupt_after, toy_pictures
from PIL import Image

from latentcli.core.errors import Interrupted, LatentCliError, UsageError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.job import run_roundtrip


def roundtrip(*sources: object, **options: object) -> dict:
    settings = {"models": ("linear16",), "device": "cpu", "workers": 0}
    return run_roundtrip(RoundtripJob(sources=tuple(map(str, sources)), **settings | options))


@pytest.fixture
def pictures(tmp_path):
    return toy_pictures(tmp_path / "p", 3)


@pytest.mark.parametrize("option", ["report", "save"])
def test_no_run_reads_what_another_wrote(pictures, option, monkeypatch):
    inside = {"a": pictures / "out", "b": Path(f"{pictures}/x/../y/out"), "c": pictures}
    for folder in inside.values():
        with pytest.raises(UsageError, match=f"--{option} .* is in the source"):
            roundtrip(pictures, **{option: str(folder)})
    monkeypatch.chdir(pictures)
    with pytest.raises(UsageError, match=f"--{option} .* is in the source"):
        roundtrip(".", **{option: "out"})
    assert not (pictures / "out").exists()


def test_beside_the_source_and_hidden_in_it_are_fine(pictures, tmp_path):
    for folder in (tmp_path / "beside", tmp_path / "p-report", pictures / ".report"):
        for _ in range(2):
            assert roundtrip(pictures, report=str(folder))["images"] == 3


def test_a_report_is_no_source_of_itself(pictures, tmp_path):
    report = tmp_path / "report"
    roundtrip(pictures, report=str(report))
    before = sorted(report.rglob("*"))
    for source in (report / "files", f"{report}/files/000/*.original.webp"):
        with pytest.raises(UsageError, match="is in --report"):
            roundtrip(source, report=str(report))
    assert sorted(report.rglob("*")) == before


def test_nothing_else_goes_into_the_folder_of_a_report(pictures, tmp_path):
    report = tmp_path / "report"
    report.mkdir()
    for options in ({"save": report}, {"save": report / "s"}, {"csv": report / "f.csv"}):
        with pytest.raises(UsageError, match="Name another place"):
            roundtrip(pictures, report=str(report), **{k: str(v) for k, v in options.items()})
    with pytest.raises(UsageError, match="Name another place"):
        roundtrip(pictures, report=str(tmp_path / "new"), csv=str(tmp_path / "new"))
    assert not list(report.iterdir())


@pytest.mark.parametrize("option", ["csv", "save", "report"])
@pytest.mark.parametrize("place", ["/sys/latentcli", "n" * 256, "file/below"])
def test_places_are_tried_before_the_models_are_loaded(
    pictures, tmp_path, option, place, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=f"^--{option} "):
        roundtrip(pictures, models=("taesdxl",), **{option: str(tmp_path / place)})
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_cannot_be_saved_fail_and_the_rest_goes_on(tmp_path):
    """Two pictures of one stem keep their suffix in their keys, which get one more as PNG."""
    toy_pictures(tmp_path / "p", 2)
    first = min((tmp_path / "p").rglob("*.*"))
    for name in ("l" * 248 + ".gif", "l" * 248 + ".bmp", "f" * 251 + ".png"):
        Image.open(first).save(tmp_path / "p" / name)
    found = roundtrip(tmp_path / "p", save=str(tmp_path / "out"))
    assert (found["images"], found["failed"], found["problems"]) == (3, 2, [])
    assert {row["key"] for row in found["failures"]} == {"l" * 248 + s for s in (".gif", ".bmp")}
    assert all("longer than the file system" in row["error"] for row in found["failures"])
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3
    assert roundtrip(tmp_path / "p")["images"] == 5  # nothing is saved


def test_pictures_that_are_too_small_are_told(tmp_path):
    small = toy_pictures(tmp_path / "small", 2, [(64, 64)])
    with pytest.raises(LatentCliError, match=r"None of the 2 pictures .* at least 161 pixels"):
        roundtrip(small, metrics=("ms_ssim",))
    toy_pictures(tmp_path / "large", 1, [(176, 176)])
    found = roundtrip(small, tmp_path / "large", metrics=("psnr", "ms_ssim"))
    assert [measure["of"] for measure in found["measures"]] == [3, 1]


def test_rows_stand_in_the_order_of_the_inputs(tmp_path):
    """Pictures of another size wait for company, and may be overtaken."""
    toy_pictures(tmp_path / "p", 7, [(64, 48), (32, 64), (48, 48)])
    found = roundtrip(
        tmp_path / "p", batch_size=3, csv=str(tmp_path / "f.csv"), report=str(tmp_path / "page")
    )
    with (tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    for i, row in enumerate(rows):
        original = Image.open(tmp_path / f"page/files/000/{i:06d}.original.webp")
        assert original.size == (int(row["width"]), int(row["height"]))
    for named in (*found["models"][0]["worst"], *found["models"][0]["best"]):
        assert rows[named["index"]]["key"] == named["key"]
        assert float(rows[named["index"]]["linear16.psnr"]) == pytest.approx(
            named["psnr"], abs=1e-4
        )


def test_a_stopped_run_says_what_it_left_and_the_next_replaces_it(tmp_path):
    toy_pictures(tmp_path / "p", 12)
    job = RoundtripJob(
        sources=(str(tmp_path / "p"),),
        models=("linear16",),
        device="cpu",
        workers=0,
        batch_size=1,
        report=str(tmp_path / "page"),
    )
    with pytest.raises(Interrupted, match=r"pictures so far are in .*page"):
        run_roundtrip(job, interrupt_after(4, signal.SIGTERM))
    assert not list((tmp_path / "page").rglob("*.tmp"))
    assert not (tmp_path / "page/index.html").exists()
    assert run_roundtrip(job)["images"] == 12


def test_the_summary_names_what_failed(tmp_path):
    toy_pictures(tmp_path / "p", 2)
    (tmp_path / "p/broken.png").write_bytes(b"")
    run = cli("roundtrip", tmp_path / "p", "--model", "linear16", "--device", "cpu")
    assert run.returncode == 3
    assert "1 input failed, listed by --json:\n  1 x decode_image: file is empty" in run.stderr
    (tmp_path / "only").mkdir()
    (tmp_path / "p/broken.png").rename(tmp_path / "only/broken.png")
    with pytest.raises(LatentCliError, match="the first of 1, broken: decode_image"):
        roundtrip(tmp_path / "only")
