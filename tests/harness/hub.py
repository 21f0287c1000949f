"""Runs a server that stands for the Hugging Face Hub; its answers are those of hub_routes.py."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from harness.hub_routes import ROUTES, TOKENS, Answer, Repository, Request, refusal


@dataclass
class HubServer:
    """A Hub of this machine; `endpoint` is what HF_ENDPOINT has to be."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """The large-file storage."""
    requests: list[str] = field(default_factory=list)
    """Method and path of all requests."""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes that were answered, by path."""
    stop_at: str = "$^"
    """Requests that fit wait for `go_on`, and are dropped then; `waiting` says that one does."""
    let: int = 0
    """Of those, so many are let through first."""

    def __post_init__(self) -> None:
        self.lock, self.is_closed = threading.Lock(), False
        self.waiting, self.go_on = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.is_closed = True
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, pattern: str = "") -> int:
        """How many requests fit a regular expression."""
        return sum(re.search(pattern, request) is not None for request in self.requests)

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        split = urlsplit(target)
        path, query = split.path, {k: v[0] for k, v in parse_qs(split.query).items()}
        token = (headers.get("Authorization") or "").removeprefix("Bearer ")
        for wanted, pattern, call in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method in wanted:
                if token and token not in TOKENS:
                    return refusal(401, "", "Invalid credentials in Authorization header")
                parts = [unquote(part or "") for part in found.groups()]
                request = Request(self, token, query, headers, body, method == "HEAD", target)
                return call(request, *parts)
        return refusal(404, "", f"no such route {method} {path}")


@contextlib.contextmanager
def hub_server() -> Iterator[HubServer]:
    """Runs a Hub on a free port of this machine."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


def point_at(server: HubServer, monkeypatch: Any, cache: object, token: str | None) -> None:
    """Makes this process take the server for the Hub, with a cache of its own."""
    from huggingface_hub import constants

    for name, value in variables(server, cache, token).items():
        monkeypatch.setenv(name, value)
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{cache}/hub")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", f"{cache}/token")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def variables(server: HubServer, cache: object, token: str | None = "hf_writer") -> dict[str, str]:
    """The environment of a process that takes the server for the Hub, with a cache of its own."""
    found = {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
        "LATENTCLI_RETRY_SECONDS": "0.2",
    }
    return found | ({} if token is None else {"HF_TOKEN": token})


def _handler(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            if server.is_closed:  # a connection that was kept open
                self.close_connection = True
                return
            body = self._body()
            request = f"{self.command} {self.path}"
            with server.lock:
                server.requests.append(request)
                stops = re.search(server.stop_at, request) is not None
                if stops and server.let:
                    server.let, stops = server.let - 1, False
            if stops:
                server.waiting.set()
                server.go_on.wait(60)
                self.close_connection = True
                return
            answer = server.answer(self.command, self.path, self.headers, body)
            with server.lock:
                server.sent[self.path] += len(answer.body) if self.command != "HEAD" else 0
            with contextlib.suppress(ConnectionError):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = handle_any

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
