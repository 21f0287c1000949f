"""The file of metrics, read back by Prometheus's own parser."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from latentcli.core.errors import UsageError
from latentcli.jobs.runtime.metrics_file import METRICS, MetricsFile

parser = pytest.importorskip("prometheus_client.parser")

FACTS = {"time": "2026-01-01T00:00:01.500Z", "verb": "encode", "store": 'a "b"\n', "model": None}
EVENT = FACTS | {
    "event": "progress",
    "done": 5,
    "total": None,
    "failed": 1,
    "units": 2,
    "bytes": 9,
    "rate": 2.5,
    "rate_whole": 2.0,
    "eta": None,
    "elapsed": 2.5,
    "bottleneck": "read",
    "stages": {
        "read": {"rate": 3.0, "busy": 1.5, "threads": 2},
        "write": {"rate": None, "busy": 0.0, "threads": 1},
    },
}


def read(path: Path) -> dict[tuple[str, str], float]:
    """Each value by name and stage."""
    families = list(parser.text_string_to_metric_families(path.read_text()))
    assert all(family.type == "gauge" and family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    labels = {"verb": "encode", "store": 'a "b"\n', "model": ""}
    assert all(sample.labels.items() >= labels.items() for sample in samples)
    return {(sample.name, sample.labels.get("stage", "")): sample.value for sample in samples}


def test_the_file_says_what_the_event_says(tmp_path):
    path = tmp_path / "job.prom"
    metrics = MetricsFile(str(path))
    metrics.write(EVENT)
    found = read(path)
    own = {
        name.removeprefix("latentcli_"): value
        for (name, stage), value in found.items()
        if not stage
    }
    assert own == {
        "items_done": 5,
        "items_failed": 1,
        "items_per_second": 2.5,
        "running": 1,
        "items_per_second_whole": 2,
        "elapsed_seconds": 2.5,
        "units_written": 2,
        "bytes_written": 9,
        "updated_seconds": 1767225601.5,
    }
    for name, values in {
        "stage_items_per_second": (3, 0),
        "stage_busy": (1.5, 0),
        "stage_threads": (2, 1),
        "stage_is_limit": (1, 0),
    }.items():
        got = tuple(found[f"latentcli_{name}", stage] for stage in ("read", "write"))
        assert got == values
    assert [path.name for path in tmp_path.iterdir()] == ["job.prom"]


def test_the_end_has_the_exit_code_and_notes_change_nothing(tmp_path):
    path = tmp_path / "job.prom"
    metrics = MetricsFile(str(path))
    metrics.write(EVENT | {"event": "end", "exit_code": 75})
    before = path.stat().st_ino
    found = read(path)
    assert (found["latentcli_running", ""], found["latentcli_exit_code", ""]) == (0, 75)
    metrics.write(FACTS | {"event": "note", "text": "x"})
    assert path.stat().st_ino == before


def test_before_there_are_figures(tmp_path):
    path = tmp_path / "job.prom"
    MetricsFile(str(path)).write(FACTS | {"event": "start", "done": None})
    assert {name for name, _ in read(path)} == {"latentcli_running", "latentcli_updated_seconds"}


def test_a_folder_that_is_gone_is_an_error_of_the_system(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    metrics = MetricsFile(str(folder / "job.prom"))
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        metrics.write(EVENT)


@pytest.mark.parametrize("text", ["job.txt", "s3://bucket/job.prom", "-"])
def test_what_can_be_no_file_of_metrics(text):
    with pytest.raises(UsageError, match=r"--metrics-file is .* ends in \.prom"):
        MetricsFile(text).check()


def test_without_the_library_one_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UsageError, match=r"pip install 'latentcli\[prometheus\]'"):
        MetricsFile(str(tmp_path / "job.prom"))


def test_the_page_lists_every_metric():
    page = Path(__file__).resolve().parents[3] / "docs" / "guides" / "watching.md"
    text = page.read_text(encoding="utf-8")
    assert [name for name in METRICS if f"`latentcli_{name}`" not in text] == []
