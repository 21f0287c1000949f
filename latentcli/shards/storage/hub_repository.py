"""Writes to a dataset repository of the Hugging Face Hub: makes it, lists it and commits to it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from latentcli.core.cached import cached
from latentcli.core.errors import HubError, StoreError
from latentcli.shards.storage.filesystem import plain
from latentcli.shards.storage.hub_files import MAIN
from latentcli.shards.storage.retry import answered, retrying

Result = TypeVar("Result")

LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token with write access."


@dataclass(frozen=True, slots=True)
class HubEntry:
    """A file of a repository."""

    size: int
    oid: str
    """Git's SHA-1 of it."""
    sha256: str | None
    """Of its bytes, where it is in the large-file storage."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is to be in a repository."""

    name: str
    """Its path there."""
    content: Path | bytes
    sha256: str | None = None
    """What its digest has to be, where that is known."""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def is_there(self, entry: HubEntry | None) -> bool:
        """Whether a file of a repository has these bytes."""
        if entry is None or entry.size != self.size:
            return False
        if entry.sha256 is None:
            data = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
            return entry.oid == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return entry.sha256 == (self.sha256 or self.digest())

    def digest(self) -> str:
        """The SHA-256 of its bytes, read now."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        with self.content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class HubRepository:
    """A branch of a dataset repository; HubError where the Hub refuses, or stays away."""

    def __init__(self, name: str, branch: str | None = None) -> None:
        self.name = name
        self.branch = branch or MAIN

    @cached
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)

    def log_in(self) -> str:
        """Whose token there is; HubError where there is none, or the Hub does not know it."""
        from huggingface_hub import get_token

        if not get_token():
            raise HubError(f"There is no token for the Hub. {LOG_IN}")
        return str(self._ask("look-up", self._api.whoami)["name"])

    def make(self, private: bool) -> bool:
        """Makes the repository and the branch where they are missing; whether it is private."""
        self._ask(
            "creation",
            lambda: self._api.create_repo(
                self.name, repo_type="dataset", private=private or None, exist_ok=True
            ),
        )
        if self.branch != MAIN:
            self._ask(
                "creation",
                lambda: self._api.create_branch(
                    self.name, branch=self.branch, repo_type="dataset", exist_ok=True
                ),
            )
        return bool(self._ask("look-up", self._info).private)

    def _info(self) -> Any:
        return self._api.repo_info(self.name, repo_type="dataset", revision=self.branch)

    def files(self) -> Mapping[str, HubEntry]:
        """All files of the branch, by path."""
        entries = self._ask(
            "listing",
            lambda: list(
                self._api.list_repo_tree(
                    self.name, recursive=True, repo_type="dataset", revision=self.branch
                )
            ),
        )
        return {
            one.path: HubEntry(one.size, one.blob_id, one.lfs.sha256 if one.lfs else None)
            for one in entries
            if hasattr(one, "blob_id")
        }

    def commit(self, uploads: Sequence[Upload], deletions: Iterable[str], message: str) -> str:
        """Uploads and deletes files in one commit; its id.

        StoreError where a file is not what its digest says.
        """
        deleted = list(deletions)
        return str(self._ask("upload", lambda: self._commit(uploads, deleted, message)).oid)

    def _commit(self, uploads: Sequence[Upload], deletions: Iterable[str], message: str) -> Any:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, utils

        web: Any = utils
        web.disable_progress_bars()
        added = []
        for one in uploads:
            content = one.content if isinstance(one.content, bytes) else str(one.content)
            added.append(CommitOperationAdd(one.name, content))
            if one.sha256 is not None and added[-1].upload_info.sha256.hex() != one.sha256:
                raise StoreError(f"{one.name} is not what was written: its sha256 differs.")
        return self._api.create_commit(
            self.name,
            [*added, *(CommitOperationDelete(name) for name in deletions)],
            commit_message=message,
            repo_type="dataset",
            revision=self.branch,
        )

    def _ask(self, what: str, call: Callable[[], Result]) -> Result:
        try:
            return retrying(call, what)
        except StoreError:
            raise
        except Exception as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> HubError:
        status = answered(error)[0]
        if status == 401 and type(error).__name__ != "RepositoryNotFoundError":
            return HubError(f"The Hub does not know the token. {LOG_IN}")
        if status == 403:
            owner = self.name.partition("/")[0]
            return HubError(
                f"The token may not write to {self.name}: it needs write access, and {owner} has to"
                f" be you or an organisation that you may write for. {LOG_IN}"
            )
        reason = plain(error, f"hf://datasets/{self.name}").strerror
        return HubError(f"{self.name} on the Hub: {reason}.")
