"""Writes the card of a store, and pictures of some of its latents, for a repository of the Hub."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.core.fields import CAPTION
from latentcli.core.options import check_options
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.stdio import STDOUT
from latentcli.jobs.store.card_file import HandWritten, license_of, merged
from latentcli.jobs.store.config import UNKNOWN, CardJob
from latentcli.jobs.store.contents import StoreContents
from latentcli.jobs.store.damaged_reader import ReadableStore
from latentcli.jobs.store.encode_command import encode_words, model_name
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.jobs.store.thumbnails import Thumbnail, thumbnails
from latentcli.models.presets import load_preset, preset_names
from latentcli.reports.dataset_card import card_text, front_matter
from latentcli.shards.layout import shard_name
from latentcli.shards.sources.own_output import MARK, OUTPUT
from latentcli.shards.storage.atomic_write import atomic_write
from latentcli.shards.storage.hub import is_of_hub
from latentcli.shards.storage.paths import AnyPath, is_remote, path_of, reading
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.roots import read_roots

CARD = "README.md"
PICTURES = "card"
"""Folder of the pictures, beside the card."""
NAMED_FIELDS = 20
"""Fields, beside the caption, that are counted by name."""
_PICTURE = re.compile(r"\d{3}\.png")


def run_card(job: CardJob, reporter: Reporter = SILENT, repo: str | None = None) -> dict[str, Any]:
    """The --json document of `card`; `repo` is the repository that it is for, where one is known.

    With `output` "-" the document has the text as "card", and no file is written. StoreError where
    there is no store, HandWritten where a person's words would be lost.
    """
    check_options(job)
    path = path_of(job.store)
    prints = job.output == STDOUT
    target = path / CARD if job.output in (None, STDOUT) else path_of(str(job.output))
    if is_of_hub(target) and not prints:
        raise UsageError("A card is not written to the Hub: write it here, with -o FILE, or push.")
    reporter.status("Reading the store")
    store, contents = ReadableStore(path), StoreContents()
    if store.manifest is None:
        raise UsageError(f"{path} is a single shard: name the folder of its store.")
    for unit in store.units():
        contents.add(unit)
    store.describe()
    old = None if prints else card_of(target)
    licence = job.license or (license_of(old) if old else None) or UNKNOWN
    shown, explained = ([], 0.0) if prints else thumbnails(store, job.pictures)
    facts = facts_of(store, contents, repo) | {
        "license": licence,
        "pictures": [
            {"file": f"{PICTURES}/{i:03d}.png", "key": item.key, "size": item.size}
            for i, item in enumerate(shown)
        ],
        "explained": explained,
    }
    front, text = front_matter(facts), card_text(facts)
    found = {"store": job.store} | {n: facts[n] for n in ("encoded", "captions", "license")}
    if prints:
        return found | {"card": merged(None, front, text), "path": None, "pictures": 0}
    new = new_card(target, old, front, text, job.force)
    if new != old:
        atomic_write(target, [new.encode()])
    write_pictures(target.parent / PICTURES, shown)
    return found | {"path": str(target), "pictures": len(shown)}


def card_of(path: AnyPath) -> str | None:
    """The text of a card; None where there is none."""
    if not path.exists():
        return None
    with reading(path):
        return path.read_bytes().decode("utf-8", "replace")


def new_card(path: AnyPath, old: str | None, front: str, text: str, force: bool) -> str:
    """The text of the file from now on; HandWritten where a person's words would be lost."""
    try:
        return merged(old, front, text, force=force)
    except HandWritten as error:
        raise HandWritten(f"{path} {error}") from error


def write_pictures(folder: AnyPath, shown: Sequence[Thumbnail]) -> None:
    """Writes the pictures into a folder with our mark, and drops those of an earlier card."""
    names = [f"{i:03d}.png" for i in range(len(shown))]
    if shown:
        folder.mkdir(exist_ok=True)
        if not (folder / MARK).exists():
            atomic_write(folder / MARK, [OUTPUT])
    for name, item in zip(names, shown, strict=True):
        atomic_write(folder / name, [item.png])
    for old in list[AnyPath](folder.glob("*.png")):
        if _PICTURE.fullmatch(old.name) and old.name not in names and (folder / MARK).exists():
            old.unlink(missing_ok=True)


def facts_of(store: ReadableStore, contents: StoreContents, repo: str | None) -> dict[str, Any]:
    """What the card says, but for its licence and pictures."""
    manifest = store.manifest
    assert manifest is not None
    spec, roots = manifest.spec, read_roots(store.path)
    with_field = count_fields(LatentStore(store.path))
    name = re.sub(r"[_.-]?latents$", "", store.path.name) or store.path.name or "latents"
    sources = source_names(roots.paths)
    there = store.presence
    return {
        "name": name,
        "repo": repo,
        "media": "clips" if "clips" in spec else "images",
        "encoded": contents.encoded,
        "format": manifest.format,
        "tool": manifest.tool,
        "latent_space": manifest.latent_space,
        "latent": manifest.latent,
        "state": spec["latents"]["state"],
        "dtype": spec["latents"].get("dtype", "bf16"),
        "flip": bool(spec["latents"].get("flip")),
        "clips": spec.get("clips"),
        "model": _model(manifest),
        "totals": manifest.to_json()["totals"],
        "preprocessing": manifest.preprocessing,
        "decode_image": spec["decode_image"],
        "channels": manifest.channels,
        "sizes": contents.to_json(int(manifest.latent["downscale"]))["buckets"]["items"],
        "sources": sources,
        "equal_members": manifest.format == "webdataset"
        and not manifest.tars
        and all(count == contents.encoded for count in with_field.values()),
        "captions": with_field.pop(CAPTION, 0),
        "fields": dict(with_field.most_common(NAMED_FIELDS)),
        "missing": "" if there.is_whole else there.describe(),
        "first_shard": shard_name(store.numbers[0] if store.numbers else 0, manifest.suffix),
        "command": encode_words(
            manifest, sources or ["SOURCES"], f"{name}.latents", captions=roots.captions
        ),
    }


def _model(manifest: Manifest) -> dict[str, Any]:
    name = model_name(manifest)
    preset = load_preset(name) if name in preset_names() else None
    return {
        **{key: manifest.model.get(key) for key in ("family", "repo", "revision")},
        "weights_sha256": manifest.model.get("weights_sha256"),
        "name": name,
        "licence": preset.licence if preset else None,
        "summary": preset.summary if preset else None,
    }


def count_fields(store: LatentStore) -> Counter[str]:
    """How many samples have each field; a caption counts where it is not empty."""
    found: Counter[str] = Counter()
    for unit, rows in store.rows_by_unit():
        for row in rows:
            if row.status == "ok":
                found.update(
                    n for n, v in store.fields(row.key, unit).items() if v not in ("", None)
                )
    return found


def source_names(roots: Iterable[str]) -> list[str]:
    """The sources by name: of a folder the last part of its path, of a public URL all but secrets.

    Paths of a machine, buckets, queries and what stands before an @ are nobody else's business.
    """
    names = []
    for root in roots:
        scheme, mark, rest = root.partition("://")
        if not mark or not is_remote(root):
            names.append(PurePosixPath(root).name or "files")
        elif scheme.lower() in ("hf", "http", "https"):
            place = rest.partition("?")[0]
            host, slash, inner = place.partition("/")
            host = host if scheme.lower() == "hf" else host.rpartition("@")[2]
            names.append(f"{scheme}://{host}{slash}{inner}")
        else:
            names.append(PurePosixPath(rest).name or scheme)
    return list(dict.fromkeys(names))
