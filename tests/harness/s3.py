"""Runs a real S3 server on this machine, and a proxy before it that breaks what it is told to."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import pytest

MISSING = [name for name in ("moto", "s3fs", "flask") if find_spec(name) is None]
needs_s3 = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

_KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Sets environment variables, and puts them back at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def reached(endpoint: str) -> Iterator[None]:
    """Points the environment to a server.

    fsspec keeps its filesystems by their options, which the environment is not part of: one that
    a test opened by `fsspec.open` would go on asking a server that is gone.
    """
    from s3fs import S3FileSystem

    with environment(AWS_ENDPOINT_URL=endpoint, **_KEYS):
        S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            S3FileSystem.clear_instance_cache()


@dataclass
class S3Server:
    """A server that runs; the environment points to it."""

    endpoint: str

    def bucket(self) -> str:
        """The URL of a new, empty bucket."""
        name = f"b{uuid.uuid4().hex[:12]}"
        assert self._ask("PUT", f"/{name}") == 200
        return f"s3://{name}"

    def uploads(self, bucket: str) -> bytes:
        """What the server says of multipart uploads that were begun and not ended."""
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"))
        connection.request("GET", f"/{bucket.removeprefix('s3://')}?uploads")
        return connection.getresponse().read()

    def _ask(self, method: str, path: str) -> int:
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"))
        connection.request(method, path)
        return connection.getresponse().status

    @contextlib.contextmanager
    def proxy(self) -> Iterator[FaultProxy]:
        """A proxy before this server, to which the environment points within the block."""
        proxy = FaultProxy(self.endpoint.removeprefix("http://"))
        try:
            with reached(proxy.endpoint):
                yield proxy
        finally:
            proxy.close()


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Runs a server in this process, on a free port; other processes can reach it too."""
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}")
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        with reached(endpoint):
            yield S3Server(endpoint)
    finally:
        server.stop()


@dataclass
class Fault:
    """What to do to the next requests of a method whose path holds a text.

    `kind` is an HTTP status as text ("500", "503"), "cut" (the answer breaks off in its middle),
    "cut_upload" (the connection breaks while the body comes) or "stall" (there is no answer).
    """

    kind: str
    times: float
    method: str = ""
    text: str = ""


@dataclass
class FaultProxy:
    """An HTTP proxy that hands requests on to `target` (host:port), but for its faults."""

    target: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Method and path of all requests that came."""
    broken: int = 0
    """Number of requests that got a fault."""

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def fail(self, kind: str, times: float = 1, method: str = "", text: str = "") -> None:
        """Breaks the next `times` fitting requests (infinity: all of them)."""
        with self.lock:
            self.faults.append(Fault(kind, times, method, text))

    def heal(self) -> None:
        """No more faults."""
        with self.lock:
            self.faults.clear()

    def close(self) -> None:
        """Ends the server and those who wait for an answer."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fault_for(self, method: str, path: str) -> str | None:
        """The fault that a request gets, which is used up by it."""
        with self.lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if fault.times > 0 and fault.method in ("", method) and fault.text in path:
                    fault.times -= 1
                    self.broken += 1
                    return fault.kind
        return None


_BODY = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    "<Error><Code>{code}</Code><Message>Try again.</Message></Error>"
)
_CODES = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied", "400": "InvalidRequest"}


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            fault = proxy.fault_for(self.command, self.path)
            if fault == "cut_upload":
                self.rfile.read(min(1000, int(self.headers.get("Content-Length", 0)) // 2))
                return self.reset()
            body = self.body()
            if fault == "stall":
                proxy.closing.wait(60)
                return self.reset()
            if fault is not None and fault.isdigit():
                error = _BODY.format(code=_CODES.get(fault, "Unknown")).encode()
                return self.answer(int(fault), [("Content-Type", "application/xml")], error)
            status, headers, answer = self.ask(body)
            return self.answer(status, headers, answer, cut=fault == "cut")

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            skip = ("transfer-encoding", "content-length", "connection", "expect")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in skip}
            connection = http.client.HTTPConnection(proxy.target, timeout=60)
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            data = response.read()
            connection.close()
            kept = ("transfer-encoding", "connection", "server", "date")
            found = [(k, v) for k, v in response.getheaders() if k.lower() not in kept]
            if self.command != "HEAD":
                found = [(k, v) for k, v in found if k.lower() != "content-length"]
            return response.status, found, data

        def answer(
            self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return None
            self.wfile.write(body[: len(body) // 2] if cut else body)
            return self.reset() if cut else None

        def reset(self) -> None:
            self.wfile.flush()
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
