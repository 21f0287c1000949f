"""Looks at a store from outside, in a folder or in a bucket, with no code of ours."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Seen(Protocol):
    """A store as it is seen from outside."""

    pause: float
    """Seconds between two looks."""

    def begun(self) -> bool:
        """Whether it has a manifest."""

    def records(self) -> int:
        """How many units are committed."""

    def contents(self) -> dict[str, bytes | None]:
        """Every name with its bytes (None for a folder)."""

    def clear(self) -> None:
        """Deletes it."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A store on this machine."""

    path: Path
    pause: float = 0.001

    def begun(self) -> bool:
        return (self.path / "manifest.json").exists()

    def records(self) -> int:
        return len(list((self.path / "shards").glob("*.json")))

    def contents(self) -> dict[str, bytes | None]:
        return tree(self.path)

    def clear(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A store on a server; boto3 is asked, of which the job knows nothing."""

    url: str
    pause: float = 0.02

    def begun(self) -> bool:
        return "manifest.json" in self._names()

    def records(self) -> int:
        return sum(n.startswith("shards/") and n.endswith(".json") for n in self._names())

    def contents(self) -> dict[str, bytes | None]:
        client, (bucket, prefix) = self._client(), self._where()
        bodies = {
            name: client.get_object(Bucket=bucket, Key=prefix + name)["Body"]
            for name in self._names()
        }
        return {name: body.read() for name, body in bodies.items()}

    def clear(self) -> None:
        client, (bucket, prefix) = self._client(), self._where()
        for name in self._names():
            client.delete_object(Bucket=bucket, Key=prefix + name)

    def put(self, folder: Path) -> None:
        """Uploads the files of a folder."""
        client, (bucket, prefix) = self._client(), self._where()
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = prefix + str(path.relative_to(folder))
            client.put_object(Bucket=bucket, Key=name, Body=path.read_bytes())

    def unfinished(self) -> int:
        """Uploads in parts that were begun in the bucket and never ended."""
        found = self._client().list_multipart_uploads(Bucket=self._where()[0])
        return len(found.get("Uploads", []))

    def _where(self) -> tuple[str, str]:
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        return bucket, f"{prefix}/"

    def _names(self) -> list[str]:
        bucket, prefix = self._where()
        pages = self._client().get_paginator("list_objects_v2")
        found = [
            entry["Key"].removeprefix(prefix)
            for page in pages.paginate(Bucket=bucket, Prefix=prefix)
            for entry in page.get("Contents", ())
        ]
        return sorted(found)

    def _client(self) -> Any:
        return client_of(os.environ["AWS_ENDPOINT_URL"])


_CLIENTS: dict[str, Any] = {}


def client_of(endpoint: str) -> Any:
    """A boto3 client, made once."""
    import boto3

    if endpoint not in _CLIENTS:
        _CLIENTS[endpoint] = boto3.client("s3", endpoint_url=endpoint)
    return _CLIENTS[endpoint]


def look(store: Path | str) -> Seen:
    """What sees a store."""
    return Bucket(store) if isinstance(store, str) else Folder(store)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder with its bytes (None for a folder), hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
