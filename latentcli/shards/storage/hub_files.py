"""Asks the Hugging Face Hub for files and listings as fsspec does, with as few requests as it can.

The Hub counts requests. Its own fsspec filesystem asks for a whole folder to learn of one file, and
reads megabytes ahead of a small range.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from latentcli.core.cached import cached
from latentcli.shards.storage.retry import Plain

MAIN = "main"
_TYPES = {"datasets": "dataset", "spaces": "space", "models": "model"}
_BARS = ("huggingface_hub.http_get", "huggingface_hub.xet_get")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SPECIAL = re.compile(r"(refs/(?:pr/\d+|convert/[^/]+))(?:/(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class HubPlace:
    """Where a file or folder lies in a repository of the Hub."""

    repo_type: str
    """dataset, space or model."""
    repo_id: str
    """Owner and name."""
    revision: str
    """Branch, tag or commit."""
    path: str
    """In the repository; empty for its root."""

    @property
    def is_pinned(self) -> bool:
        """Whether what lies there cannot change: the revision is a commit."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def prefix(self) -> str:
        """What stands in front of the repository's name in a path."""
        return "" if self.repo_type == "model" else f"{self.repo_type}s/"


def place_of(path: str) -> HubPlace | None:
    """The place of `datasets/owner/name@revision/path`; None of a bucket, which has no revisions.

    Without an owner or name it is FileNotFoundError.
    """
    kind, _, rest = path.partition("/")
    if kind == "buckets":
        return None
    if kind not in _TYPES:
        kind, rest = "models", path
    owner, _, rest = rest.partition("/")
    name, at, after = rest.partition("@") if "@" in rest.partition("/")[0] else (rest, "", "")
    if at:
        special = _SPECIAL.fullmatch(unquote(after))
        revision, _, inner = after.partition("/")
        if special:
            revision, inner = special[1], special[2] or ""
    else:
        name, _, inner = rest.partition("/")
        revision = MAIN
    if not owner or not name:
        raise FileNotFoundError(path)
    return HubPlace(_TYPES[kind], f"{owner}/{name}", unquote(revision), inner.strip("/"))


class HubFiles:
    """The Hub's fsspec filesystem, but for what that asks too often or reads too much of.

    Listings of a commit are kept, and nothing else. Buckets of the Hub are left to the filesystem.
    """

    def __init__(self, **options: Any) -> None:
        from huggingface_hub import HfFileSystem, utils

        web: Any = utils
        # A bar for each of thousands of shards is no news; uploads and models keep theirs.
        for name in _BARS:
            web.disable_progress_bars(name)
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._inner = HfFileSystem(endpoint=self._endpoint, **options)
        self._listings: dict[HubPlace, list[dict[str, Any]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @cached
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self._endpoint)

    def pinned(self, path: str) -> str | None:
        """The same path at the commit that its revision is now; None in a bucket."""
        place = place_of(path)
        if place is None:
            return None
        commit = self._api.repo_info(
            place.repo_id, repo_type=place.repo_type, revision=place.revision
        ).sha
        return f"{place.prefix}{place.repo_id}@{commit}/{place.path}".rstrip("/")

    def fetched(self, path: str) -> str:
        """A file's copy in the Hub's cache of this machine; it is downloaded if it is not there."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        place = _in_repository(path)
        try:
            return str(
                hf_hub_download(
                    place.repo_id,
                    place.path,
                    repo_type=place.repo_type,
                    revision=place.revision,
                    endpoint=self._endpoint,
                )
            )
        except LocalEntryNotFoundError as error:
            # The Hub's own client has tried again by now, for half a minute.
            cause = error.__cause__ or error
            raise Plain(errno.ETIMEDOUT, f"the Hub did not answer ({cause})") from cause

    def info(self, path: str) -> dict[str, Any]:
        """Name, size and type: one request, none where the commit's listing is at hand."""
        place = place_of(path)
        if place is None:
            self._inner.invalidate_cache()
            return dict(self._inner.info(path))
        if not place.path:
            if not place.is_pinned:
                self._api.repo_info(
                    place.repo_id, repo_type=place.repo_type, revision=place.revision
                )
            return {"name": path, "size": 0, "type": "directory"}
        if place.is_pinned:
            infos = [one for one in self.ls(path.rpartition("/")[0]) if one["name"] == path]
        else:
            found = self._api.get_paths_info(
                place.repo_id, [place.path], repo_type=place.repo_type, revision=place.revision
            )
            infos = [_described(path, one) for one in found]
        if not infos:
            raise FileNotFoundError(path)
        return infos[0]

    def ls(self, path: str, detail: bool = True) -> list[dict[str, Any]]:
        """Files and folders of a folder; a file itself. FileNotFoundError where neither is."""
        place = place_of(path)
        if place is None:
            self._inner.invalidate_cache()
            inner: Any = self._inner.ls(path, detail=True)
            return list(inner)
        if place in self._listings:
            return self._listings[place]
        root = path.removesuffix(place.path).rstrip("/")
        entries = self._entries(place)
        if not entries and place.path and not place.is_pinned:
            return [self.info(path)]
        if not entries and place.path:
            # A file; asked for from its folder, or this would go round in circles.
            inside = self.ls(path.rpartition("/")[0])
            own = [one for one in inside if one["name"] == path and one["type"] == "file"]
            if not own:
                raise FileNotFoundError(path)
            return own
        found = [_described(f"{root}/{one.path}", one) for one in entries]
        if place.is_pinned:
            self._listings[place] = found
        return found

    def _entries(self, place: HubPlace) -> list[Any]:
        """What a folder holds; nothing where it is a file, or there is no such folder."""
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return list(
                self._api.list_repo_tree(
                    place.repo_id,
                    place.path or None,
                    repo_type=place.repo_type,
                    revision=place.revision,
                )
            )
        except EntryNotFoundError:
            return []

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes of a file in one request, and no more of them than asked for."""
        if place_of(path) is None:
            return bytes(self._inner.cat_file(path, start=start, end=end))
        from huggingface_hub import hf_hub_url, utils

        web: Any = utils
        place = _in_repository(path)
        url = hf_hub_url(
            place.repo_id,
            place.path,
            repo_type=place.repo_type,
            revision=place.revision,
            endpoint=self._endpoint,
        )
        # A compressed answer would have no ranges.
        headers = {**web.build_hf_headers(), "Accept-Encoding": "identity"}
        if start is not None or end is not None:
            headers["Range"] = f"bytes={start or 0}-{'' if end is None else end - 1}"
        answer = web.get_session().get(url, headers=headers, follow_redirects=True)
        web.hf_raise_for_status(answer)
        return bytes(answer.content)


def _in_repository(path: str) -> HubPlace:
    place = place_of(path)
    if place is None:
        raise FileNotFoundError(path)
    return place


def _described(path: str, one: Any) -> dict[str, Any]:
    """An entry of a listing as fsspec describes it."""
    is_file = hasattr(one, "blob_id")
    size = one.size if is_file else 0
    return {"name": path, "size": size, "type": "file" if is_file else "directory"}
