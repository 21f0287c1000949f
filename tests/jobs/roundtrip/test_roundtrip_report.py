"""The files of a report are the pixels, their exact differences, and the colours of the latents."""

from __future__ import annotations

import io
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from clipkit import clips_in, cut
from harness.clip_files import make_clip
from jobkit import encode, latents_of, pictures_of, toy_pictures
from PIL import Image

from latentcli.core.errors import LatentCliError, StoreError, UsageError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.roundtrip.report import ReportWriter, at_most
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.latents.pca import ChannelMoments, colours, fit


def roundtrip(source: object, *models: str, **options: object) -> dict:
    settings = {"sources": (str(source),), "models": models, "device": "cpu", "workers": 0}
    return run_roundtrip(RoundtripJob(**settings | options))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def made(tmp_path_factory, mixed, model, other_model):
    """One report, its document and what --save wrote beside it."""
    root = tmp_path_factory.mktemp("report")
    told = roundtrip(
        mixed, model, other_model, report=str(root / "page"), save=str(root / "saved"), size="64x48"
    )
    return root, told


def files_of(root: Path) -> list[str]:
    return sorted(
        str(p.relative_to(root / "page/files")) for p in (root / "page/files").rglob("*.*")
    )


def test_every_image_has_its_files(made):
    root, told = made
    kinds = ["original.webp", "thumb.webp"]
    kinds += [f"{m}.{what}" for m in (0, 1) for what in ("diff.jpg", "pca.png", "webp")]
    expected = [f"000/{i:06d}.{kind}" for i in range(23) for kind in kinds]
    assert files_of(root) == sorted(["about.txt", *expected])
    assert told["page"] == str(root / "page/index.html") and Path(told["page"]).is_file()


def test_pixels_are_exact_and_the_difference_is_theirs(made, mixed):
    root, told = made
    keys = [row["key"] for row in told["models"][0]["worst"]]
    index = told["models"][0]["worst"][0]["index"]
    base = root / "page/files/000"
    original = pixels(base / f"{index:06d}.original.webp")
    for m, name in enumerate(("toy", "other")):
        back = pixels(base / f"{index:06d}.{m}.webp")
        np.testing.assert_array_equal(back, pixels(root / "saved" / name / f"{keys[0]}.png"))
        shown = pixels(base / f"{index:06d}.{m}.diff.jpg")
        exact = np.clip(128 + 4 * (back - original), 0, 255)
        assert np.abs(shown - exact).mean() < 4  # a JPEG of noise
        error = np.square(back - original).mean()
        told_psnr = told["models"][m]["psnr"]
        assert told_psnr["min"] - 1e-3 <= 10 * np.log10(255**2 / error) <= told_psnr["max"] + 1e-3
    assert max(Image.open(base / f"{index:06d}.thumb.webp").size) <= 192


def test_colours_are_of_one_basis_over_the_set(made, mixed, other_model, tmp_path):
    root, told = made
    encode(mixed, tmp_path / "store", other_model, size="64x48")
    stored = latents_of(tmp_path / "store")
    moments = ChannelMoments()
    for latent in stored.values():
        moments.add(latent[None])
    basis = fit(moments)
    assert told["models"][1]["pca_explained"] == pytest.approx(basis.explained, abs=2e-3)
    worst = told["models"][1]["worst"][0]
    expected = colours(stored[f"{worst['key']}/latent"][None], basis)[0].permute(1, 2, 0).numpy()
    found = pixels(root / "page/files/000" / f"{worst['index']:06d}.1.pca.png")
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 3


def test_a_shared_encoder_is_shown_once_for_each(tmp_path, model):
    """The same colours for both, from one spool."""
    from jobkit import changed_model

    def louder(state: dict[str, torch.Tensor]) -> None:
        for name in state:
            if name.startswith("decoder.") and state[name].is_floating_point():
                state[name] = state[name] * 1.05

    twin = changed_model(model, tmp_path / "twin", louder)
    toy_pictures(tmp_path / "p", 3)
    told = roundtrip(tmp_path / "p", model, twin, report=str(tmp_path / "page"))
    assert [entry["encoder"] for entry in told["models"]] == ["toy", "toy"]
    base = tmp_path / "page/files/000"
    for i in range(3):
        first, second = (base / f"{i:06d}.{m}.pca.png" for m in (0, 1))
        assert first.read_bytes() == second.read_bytes()
        assert (base / f"{i:06d}.0.webp").read_bytes() != (base / f"{i:06d}.1.webp").read_bytes()


def test_a_clip_that_fails_leaves_nothing_in_the_report(tmp_path):
    source = clips_in(tmp_path / "clips", [4, 3])
    cut(make_clip(tmp_path / "long.mp4", 60), source / "c00cut.mp4")
    found = roundtrip(source, "linear16", report=str(tmp_path / "page"))
    alone = clips_in(tmp_path / "alone", [4, 3])
    roundtrip(alone, "linear16", report=str(tmp_path / "clean"))
    assert found["images"] == 7
    for path in (tmp_path / "clean/files").rglob("*.*"):
        other = tmp_path / "page/files" / path.relative_to(tmp_path / "clean/files")
        assert other.read_bytes() == path.read_bytes(), path.name
    count = len(list((tmp_path / "clean/files").rglob("*.*")))
    assert len(list((tmp_path / "page/files").rglob("*.*"))) == count


