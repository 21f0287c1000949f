"""Answers the requests of the Hugging Face Hub's API that pushing and reading a store make.

Repositories are held in memory: each has its commits, which are whole trees, and the newest one of
each branch. Objects of the large-file storage are there as soon as they were uploaded, as on the
Hub, whatever becomes of the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

PAGE = 15
"""Entries of a listing's page, so that small stores have several."""
TOKENS = {"hf_writer": ("org", "someone"), "hf_reader": ()}
"""The owners that each token may write for."""
LARGE = re.compile(r"\.(safetensors|tar|png|bin)$")


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    data: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass
class Repository:
    """A repository: its commits by id, and the newest one of each branch."""

    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit("main", {}, "initial commit")

    def commit(self, branch: str, tree: dict[str, Blob], message: str) -> str:
        number = f"{len(self.commits)} {branch} {message} {sorted(tree)}"
        sha = hashlib.sha1(number.encode()).hexdigest()
        self.commits[sha] = tree
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def sha(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the main branch."""
        return {path: blob.data for path, blob in self.commits[self.branches["main"]].items()}


@dataclass
class Answer:
    """What a request is answered."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def said(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(
        status, json.dumps(value).encode(), {"Content-Type": "application/json"} | headers
    )


def refusal(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, json.dumps({"error": message}).encode(), headers)


@dataclass
class Request:
    """One request, for the functions of ROUTES."""

    server: Any
    """The HubServer."""
    token: str
    query: dict[str, str]
    headers: Any
    body: bytes
    head: bool
    target: str

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def repository(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        return found if found is not None and (self.token or not found.private) else None

    def may_write(self, name: str) -> bool:
        return name.partition("/")[0] in TOKENS.get(self.token, ())


NO_REPO = refusal(404, "RepoNotFound", "Repository not found")
NO_REVISION = refusal(404, "RevisionNotFound", "Invalid rev id")
NO_ENTRY = refusal(404, "EntryNotFound", "Entry not found")
FORBIDDEN = refusal(403, "", "You don't have the rights to do that")


def whoami(request: Request) -> Answer:
    if not request.token:
        return refusal(401, "", "Invalid credentials in Authorization header")
    return said({"name": "someone", "type": "user", "orgs": [], "auth": {"type": "access_token"}})


def create(request: Request) -> Answer:
    ask = request.json
    name = f"{ask['organization']}/{ask['name']}"
    if not request.may_write(name):
        return FORBIDDEN
    url = f"{request.server.endpoint}/datasets/{name}"
    if name in request.server.repositories:
        return said({"error": "You already created this dataset repo", "url": url}, 409)
    private = ask.get("private") or ask.get("visibility") == "private"
    request.server.repositories[name] = Repository(bool(private))
    return said({"url": url, "name": name})


def info(request: Request, name: str, revision: str = "main") -> Answer:
    found = request.repository(name)
    if found is None:
        return NO_REPO
    sha = found.sha(revision)
    if sha is None:
        return NO_REVISION
    siblings = [{"rfilename": path} for path in found.commits[sha]]
    return said({"id": name, "sha": sha, "private": found.private, "siblings": siblings})


def described(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.oid}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 130}
    return entry


def tree(request: Request, name: str, revision: str, folder: str = "") -> Answer:
    found = request.repository(name)
    if found is None:
        return NO_REPO
    sha = found.sha(revision)
    if sha is None:
        return NO_REVISION
    files, entries = found.commits[sha], {}
    prefix = f"{folder}/" if folder else ""
    for path, blob in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts)):
            inner = prefix + "/".join(parts[:depth])
            entries[inner] = {"type": "directory", "path": inner, "size": 0, "oid": "0" * 40}
        entries[path] = described(path, blob)
    if request.query.get("recursive", "").lower() not in ("true", "1"):
        entries = {p: e for p, e in entries.items() if "/" not in p[len(prefix) :]}
    if not entries and folder:
        return NO_ENTRY
    start = int(request.query.get("cursor", 0))
    page, rest = list(entries.values())[start : start + PAGE], len(entries) - start - PAGE
    if rest <= 0:
        return said(page)
    target = re.sub(r"[?&]cursor=\d+", "", request.target)
    mark = "&" if "?" in target else "?"
    link = f'<{request.server.endpoint}{target}{mark}cursor={start + PAGE}>; rel="next"'
    return said(page, Link=link)


def paths_info(request: Request, name: str, revision: str) -> Answer:
    found = request.repository(name)
    if found is None:
        return NO_REPO
    sha = found.sha(revision)
    if sha is None:
        return NO_REVISION
    form = parse_qs(request.body.decode()) if not request.body.startswith(b"{") else request.json
    files, answer = found.commits[sha], []
    for path in form["paths"]:
        if path in files:
            answer.append(described(path, files[path]))
        elif any(other.startswith(f"{path}/") for other in files):
            answer.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
    return said(answer)


