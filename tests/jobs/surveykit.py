"""A folder of inputs and its store, whose units are committed as the encoder would."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from latentcli.core.types import Row
from latentcli.jobs.encode.findings import Ask, Survey
from latentcli.jobs.encode.survey import survey
from latentcli.jobs.encode.worklist import Work, finish_list, plan_work
from latentcli.jobs.loader.find_media import find_media
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import Contents, TarOrigin, commit_unit

SPEC, PER_SHARD = "5" * 64, 4
BAD = "a07"


class Job:
    """A folder of inputs and its store; it commits units as the encoder would."""

    def __init__(self, folder: Path, store: AnyPath, names: list[str]) -> None:
        self.folder, self.store = folder, store
        for name in names:
            self.write(name, f"bytes of {name}")
        (store / "shards").mkdir(parents=True)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def found(self):
        return find_media([str(self.folder)], "auto").inputs

    def look(self, **options: Any) -> Survey:
        before = tree(self.store)
        seen = survey(self.store, SPEC, self.found(), self.per_shard, Ask(**options))
        assert tree(self.store) == before
        return seen

    @property
    def per_shard(self) -> int:
        return 1 if self.found().packed else PER_SHARD

    def plan(self, reporter: Reporter = SILENT, **options: Any) -> Work:
        """Plans as the survey said it would."""
        seen, ask = self.look(**options), Ask(**options)
        work = plan_work(self.store, SPEC, self.found(), self.per_shard, ask, reporter)
        assert list(work.todo) == sorted(seen.todo)
        assert work.inputs_to_encode == seen.to_encode
        assert sum(reason.count for reason in seen.reasons.values()) == len(work.inputs)
        return work

    def encode(self, *units: int, **options: Any) -> Work:
        """Commits the given units, or all that are left."""
        work = self.plan(**options)
        for unit in units or sorted({*work.todo, *work.outdated}):
            rows, origin = [], None
            for item in work.inputs.rows(unit):
                path = Path(item.source)
                data = path.read_bytes() if path.exists() else b""
                sha256 = hashlib.sha256(data).hexdigest()
                if item.source.endswith(".tar"):
                    origin = TarOrigin(item.source, sha256, item.key)
                    names = [f"{item.key}/s0", f"{item.key}/{BAD}"]
                    rows += [row(name, f"{item.source}::{name}") for name in names]
                else:
                    rows.append(row(item.key, item.source, sha256))
            tensors = {f"{r.key}/latent": torch.zeros(1) for r in rows if r.status == "ok"}
            roots = work.inputs.roots
            contents = Contents(spec_hash=SPEC, rows=rows, origin=origin, roots=roots)
            commit_unit(self.store, unit, tensors, {}, contents)
        if not units:
            finish_list(self.store, work)
        return work


def row(key: str, source: str, sha256: str | None = None) -> Row:
    if key.endswith(BAD):
        return Row(key, source, "failed", stage="decode_image", error="cut", sha256=sha256)
    return Row(key, source, "ok", sha256=sha256)


def tree(store: AnyPath) -> dict[str, bytes]:
    if not isinstance(store, Path):
        return {path.url: path.read_bytes() for path, _ in store.find()} if store.exists() else {}
    return {str(path): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def counts(seen: Survey) -> dict[str, int]:
    return {name: reason.count for name, reason in seen.reasons.items() if reason.count}


def ten_pictures(folder: Path) -> Job:
    """Ten pictures in three units of 4, 4 and 2; a07 of the second is damaged."""
    return Job(folder / "in", folder / "store", [f"a{i:02d}.jpg" for i in range(10)])
