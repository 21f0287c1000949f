"""Writes the figures of a job to a file of Prometheus's text format, for its textfile collector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.jobs.runtime.events import END, PROGRESS, START, Event
from latentcli.jobs.runtime.follow_options import METRICS_OPTION, check_metrics
from latentcli.jobs.runtime.places import try_file

LABELS = ("verb", "store", "model")

Figure = Callable[[Event], float | None]


def seconds(event: Event) -> float:
    """When an event was, in seconds since 1970."""
    return datetime.fromisoformat(event["time"]).timestamp()


def field(name: str) -> Figure:
    """Gives a field of an event; None where it has none."""
    return lambda event: event.get(name)


METRICS: dict[str, tuple[str, Figure]] = {
    "items_done": ("Items that are finished, failed ones included.", field("done")),
    "items_total": ("Items in all, if their number is known.", field("total")),
    "items_failed": ("Items that failed.", field("failed")),
    "items_per_second": ("Rate since the file was last written.", field("rate")),
    "items_per_second_whole": ("Rate since the first batch.", field("rate_whole")),
    "eta_seconds": ("Seconds left, estimated.", field("eta")),
    "elapsed_seconds": ("Seconds since the job began.", field("elapsed")),
    "units_written": ("Units of the store that this job wrote.", field("units")),
    "bytes_written": ("Bytes of their shards.", field("bytes")),
    "running": (
        "1 while the job runs, 0 when it has ended.",
        lambda event: float(event["event"] != END),
    ),
    "exit_code": ("Exit code of the command, once it has ended.", field("exit_code")),
    "updated_seconds": ("When this was written, in seconds since 1970.", seconds),
}
"""Name, without latentcli_, of each metric of a job: its help and its value."""
STAGES = {
    "stage_items_per_second": ("Rate of a stage.", "rate"),
    "stage_busy": ("Threads of a stage that were busy on average.", "busy"),
    "stage_threads": ("Threads of a stage.", "threads"),
}
LIMIT = ("stage_is_limit", "1 if this is the slowest stage, which limits the job, else 0.")


class MetricsFile:
    """A file that is replaced as a whole, each time with the figures of the last event.

    UsageError for what can be no such file, and where prometheus_client is not installed.
    """

    patience = 10.0

    def __init__(self, text: str) -> None:
        check_metrics(text)
        try:
            import prometheus_client
        except ImportError:
            raise UsageError(
                f"{METRICS_OPTION} needs prometheus_client: pip install 'latentcli[prometheus]'."
            ) from None
        self.name = f"The metrics {text}"
        self._path = text
        self._event: Event | None = None
        self._write = prometheus_client.write_to_textfile
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(self)

    def check(self) -> None:
        """UsageError where no file can be made there."""
        try_file(METRICS_OPTION, self._path)

    def write(self, event: Event) -> None:
        """Replaces the file; OSError where that is refused."""
        if event["event"] in (START, PROGRESS, END):
            self._event = event
            self._write(self._path, self._registry)

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks for: each metric, with what is known of it."""
        from prometheus_client.core import GaugeMetricFamily

        event = self._event
        if event is None:
            return
        labels = [str(event.get(name) or "") for name in LABELS]
        for name, (text, figure) in METRICS.items():
            value = figure(event)
            if value is not None:
                family = GaugeMetricFamily(f"latentcli_{name}", text, labels=LABELS)
                family.add_metric(labels, value)
                yield family
        stages = event.get("stages", {})
        limit = {stage: {"limit": stage == event.get("bottleneck")} for stage in stages}
        for name, (text, key) in {**STAGES, LIMIT[0]: (LIMIT[1], "limit")}.items():
            family = GaugeMetricFamily(f"latentcli_{name}", text, labels=(*LABELS, "stage"))
            for stage, figures in stages.items():
                family.add_metric([*labels, stage], float((figures | limit[stage])[key] or 0))
            yield family
