"""A store's path or URL in, what is in it out; and an S3 server of this machine to have some in."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Seen(Protocol):
    """A store as the kill test looks at it: from outside, with no code of ours."""

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


@contextmanager
def server(bucket: str) -> Iterator[str]:
    """Runs moto's S3 server in this process, and points the environment to it; a bucket's URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    before = {name: os.environ.get(name) for name in (*KEYS, "AWS_ENDPOINT_URL")}
    os.environ.update(KEYS, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    try:
        client_of(os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=bucket)
        yield f"s3://{bucket}"
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        running.stop()
