"""Pushes a store to a dataset repository of the Hugging Face Hub, except what is there already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from latentcli.core.byte_size import byte_words
from latentcli.core.errors import HubError, IncompleteStore, StoreError, UsageError
from latentcli.core.options import check_options
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.store.card import CARD, PICTURES, run_card
from latentcli.jobs.store.card_file import HandWritten
from latentcli.jobs.store.config import CardJob, PushJob
from latentcli.jobs.store.push_files import StoreFiles, commits, store_files
from latentcli.shards.layout import MANIFEST
from latentcli.shards.storage.hub_repository import HubRepository
from latentcli.shards.storage.paths import RemotePath, path_of
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.manifest import Manifest, differing_fields, read_manifest
from latentcli.shards.store.presence import AGAIN, repair_advice
from latentcli.shards.store.reader import StoreReader

HUB = "https://huggingface.co"
FOLDER = 10_000
"""Files of a folder from which on the Hub is slow."""
SAFE = "What was committed is safe; the same command pushes the rest."


def run_push(job: PushJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """The --json document of `push`.

    No other job writes to the store meanwhile. IncompleteStore where it is not whole, HubError
    where the Hub refuses or is away, UsageError where the repository holds another store or would
    show what is private.
    """
    check_options(job)
    store = path_of(job.store)
    if not isinstance(store, Path):
        raise UsageError(f"{store} is remote: push takes a store in a folder of this machine.")
    read_manifest(store)
    repository = HubRepository(job.repo, job.branch)
    # Before the work: without a token all of it would be for nothing.
    reporter.status("Asking the Hub")
    repository.log_in()
    with StoreLock(store):
        reporter.status("Reading the store")
        manifest, units = pushable(store, job.allow_partial)
        files = store_files(store, units)
        refuse_secrets(files, job.show_sources)
        reporter.status("Writing the card")
        notes = [*refreshed_card(store, job.repo), *private_names(files, manifest)]
        files = StoreFiles(files.units, store_files(store, ()).rest)
        for note in notes:
            reporter.note(note)
        document = send(job, repository, files, manifest, reporter)
    return {"store": job.store, "latents": manifest.totals.encoded} | document | {"notes": notes}


def pushable(store: Path, allow_partial: bool) -> tuple[Manifest, Sequence[int]]:
    """The manifest and the units to push; IncompleteStore where that would not be all."""
    reader = StoreReader(store)
    manifest, there = reader.manifest, reader.look_closely()
    assert manifest is not None
    if there.is_whole and manifest.status == "complete":
        return manifest, there.units
    if not allow_partial:
        what = there.describe() or f"its manifest says {manifest.status}"
        raise IncompleteStore(
            f"{store} is not complete ({what}), so it is not pushed. {AGAIN} --allow-partial"
            " pushes what is there."
        )
    return manifest, there.units


def refuse_secrets(files: StoreFiles, show: bool) -> None:
    """UsageError where sources may tell secrets to whoever reads the repository."""
    if files.secret and not show:
        raise UsageError(
            f"Some sources of the store ({len(files.secret):,}) are shell commands or URLs with"
            " parameters. Everybody who can read the repository would see them, with any"
            " passwords in them. --show-sources pushes them anyway."
        )


def refreshed_card(store: Path, repo: str) -> list[str]:
    """Brings the card up to date; a note where it is a person's, and stays as it is."""
    # As many pictures as the card has that is there: whoever made it chose them.
    shown = len(list((store / PICTURES).glob("*.png"))) if (store / CARD).exists() else 12
    try:
        run_card(CardJob(store=str(store), pictures=shown), repo=repo)
    except HandWritten:
        return [f"{store / CARD} was written or changed by hand, and is pushed as it is."]
    return []


def private_names(files: StoreFiles, manifest: Manifest) -> list[str]:
    """What the store itself tells of this machine."""
    notes, name = [], str(manifest.model.get("name", ""))
    if files.absolute:
        notes.append(
            f"Some inputs ({files.absolute:,}) have absolute paths of this machine; these are"
            " pushed with the store."
        )
    if len(files.units) * 3 > FOLDER:
        notes.append(
            f"The store has {len(files.units):,} shards: the Hub advises against folders of more"
            f" than {FOLDER:,} files. A larger --samples-per-shard makes fewer."
        )
    if PurePath(name).is_absolute():
        notes.append(f"The store names its model by a path of this machine, {name}.")
    return notes


def send(
    job: PushJob,
    repository: HubRepository,
    files: StoreFiles,
    manifest: Manifest,
    reporter: Reporter,
) -> dict[str, Any]:
    """Makes the repository and commits what is missing there."""
    reporter.status("Asking the Hub")
    is_private = repository.make(job.private)
    if job.private and not is_private:
        raise UsageError(
            f"{job.repo} exists and is public: make it private in its settings, or push without"
            " --private."
        )
    there = repository.files()
    anew = False
    if MANIFEST in there:
        anew = is_other(job, manifest)
    message = job.message or f"{manifest.totals.encoded:,} latents of {manifest.latent_space}"
    todo = list(commits(files, there, anew=anew))
    total, sent, deleted = sum(one.size for group, _ in todo for one in group), 0, 0
    uploaded, commit = 0, None
    for number, (group, gone) in enumerate(todo, 1):
        reporter.status(f"Pushing {byte_words(sent)} of {byte_words(total)}")
        part = f" ({number} of {len(todo)})" if len(todo) > 1 else ""
        try:
            commit = repository.commit(group, gone, message + part)
        except HubError as error:
            raise HubError(f"{error} {SAFE}") from error
        except StoreError as error:
            raise StoreError(f"{error} {repair_advice(path_of(job.store))}") from error
        sent += sum(one.size for one in group)
        uploaded += len(group)
        deleted += len(gone)
    endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    return {
        "repo": job.repo,
        "revision": repository.branch,
        "private": is_private,
        "url": f"{endpoint}/datasets/{job.repo}",
        "open": f"hf://datasets/{job.repo}" + (f"@{_quoted(job.branch)}" if job.branch else ""),
        "commit": commit,
        "commits": len(todo),
        "files": len(files.names),
        "uploaded": uploaded,
        "deleted": deleted,
        "bytes": sent,
    }


def is_other(job: PushJob, manifest: Manifest) -> bool:
    """Whether the repository holds another store, which `force` replaces; without it UsageError."""
    where = RemotePath(f"hf://datasets/{job.repo}@{_quoted(job.branch or 'main')}")
    try:
        old = read_manifest(where)
    except StoreError as error:
        if job.force:
            return True
        raise UsageError(
            f"{job.repo} holds a store that cannot be resumed: {error} --force replaces it."
        ) from error
    if old.spec_hash == manifest.spec_hash:
        return False
    if not job.force:
        names = [name for name, *_ in differing_fields(old.spec, manifest.spec)][:5]
        raise UsageError(
            f"{job.repo} holds a store that was made with another spec ({', '.join(names)})."
            " Push to another repository; --force replaces it, and the history keeps the old one."
        )
    return True


def _quoted(branch: str) -> str:
    """A branch as it stands in a URL, where a slash would end it."""
    return branch.replace("/", "%2F")
