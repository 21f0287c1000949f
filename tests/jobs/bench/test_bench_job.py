"""Bench documents: one row per model, op, resolution and batch, and the stages of a whole job."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness.fake_gpu import fake_gpu
from jobkit import changed_model, toy_pictures

import latentcli.models
from latentcli.core.errors import LatentCliError, UsageError, WeightsError
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.bench.job import run_bench
from latentcli.jobs.bench.stages import per_second
from latentcli.jobs.inference.batch_size import LARGEST
from latentcli.jobs.runtime.model_cards import list_models
from latentcli.jobs.runtime.reporter import Reporter

KEYS = {
    "model",
    "op",
    "resolution",
    "batch",
    "ms_per_batch",
    "images_per_second",
    "peak_memory_mib",
    "speedup",
    "memory_reduction",
}


def bench(*models: str, **options: object) -> dict:
    settings = {"models": models, "device": "cpu", "repeats": 3, "warmup": 1}
    found = run_bench(BenchJob(**settings | options))
    json.dumps(found, allow_nan=False)
    return found


def test_one_row_per_case(model, other_model):
    found = bench(model, other_model, resolution=("32", "64x32"), batch=(1, 3))
    cases = [(r["model"], r["op"], r["resolution"], r["batch"]) for r in found["rows"]]
    models, sizes = (model, other_model), ("32x32", "64x32")
    assert sorted(cases) == sorted(itertools.product(models, ("encode", "decode"), sizes, (1, 3)))
    for row in found["rows"]:
        assert set(row) >= KEYS
        assert 0 < row["ms_min"] <= row["ms_per_batch"] <= row["ms_max"]
        rate = 1000 * row["batch"] / row["ms_per_batch"]
        assert row["images_per_second"] == pytest.approx(rate, rel=0.02)
        assert row["ms_min"] <= row["ms_p25"] <= row["ms_per_batch"] <= row["ms_p75"]
        assert row["repeats"] == 3
        assert 0.49 < row["peak_memory_mib"] < 20  # the weights alone are 0.498 MiB
        assert row["speedup"] is row["memory_reduction"] is None
    peaks = {(r["op"], r["resolution"], r["batch"]): r["peak_memory_mib"] for r in found["rows"]}
    assert peaks["encode", "64x32", 3] > peaks["encode", "32x32", 1]
    assert (found["device"], found["dtype"]) == ("cpu", "fp32")


def test_a_baseline(model, other_model):
    found = bench(other_model, baseline=model, resolution=("32",), batch=(2,), op="encode")
    rows = {row["model"]: row for row in found["rows"]}
    assert set(rows) == {model, other_model}
    assert (rows[model]["speedup"], rows[model]["memory_reduction"]) == (1.0, 0.0)
    told = rows[other_model]
    assert 0 < told["speedup_p25"] <= told["speedup"] <= told["speedup_p75"]
    assert told["memory_reduction"] == 0.0  # the same network with other weights
    assert found["baseline"] == model


def test_the_same_network_twice_takes_the_same_time(model, tmp_path):
    twin = changed_model(model, tmp_path / "twin", lambda state: None)
    found = bench(twin, baseline=model, resolution=("128",), batch=(4,), repeats=15)
    for row in found["rows"]:
        assert 0.5 < row["speedup"] < 2, row


def test_random_weights_need_no_checkpoint():
    found = bench("fcdm_nano", random_weights=True, resolution=("32",), batch=(1,), repeats=1)
    assert found["random_weights"] is True and len(found["rows"]) == 2
    assert found["models"] == [
        {"model": "fcdm_nano", "weights": "random", "parameters": found["models"][0]["parameters"]}
    ]


def test_missing_weights_name_the_flag(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("LATENTCLI_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match=r"full_capacitor(.|\n)*--random-weights"):
        bench("full_capacitor", resolution=("32",))


def test_the_document_says_what_the_figures_depend_on(model):
    found = bench(model, resolution=("32",), batch=(1,), repeats=2)
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"] and found["cores"] >= 1
    assert (found["compiled"], found["warmup"], found["repeats"]) == (False, 1, 2)
    assert found["flags"] is found["driver"] is found["cuda"] is None
    assert set(found["load"]) == set(found["clocks"]) == {"before", "after"}
    assert found["models"][0]["weights"] == "folder"
    assert "oneDNN" in found["memory"]


def test_usage(model, tmp_path):
    def drop(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith("encoder.")]:
            del state[name]

    decoder = changed_model(model, tmp_path / "decoder", drop)
    with pytest.raises(UsageError, match="multiples of 16"):
        bench(model, resolution=("40",))
    with pytest.raises(UsageError, match="None of the models can encode"):
        bench(decoder, op="encode", resolution=("32",))
    rows = bench(decoder, resolution=("32",), batch=(1,), repeats=1)["rows"]
    assert [row["op"] for row in rows] == ["decode"]
    beside = bench(decoder, baseline=model, resolution=("32",), batch=(1,), repeats=1)
    assert beside["left_out"] == [{"model": decoder, "op": "encode", "reason": "it has no encoder"}]
    assert [(row["model"], row["op"]) for row in beside["rows"]] == [
        *((model, "encode"), (decoder, "decode"), (model, "decode"))
    ]
    folder = (str(tmp_path),)
    with pytest.raises(UsageError, match="real files"):
        bench(model, stages=True)
    with pytest.raises(UsageError, match="--size"):
        bench(model, stages=True, sources=folder)
    with pytest.raises(UsageError, match="takes no --compile"):
        bench(model, stages=True, sources=folder, size="32", compile="on")
    with pytest.raises(UsageError, match="one --model"):
        bench(model, decoder, stages=True, sources=folder, size="32")


def test_weights_of_each_model(model, other_model):
    texts = (f"fcdm_nano={model}", f"linear16={other_model}")
    with pytest.raises(WeightsError, match="weights of something else"):
        bench(*texts, resolution=("32",))  # each has its own path: of another network here
    with pytest.raises(UsageError, match="--weights belongs to one model"):
        bench("fcdm_nano", "linear16", weights=model)
    with pytest.raises(UsageError, match="--revision belongs to one model"):
        bench("fcdm_nano", baseline="linear16", revision="main")
    with pytest.raises(UsageError, match="the same name"):
        bench("fcdm_nano", baseline=f"fcdm_nano={model}")
    bundled = Path(latentcli.models.__file__).parent / "bundled" / "linear16"
    found = bench(
        f"linear16={bundled}",
        baseline=f"fcdm_nano={bundled.parent / 'fcdm_nano'}",
        resolution=("32",),
        batch=(1,),
        repeats=1,
        op="encode",
    )
    assert [row["model"] for row in found["rows"]] == ["linear16", "fcdm_nano"]
    assert all(row["speedup"] for row in found["rows"])


def test_options_of_the_other_form_are_refused(model):
    with pytest.raises(UsageError, match="say --resolution"):
        bench(model, size="32")
    with pytest.raises(UsageError, match="say --batch"):
        bench(model, batch_size=4)


def test_inputs_that_no_memory_holds(model):
    with pytest.raises(LatentCliError, match=r"ran out of memory in encode of 64x64, batch 10{9}"):
        bench(model, resolution=("64",), batch=(10**9,))


def test_a_chart_that_cannot_be_written_costs_no_figures(model, tmp_path):
    pytest.importorskip("matplotlib")
    place = tmp_path / "charts"
    place.mkdir()

    def progress(_snapshot: object) -> None:
        if place.is_dir():  # the folder goes while the models are timed
            place.rmdir()

    job = BenchJob(models=(model,), device="cpu", repeats=1, resolution=("32",), batch=(1,))
    found = run_bench(replace(job, chart=str(place / "a.png")), Reporter(progress=progress))
    assert len(found["rows"]) == 2 and "chart" not in found
    assert found["chart_error"].startswith(
        f"The chart {place / 'a.png'} could not be made: No such"
    )
    with pytest.raises(UsageError, match="which is a folder"):
        (tmp_path / "b.png").mkdir()
        run_bench(replace(job, chart=str(tmp_path / "b.png")))


@pytest.mark.parametrize("name", ["page", "speed.html"])
def test_a_page_is_a_folder_or_a_file(model, tmp_path, name):
    job = BenchJob(models=(model,), device="cpu", repeats=1, resolution=("32",), batch=(1,))
    for _ in range(2):  # an earlier page is replaced
        found = run_bench(replace(job, report=str(tmp_path / name)))
        page = tmp_path / name / "index.html" if name == "page" else tmp_path / name
        assert found["page"] == str(page)
        assert "Time of a batch, 32x32, batch 1" in page.read_text()
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    for taken, said in {"mine.html": "is not a page of latentcli", "mine": "holds other"}.items():
        with pytest.raises(UsageError, match=said):
            run_bench(replace(job, report=str(tmp_path / taken)))
    with pytest.raises(UsageError, match="--stages takes no --report"):
        run_bench(replace(job, report=str(tmp_path / name), stages=True, sources=("x",)))


def test_a_page_that_cannot_be_written_costs_no_figures(model, tmp_path):
    place = tmp_path / "pages"
    place.mkdir()

    def progress(_snapshot: object) -> None:
        if place.is_dir():  # the folder goes while the models are timed
            place.rmdir()

    job = BenchJob(models=(model,), device="cpu", repeats=1, resolution=("32",), batch=(1,))
    found = run_bench(replace(job, report=str(place / "a.html")), Reporter(progress=progress))
    assert len(found["rows"]) == 2 and "page" not in found
    assert str(place / "a.html") in found["report_error"]


def test_stages(model, tmp_path):
    pictures = toy_pictures(tmp_path / "pictures", 40, bad_every=20)
    settings = {"sources": (str(pictures),), "size": "32", "batch_size": 4, "workers": 1}
    found = bench(model, stages=True, **settings)
    assert (found["inputs"], found["workers"], found["batch_size"]) == (40, 1, 4)
    assert set(found["stages"]) == {"read", "decode_image", "preprocess", "encode", "write"}
    for stage in found["stages"].values():
        assert stage["seconds"] > 0 and stage["items"] in (38, 40) and stage["per_second"] > 0
    slower = min(found["image_stages_alone"], found["model_alone"])
    assert found["ratio"] == pytest.approx(found["job"] / slower, rel=0.01)
    assert found["bottleneck"] in found["stages"]
    assert found["startup_seconds"] > 0


def test_stages_of_a_gpu_time_what_the_job_does(tmp_path, monkeypatch):
    """The job's batch size; and the model alone neither copies nor waits, until the very end."""
    pictures = toy_pictures(tmp_path / "pictures", 12)
    settings = {"sources": (str(pictures),), "size": "32", "workers": 0, "device": "cuda:0"}
    with fake_gpu(monkeypatch) as gpu:
        found = bench("linear16", stages=True, dtype="fp32", **settings)
    assert found["batch_size"] == LARGEST
    calls = [call.what for call in gpu.calls]
    begin, end = (i for i, what in enumerate(calls) if what == "synchronize")
    assert begin < calls.index("mark")  # the marks are those of the whole job
    between = calls[begin + 1 : end]
    assert "conv2d" in between and not {"pin", "to device", "to host", "wait"} & set(between)
    # The job's only batch, on its way in and back.
    assert calls.count("pin") == calls[:begin].count("pin") + 2


