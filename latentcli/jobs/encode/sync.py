"""Brings a store up to date with its inputs without encoding: drops, renames, reports the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.options import check_options
from latentcli.core.types import InputRow
from latentcli.jobs.config import SyncJob
from latentcli.jobs.encode.findings import Ask, Survey
from latentcli.jobs.encode.rewrite import rewrite_all
from latentcli.jobs.encode.survey import survey
from latentcli.jobs.encode.texts import refresh_texts
from latentcli.jobs.encode.worklist import Work, finish_list, relisted, some
from latentcli.jobs.loader.find_media import SUFFIXES, Choice, find_media, scan_of
from latentcli.jobs.loader.readers import is_lasting, packed_suffixes
from latentcli.jobs.runtime.failures import allowed_failures
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import stop_on_signals
from latentcli.jobs.runtime.stdio import STDIN
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import INPUTS
from latentcli.shards.sources.file_list import FoundInputs
from latentcli.shards.sources.find_inputs import expand_sources, inputs_of
from latentcli.shards.sources.own_output import is_own
from latentcli.shards.storage.paths import AnyPath, is_remote, path_of
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.manifest import (
    FORMAT_VERSION,
    Manifest,
    read_manifest,
    write_manifest,
)
from latentcli.shards.store.roots import read_roots
from latentcli.shards.store.settle import delete_unit, mark_units
from latentcli.shards.store.writer import finish, open_for_writing

SHOWN = 20
"""Sources in the document."""


def run_sync(job: SyncJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Drops what the sources no longer give, and names what has another name; the document.

    Shards are written anew from themselves, and only those of inputs that are concerned. What is
    new or changed is counted, for encode. StoreError where there is no store, or more would be
    dropped than the job allows; UsageError where the sources are not there.
    """
    check_options(job)
    store = path_of(job.store)
    manifest = read_manifest(store)
    with stop_on_signals("Run the same command again to finish the rest.") as stop:
        if job.dry_run:
            found = found_now(job, store, manifest)
            now = looked_at(job, store, manifest, found)
            return document(job, manifest, now, gone_of(job, now))
        with StoreLock(store) as lock:
            if not lock.held:
                reporter.note(f"{store} cannot be locked: check that no other job writes to it.")
            open_for_writing(store, manifest)
            found = found_now(job, store, manifest)
            stop.check()

            def check() -> None:
                stop.check()
                lock.check()

            return synced(job, store, read_manifest(store), found, check)