def branch(request: Request, name: str, revision: str) -> Answer:
    found = request.repository(name)
    if found is None:
        return NO_REPO
    if not request.may_write(name):
        return FORBIDDEN
    if revision in found.branches:
        return refusal(409, "", f"Reference already exists: {revision}")
    found.branches[revision] = found.branches["main"]
    return said({})


def preupload(request: Request, name: str, revision: str) -> Answer:
    found = request.repository(name)
    if found is None:
        return NO_REPO
    if not request.may_write(name):
        return FORBIDDEN
    sha = found.sha(revision)
    if sha is None:
        return NO_REVISION
    files = []
    for one in request.json["files"]:
        mode = "lfs" if LARGE.search(one["path"]) else "regular"
        blob = found.commits[sha].get(one["path"])
        oid = {"oid": blob.etag} if blob is not None else {}
        files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False} | oid)
    return said({"files": files})


def batch(request: Request, name: str) -> Answer:
    if request.repository(name) is None:
        return NO_REPO
    if not request.may_write(name):
        return FORBIDDEN
    objects = []
    for one in request.json["objects"]:
        oid = one["oid"]
        item: dict[str, Any] = {"oid": oid, "size": one["size"]}
        if oid not in request.server.objects:
            item["actions"] = {"upload": {"href": f"{request.server.endpoint}/lfs/{oid}"}}
        objects.append(item)
    return said({"transfer": "basic", "objects": objects})


def upload(request: Request, oid: str) -> Answer:
    if hashlib.sha256(request.body).hexdigest() != oid:
        return refusal(400, "", "the digest differs")
    request.server.objects[oid] = request.body
    return Answer()


def commit(request: Request, name: str, revision: str) -> Answer:
    found = request.repository(name)
    if found is None:
        return NO_REPO
    if not request.may_write(name):
        return FORBIDDEN
    sha, message = found.sha(revision), ""
    if sha is None:
        return NO_REVISION
    files = dict(found.commits[sha])
    for line in map(json.loads, request.body.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            message = value["summary"]
        elif line["key"] == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
        elif line["key"] == "lfsFile":
            files[value["path"]] = Blob(request.server.objects[value["oid"]], True)
        elif line["key"] == "deletedFile" and files.pop(value["path"], None) is None:
            return refusal(404, "EntryNotFound", "A file with this name doesn't exist")
    new = found.commit(revision, files, message)
    url = f"{request.server.endpoint}/datasets/{name}/commit/{new}"
    return said({"success": True, "commitOid": new, "commitUrl": url})


def resolve(request: Request, name: str, revision: str, path: str) -> Answer:
    found = request.repository(name)
    if found is None:
        return NO_REPO
    sha = found.sha(revision)
    if sha is None:
        return NO_REVISION
    blob = found.commits[sha].get(path)
    if blob is None:
        return NO_ENTRY
    headers = {"X-Repo-Commit": sha, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
    if blob.lfs:
        headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
        # Another host, as that of the Hub's large files is.
        other = request.server.endpoint.replace("127.0.0.1", "localhost")
        headers["Location"] = f"{other}/cdn/{blob.sha256}"
        return Answer(302, b"", headers)
    return part(request, blob.data, headers)


def cdn(request: Request, oid: str) -> Answer:
    return part(request, request.server.objects[oid], {"ETag": f'"{oid}"'})


def part(request: Request, data: bytes, headers: dict[str, str]) -> Answer:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if not asked:
        return Answer(200, data, headers)
    begin, end = int(asked[1]), int(asked[2] or len(data) - 1)
    if begin >= len(data):
        return Answer(416, b"", headers)
    end = min(end, len(data) - 1)
    span = {"Content-Range": f"bytes {begin}-{end}/{len(data)}"}
    return Answer(206, data[begin : end + 1], headers | span)


def valid(request: Request) -> Answer:
    return said({"errors": [], "warnings": []})


_NAME = "([^/]+/[^/]+)"
ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", valid),
    ("GET", f"/api/datasets/{_NAME}", info),
    ("GET", f"/api/datasets/{_NAME}/revision/([^/]+)", info),
    ("GET", f"/api/datasets/{_NAME}/tree/([^/]+)(?:/(.*))?", tree),
    ("POST", f"/api/datasets/{_NAME}/paths-info/([^/]+)", paths_info),
    ("POST", f"/api/datasets/{_NAME}/branch/([^/]+)", branch),
    ("POST", f"/api/datasets/{_NAME}/preupload/([^/]+)", preupload),
    ("POST", f"/datasets/{_NAME}.git/info/lfs/objects/batch", batch),
    ("PUT", "/lfs/([0-9a-f]{64})", upload),
    ("POST", f"/api/datasets/{_NAME}/commit/([^/]+)", commit),
    ("GET HEAD", f"/datasets/{_NAME}/resolve/([^/]+)/(.+)", resolve),
    ("GET HEAD", "/cdn/([0-9a-f]{64})", cdn),
)
