"""Describes what a store or shard holds; it reads tensors only for a report.

What is no store but latents of another tool is described by `inspect_foreign`.
"""

from __future__ import annotations

from typing import Any

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.near_names import missing_latents
from latentcli.jobs.runtime.given_names import INSPECTED
from latentcli.jobs.runtime.report_folder import PAGE, check_report_folder, report_folder
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.store.contents import StoreContents
from latentcli.jobs.store.damaged_reader import ReadableStore
from latentcli.jobs.store.inspect_foreign import inspect_foreign
from latentcli.jobs.store.report import measure_store
from latentcli.jobs.store.sources import state_of_sources
from latentcli.jobs.store.writer import WriterWatch
from latentcli.latents.schema import store_dtype_of
from latentcli.reports.page import write_page
from latentcli.reports.store_page import store_page
from latentcli.shards.layout import INPUTS
from latentcli.shards.storage.atomic_write import writing
from latentcli.shards.storage.hub import pinned
from latentcli.shards.storage.paths import path_of, reading
from latentcli.shards.store.presence import AGAIN, repair_advice


def inspect_store(
    path: str, report: str | None = None, samples: int | None = None, reporter: Reporter = SILENT
) -> dict[str, Any]:
    """The --json document of `inspect`; StoreError where there is no store.

    What is damaged or missing is told, and not counted. With `report`, a folder, a page with
    figures of the latents is written there, and they are the document's "report". `samples` is the
    most samples that are read for it, 0 for all, None for the usual number. UsageError for a wrong
    folder or number.
    """
    if samples is not None and (samples < 0 or report is None):
        raise UsageError(
            f"--report-samples is {samples}; it is a number from 0 (all) on, and needs --report."
        )
    if report is not None:
        check_report_folder(report)
    where = path_of(path)
    with reading(where):
        where = pinned(where)
    if not where.exists():
        raise missing_latents(path, INSPECTED)
    reporter.status("Reading the store")
    foreign = inspect_foreign(where, report, reporter)
    if foreign is not None:
        return foreign
    store, contents = ReadableStore(where), StoreContents()
    for unit in store.units():
        contents.add(unit)
    store.describe()
    if report is None:
        return describe(path, store, contents)
    folder = report_folder(report)
    figures = measure_store(store, contents, folder, samples, reporter)
    document = describe(path, store, contents)
    document["report"] = {"path": str(folder / PAGE)} | figures
    with writing(folder / PAGE):
        write_page(folder / PAGE, store_page(document))
    return document


def describe(path: str, store: ReadableStore, contents: StoreContents) -> dict[str, Any]:
    """The document without a report."""
    clips = store.metadata.get("media") == "clips"
    sources = sources_of(store)
    found = {
        "store": path,
        "media": "clips" if clips else "images",
        "store_dtype": dtype_of(store),
        "encoded": sum(contents.sizes.values()),
        "frames": sum(shape[0] * n for shape, n in contents.sizes.items()) if clips else None,
        "captions": contents.captions,
        "failed": contents.failed,
        "latent_sizes": {"x".join(map(str, shape)): n for shape, n in contents.sizes.most_common()},
        "failures": contents.reasons.counts(10),
        "failure_examples": contents.reasons.examples(10),
        "filtered": contents.filters.total(),
        "filter_reasons": dict(contents.filters.most_common()),
        "metadata": dict(store.metadata),
        **gaps(store),
    }
    if store.manifest is None:
        return found
    writer = WriterWatch(store.path).look() if store.manifest.status == "running" else None
    told = {"writer": None if writer is None else writer.to_json(), "sources": sources}
    return store.manifest.to_json() | found | told


def dtype_of(store: ReadableStore) -> str:
    """What the latents are stored in; of a store without latents, what its spec says."""
    if store.manifest is not None:
        return store_dtype_of(store.manifest.spec)
    return store.metadata.get("store_dtype", "bf16")


def sources_of(store: ReadableStore) -> dict[str, Any] | None:
    """What has become of the inputs; None where there is no list of them that can be read."""
    if store.manifest is None or not (store.path / INPUTS).exists():
        return None
    try:
        return state_of_sources(store.path, store.manifest).to_json()
    except StoreError as error:
        store.damage.add(error)
        return None


def gaps(store: ReadableStore) -> dict[str, Any]:
    """What of a store cannot be read; "advice" is None where there is nothing to do about it.

    A job that is still writing is no damage.
    """
    there, damage = store.presence, store.damage
    said = there.describe() or "; ".join(text.removesuffix(".") for text in damage.sentences[:1])
    running = store.manifest is not None and store.manifest.status == "running"
    advice = None
    if there.damaged or there.without_fields or (there.missing and not running):
        advice = AGAIN
    elif damage.count:
        advice = repair_advice(store.path)
    return {
        "damaged": {"count": damage.count, "problems": damage.sentences},
        "missing": there.missing,
        "incomplete": said or None,
        "advice": advice,
    }