def synced(
    job: SyncJob,
    store: AnyPath,
    manifest: Manifest,
    found: FoundInputs,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Does it; call it under the store's lock. `check` ends it where it is to stop, or the store
    is another job's by now."""
    began = time.perf_counter()
    now = looked_at(job, store, manifest, found)
    gone = gone_of(job, now)
    frozen = now.frozen
    assert frozen is not None
    check_drop(job, gone, len(frozen))
    dropped = {row.source for row in gone}
    left = left_units(frozen, gone)
    emptied = {row.unit for row in gone} - left
    outdated = sorted(({row.unit for row in gone} & left) | set(now.outdated))
    broken = set(now.todo) - {row.unit for row in now.new}
    changes = gone or outdated or now.texts or now.at_end or now.at_once or now.moved
    # A sync that was killed last may have left nothing but to say that the store is complete.
    if not changes and (manifest.status == "complete" or broken):
        return document(job, manifest, now, gone) | {"seconds": since(began)}
    check()
    write_manifest(store, replace(manifest, status="running", format_version=FORMAT_VERSION))
    mark_units(store, sorted(emptied))
    inputs = relisted(store, frozen, now, dropped=dropped)
    for unit in sorted(emptied):
        delete_unit(store, unit, manifest.suffix)
    for _ in rewrite_all(store, manifest, inputs, [u for u in outdated if u not in broken]):
        check()
    texts = [unit for unit in now.texts if unit not in emptied]
    for _ in refresh_texts(store, manifest, inputs, texts, now.companions):
        check()
    finish_list(store, Work(inputs, (), at_end=now.at_end))
    unfinished = sorted(broken - emptied)
    if not unfinished:
        units = InputList.open(store / INPUTS).numbers
        manifest = finish(store, read_manifest(store), units, ChannelSums())
    told = document(job, manifest, now, gone)
    return told | {
        "rewritten": len([unit for unit in outdated if unit not in broken]),
        "deleted": len(emptied),
        "unfinished": len(unfinished),
        "seconds": since(began),
    }


def since(began: float) -> float:
    """Seconds."""
    return round(time.perf_counter() - began, 3)


def looked_at(job: SyncJob, store: AnyPath, manifest: Manifest, found: FoundInputs) -> Survey:
    """What the store's inputs are today; StoreError where it has no list of them."""
    if not (store / INPUTS).exists():
        raise StoreError(f"{store} has no {INPUTS}: run the encode command that makes the store.")
    captions = read_roots(store).captions
    ask = Ask(retry="none", rekey=bool(job.sources), captions=captions)
    return survey(store, manifest.spec_hash, found, 1, ask)


def found_now(job: SyncJob, store: AnyPath, manifest: Manifest) -> FoundInputs:
    """The inputs of the sources, or of the folders where they were."""
    media = "clips" if "clips" in manifest.spec else "images"
    if STDIN in job.sources:
        raise UsageError(
            "A stream on standard input cannot show which inputs are gone. Name the folders or"
            " tars of the store."
        )
    if job.sources:
        found = find_media(job.sources, media)
        refuse_closed(found.left_out_by)
        return found.inputs
    roots = read_roots(store).paths
    missing = [root for root in roots if not is_remote(root) and not path_of(root).exists()]
    if missing:
        raise UsageError(
            f"{missing[0]} is not there, where the inputs of the store were. Mount it, or say where"
            f" they are now: latentcli sync {job.store} SRC."
        )
    suffixes = packed_suffixes() if manifest.tars else SUFFIXES[media]
    scan = replace(scan_of(media, Choice()), suffixes=suffixes)
    expanded = expand_sources(roots, scan)
    refuse_closed(scan.left_out.counts)
    return inputs_of(expanded, packed=manifest.tars)


def refuse_closed(left_out: Mapping[str, int]) -> None:
    """UsageError where folders cannot be looked into: their inputs would seem to be gone."""
    if closed := left_out.get("unreadable_folders"):
        raise UsageError(
            f"{closed:,} {'folder' if closed == 1 else 'folders'} of the sources cannot be listed"
            " by this user, so it is not known what is still there. Nothing was changed;"
            " latentcli plan names them."
        )


def gone_of(job: SyncJob, now: Survey) -> list[InputRow]:
    """The inputs to drop. Without sources of the job, those whose files are no longer there.

    What --include-output took is there as long as its file is.
    """
    lasting = [row for row in now.gone if is_lasting(row.source)]
    if job.sources:
        return [row for row in lasting if is_remote(row.source) or not is_own(row.source)]
    return [row for row in lasting if not path_of(row.source).exists()]


def check_drop(job: SyncJob, gone: Sequence[InputRow], inputs: int) -> None:
    """StoreError where more would be dropped than the job allows."""
    allowed = allowed_failures(job.max_drop, inputs)
    if len(gone) > allowed:
        raise StoreError(
            f"{len(gone):,} of the {inputs:,} inputs are no longer there, such as"
            f" {some(row.source for row in gone)}, and --max-drop {job.max_drop} allows"
            f" {allowed:,}. Nothing was changed: check that the whole dataset is there, or give a"
            " larger --max-drop."
        )


def left_units(frozen: InputList, gone: Iterable[InputRow]) -> set[int]:
    """Units that keep an input."""
    lost = dict[int, int]()
    for row in gone:
        lost[row.unit] = lost.get(row.unit, 0) + 1
    return {unit for unit in frozen.numbers if frozen.count(unit) > lost.get(unit, 0)}


def document(
    job: SyncJob, manifest: Manifest, now: Survey, gone: Sequence[InputRow]
) -> dict[str, Any]:
    """The --json document of `sync`."""
    return {
        "store": job.store,
        "dry_run": job.dry_run,
        "inputs": manifest.totals.inputs,
        "encoded": manifest.totals.encoded,
        "failed": manifest.totals.failed,
        "filtered": manifest.totals.filtered,
        "dropped": len(gone),
        "dropped_sources": [row.source for row in gone[:SHOWN]],
        "renamed": now.counts["renamed"],
        "moved": now.moved,
        "copied": now.copied,
        "texts": len(now.texts),
        "changed": now.counts["changed"],
        "new": now.counts["new"] if job.sources else None,
        "rewritten": 0,
        "deleted": 0,
        "unfinished": len(now.todo) - len({row.unit for row in now.new}),
        "seconds": 0.0,
    }