@pytest.mark.parametrize("count", [3, 60])
def test_stages_without_workers(model, tmp_path, count):
    """Rates are what the clock says: neither zero with a single chunk nor counted from boot."""
    pictures = toy_pictures(tmp_path / "pictures", count)
    settings = {"sources": (str(pictures),), "size": "32", "batch_size": 4, "workers": 0}
    found = bench(model, stages=True, **settings)
    busy = sum(found["stages"][s]["seconds"] for s in ("read", "decode_image", "preprocess"))
    assert 0.1 * count / busy < found["image_stages_alone"] < 10 * count / busy
    assert found["ratio"] > 0


def test_stages_of_nothing(model, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    settings = {"sources": (str(tmp_path),), "size": "32", "workers": 0}
    with pytest.raises(LatentCliError, match="None of the inputs"):
        bench(model, stages=True, **settings)


def test_image_stages_count_for_all_workers():
    stage = {"seconds": 2.0, "items": 10}
    assert per_second("decode_image", stage, 4) == 20.0
    assert per_second("encode", stage, 4) == 5.0
    assert per_second("encode", {"seconds": 0.0, "items": 0}, 4) is None


def test_the_catalogue_is_plain():
    found = list_models()
    json.dumps(found, allow_nan=False)
    cards = {card["name"]: card for card in found}
    assert cards["full_capacitor"]["parameters"] == 114_690_816
    assert cards["full_capacitor"]["size_divisor"] == 32
    assert cards["capacitor_decoder"]["can_encode"] is False
    wanted = {
        "name",
        "family",
        "parameters",
        "latent_channels",
        "downscale",
        "size_divisor",
        "latent_space",
        "can_encode",
        "can_decode",
        "weights",
    }
    assert all(wanted <= set(card) for card in found)