def test_a_report_is_replaced_and_other_things_are_kept(tmp_path, model):
    toy_pictures(tmp_path / "p", 3)
    page = tmp_path / "page"
    roundtrip(tmp_path / "p", model, report=str(page))
    (tmp_path / "p" / "000" / "000001.png").unlink(missing_ok=True)
    roundtrip(tmp_path / "p", model, report=str(page), size="32")
    assert Image.open(page / "files/000/000000.original.webp").size == (32, 32)
    (page / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other things \(.*notes\.txt"):
        roundtrip(tmp_path / "p", model, report=str(page))
    assert (page / "notes.txt").read_text() == "mine"


def test_a_large_latent_is_averaged(tmp_path):
    latent = torch.arange(2 * 128 * 96, dtype=torch.float32).view(2, 128, 96)
    small = at_most(latent, 64)
    assert small.shape == (2, 64, 48)
    assert small.mean().item() == pytest.approx(latent.mean().item())
    assert at_most(latent, 128) is latent


def test_a_folder_that_cannot_be_written_is_one_plain_error(tmp_path):
    writer = ReportWriter(str(tmp_path / "page"), [[0]], 4.0)
    picture, latent = torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(4, 2, 2)
    with closing(writer), pytest.raises(StoreError, match=r"cannot be written to .*page"):
        writer.add(0, picture, [picture], [latent])
        (tmp_path / "page/files/001").write_text("a file where a folder belongs")
        for index in range(1000, 1003):
            writer.add(index, picture, [picture], [latent])
        writer.finish(1003, lambda: iter(()), {"models": [{"model": "m"}]})
    assert not list((tmp_path / "page/files").glob("*.tmp"))


def test_an_earlier_page_stays_until_there_is_a_picture_for_a_new_one(tmp_path, model):
    toy_pictures(tmp_path / "p", 2)
    roundtrip(tmp_path / "p", model, report=str(tmp_path / "page"))
    before = {p: p.read_bytes() for p in (tmp_path / "page").rglob("*.*")}
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.jpg").write_bytes(b"no picture")
    with pytest.raises(LatentCliError, match="No input could be used"):
        roundtrip(tmp_path / "bad", model, report=str(tmp_path / "page"))
    assert {p: p.read_bytes() for p in (tmp_path / "page").rglob("*.*")} == before


def test_a_page_that_cannot_be_written_costs_no_figures(tmp_path, model, monkeypatch):
    """A folder takes the place of the page while the pictures stream."""
    toy_pictures(tmp_path / "p", 3)
    reporter = Reporter(
        progress=lambda _: (tmp_path / "page/index.html/x").mkdir(parents=True, exist_ok=True)
    )
    job = RoundtripJob(
        sources=(str(tmp_path / "p"),),
        models=(model,),
        device="cpu",
        workers=0,
        report=str(tmp_path / "page"),
        csv=str(tmp_path / "f.csv"),
    )
    told = run_roundtrip(job, reporter)
    assert told["images"] == 3 and told["models"][0]["psnr"]["mean"] > 0
    assert (tmp_path / "f.csv").is_file()
    assert len(told["problems"]) == 1 and "page" in told["problems"][0]


def test_thumbnails_are_pictures(made):
    root, _ = made
    data = (root / "page/files/000/000000.thumb.webp").read_bytes()
    image = Image.open(io.BytesIO(data))
    assert image.format == "WEBP" and image.size == (64, 48)
    assert pictures_of(root / "saved" / "toy")


def test_pictures_of_a_clip_that_failed_never_come_late(tmp_path):
    """Large ones are still being written when smaller ones take their places."""
    writer = ReportWriter(str(tmp_path / "page"), [[0]], 4.0)
    large = torch.randint(0, 256, (3, 1500, 1500), dtype=torch.uint8)
    small, latent = torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(4, 2, 2)
    with closing(writer):
        mark = writer.mark()
        writer.add(0, large, [large], [latent])
        writer.back_to(mark)
        writer.add(0, small, [small], [latent])
        (tmp_path / "page/files/000/.DS_Store").write_text("of another program")
        settings = {"difference_gain": 4.0}
        told = {"models": [{"model": "m"}], "measures": [], "images": 1, "settings": settings}
        writer.finish(1, lambda: iter(()), told)
    base = tmp_path / "page/files/000"
    assert Image.open(base / "000000.original.webp").size == (32, 32)
    assert Image.open(base / "000000.0.webp").size == (32, 32)
    assert (base / ".DS_Store").exists()


def test_large_pictures_wait_in_bounded_memory(tmp_path, monkeypatch):
    """However slow the disk is; one picture larger than the bound still passes."""
    size = 3 * 96 * 96
    monkeypatch.setattr("latentcli.jobs.roundtrip.report.BEHIND_BYTES", 5 * size)
    writer = ReportWriter(str(tmp_path / "page"), [[0]], 4.0)
    most = 0
    with closing(writer):
        for index in range(12):
            picture = torch.zeros(3, 96, 96, dtype=torch.uint8)
            writer.add(index, picture, [picture], [torch.zeros(4, 2, 2)])
            most = max(most, sum(writer._waiting))
        large = torch.zeros(3, 300, 300, dtype=torch.uint8)
        writer.add(12, large, [large], [torch.zeros(4, 2, 2)])
    assert most == 4 * size


def test_figures_that_cannot_be_written_cost_no_page(tmp_path, model):
    """The folder of the CSV file goes away while the pictures stream."""
    toy_pictures(tmp_path / "p", 3)
    (tmp_path / "figures").mkdir()
    reporter = Reporter(progress=lambda _: shutil.rmtree(tmp_path / "figures", ignore_errors=True))
    job = RoundtripJob(
        sources=(str(tmp_path / "p"),),
        models=(model,),
        device="cpu",
        workers=0,
        report=str(tmp_path / "page"),
        csv=str(tmp_path / "figures/f.csv"),
    )
    told = run_roundtrip(job, reporter)
    assert Path(told["page"]).is_file() and told["csv"] is None
    assert len(told["problems"]) == 1 and "f.csv" in told["problems"][0]
