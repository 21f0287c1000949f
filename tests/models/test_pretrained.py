"""Where weights are found: every place, their order, and what is said when they are nowhere.

The cache is huggingface_hub's own layout on disk; the Hub is a small local server that speaks the
part of its protocol that a download needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from latentcli.core.errors import UsageError, WeightsError
from latentcli.models import pretrained
from latentcli.models.presets import Preset, load_preset
from latentcli.models.pretrained import Checkpoint, at_path, locate, weights_status

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
TOY = Checkpoint("toy", repo="org/name", bundled="toy", needs_config=False)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights but those that a test puts somewhere, and no network."""
    monkeypatch.delenv("LATENTCLI_WEIGHTS", raising=False)
    monkeypatch.setattr(pretrained, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def put(folder: Path, *, file: str = "model.safetensors", config: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(b"weights of " + str(folder).encode())
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / file


def put_in_cache(
    cache: Path, commit: str = COMMIT, ref: str | None = "main", **files: bytes
) -> Path:
    """A cached repository as huggingface_hub keeps it: blobs, snapshots of links, refs."""
    repo = cache / "models--org--name"
    snapshot = repo / "snapshots" / commit
    for folder in (repo / "blobs", repo / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in (files or {"model.safetensors": commit.encode()}).items():
        blob = repo / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    if ref:
        (repo / "refs" / ref).write_text(commit)
    return snapshot / "model.safetensors"


def test_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = put(tmp_path / "flag")
    env = put(tmp_path / "env" / "toy")
    env_repo = put(tmp_path / "env" / "org" / "name")
    bundled = put(tmp_path / "bundled" / "toy")
    cached = put_in_cache(tmp_path / "hub")
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "env"))

    found = locate(TOY, weights=flag.parent)
    assert (found.weights_path, found.origin) == (flag, "flag")
    for path, origin in ((env, "env"), (env_repo, "env"), (bundled, "bundled"), (cached, "cached")):
        found = locate(TOY)
        assert (found.weights_path, found.origin) == (path, origin)
        path.unlink()
        if origin != "cached":
            path.parent.rmdir()
    with pytest.raises(WeightsError, match="were not found"):
        locate(TOY)


def test_an_environment_folder_without_weights_is_an_error_not_a_reason_to_look_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env" / "toy").mkdir(parents=True)
    put_in_cache(tmp_path / "hub")
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "env"))
    with pytest.raises(WeightsError, match=r"has no model\.safetensors and no other weights file"):
        locate(TOY)


def test_a_folder_may_hold_one_file_under_another_name(tmp_path: Path) -> None:
    path = put(tmp_path, file="ema.safetensors", config={"a": 1})
    found = at_path(tmp_path)
    assert (found.weights_path, found.config, found.origin) == (path, {"a": 1}, "folder")
    put(tmp_path, file="raw.safetensors")
    with pytest.raises(WeightsError, match=r"is meant: ema\.safetensors, raw\.safetensors\. Name"):
        at_path(tmp_path)
    diffusers = put(tmp_path, file="diffusion_pytorch_model.safetensors")
    assert at_path(tmp_path).weights_path == diffusers
    assert at_path(put(tmp_path)).weights_path.name == "model.safetensors"


def test_a_folder_may_hold_what_torch_saved(tmp_path: Path) -> None:
    for file in ("diffusion_pytorch_model.bin", "vae.ckpt", "tae192_v7.pth"):
        path = put(tmp_path / file, file=file)
        assert at_path(path.parent).weights_path == at_path(path).weights_path == path
    put(path.parent, file="tae192_v8.pth")
    with pytest.raises(WeightsError, match=r"is meant: tae192_v7\.pth, tae192_v8\.pth\. Name"):
        at_path(path.parent)


def test_of_many_pairs_of_halves_the_presets_own_counts(tmp_path: Path) -> None:
    for name in ("taesd", "taesdxl", "taesd3"):
        for half in ("encoder", "decoder"):
            put(tmp_path, file=f"{name}_{half}.pth")
    for name in ("taesd", "taesd3"):
        found = locate(Checkpoint(name, file="absent", needs_config=False), weights=tmp_path)
        names = [path.name for path in (found.weights_path, *found.also)]
        assert names == [f"{name}_encoder.pth", f"{name}_decoder.pth"]
    with pytest.raises(WeightsError, match="taesd3_decoder"):
        locate(Checkpoint("taef1", file="absent", needs_config=False), weights=tmp_path)


def test_a_config_counts_beside_a_published_name_only(tmp_path: Path) -> None:
    put(tmp_path, config={"a": 1})
    stranger = put(tmp_path, file="other.safetensors")
    assert at_path(tmp_path / "model.safetensors").config == {"a": 1}
    assert at_path(stranger).config is None


def test_a_path_that_cannot_be_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no such file or folder"):
        at_path(tmp_path / "absent.safetensors")
    (tmp_path / "weights.gguf").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"must end in \.safetensors, \.pth, \.pt, \.bin, "):
        at_path(tmp_path / "weights.gguf")


@pytest.mark.parametrize(("text", "told"), [("{", "cannot be read as JSON"), ("[1]", "holds list")])
def test_a_damaged_config_is_named(tmp_path: Path, text: str, told: str) -> None:
    put(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=told):
        at_path(tmp_path)


def test_the_cache_gives_exactly_the_revision(tmp_path: Path) -> None:
    cache = tmp_path / "elsewhere"
    main = put_in_cache(cache)
    tagged = put_in_cache(cache, commit=OTHER, ref="v2")
    for revision, path, commit in (
        (None, main, COMMIT),
        ("v2", tagged, OTHER),
        (OTHER, tagged, OTHER),
    ):
        found = locate(TOY, revision=revision, cache_dir=str(cache))
        assert (found.weights_path, found.revision, found.repo) == (path, commit, "org/name")
    with pytest.raises(WeightsError, match="revision v3"):
        locate(TOY, revision="v3", cache_dir=str(cache))


def test_a_revision_is_not_looked_for_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "env" / "toy")
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "env"))
    assert locate(TOY).origin == "env"
    with pytest.raises(WeightsError, match="revision main"):
        locate(TOY, revision="main")
    with pytest.raises(UsageError, match="a weights path has no revisions"):
        locate(TOY, weights=tmp_path / "env" / "toy", revision="main")
    with pytest.raises(UsageError, match="bundled, has no revisions"):
        locate(Checkpoint("nano", bundled="nano"), revision="main")


def test_a_hub_id_without_a_preset_needs_the_config_too(tmp_path: Path) -> None:
    wanted = Checkpoint("org/name", repo="org/name")
    put_in_cache(tmp_path / "hub")
    with pytest.raises(WeightsError, match=r"no config\.json and model\.safetensors or diff"):
        locate(wanted)
    put_in_cache(tmp_path / "hub", commit=COMMIT, **{"config.json": b'{"a": 1}'})
    assert locate(wanted).config == {"a": 1}


def test_the_offline_message_names_every_place_and_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "env"))
    with pytest.raises(WeightsError) as caught:
        locate(TOY)
    message = str(caught.value)
    for part in (
        "The weights of toy were not found (model.safetensors of org/name, revision main)",
        f"LATENTCLI_WEIGHTS: no folder {tmp_path / 'env' / 'toy'}",
        f"LATENTCLI_WEIGHTS: no folder {tmp_path / 'env' / 'org' / 'name'}",
        f"the package: no {tmp_path / 'bundled' / 'toy' / 'model.safetensors'}",
        f"the Hugging Face cache: no model.safetensors of revision main in {tmp_path / 'hub'}",
        "offline mode is on (HF_HUB_OFFLINE)",
        "1. --weights PATH",
        "2. LATENTCLI_WEIGHTS=FOLDER, with the files FOLDER/toy/model.safetensors",
        "3. on a machine with network, `hf download org/name config.json model.safetensors`",
        "HF_HOME",
    ):
        assert part in message


def test_the_message_ends_with_what_works_without_a_download() -> None:
    with pytest.raises(WeightsError) as caught:
        locate(Checkpoint.of_preset(load_preset("full_capacitor")))
    last = str(caught.value).splitlines()[-1]
    assert last == "To try latentcli without a download: --model fcdm_nano is bundled."
    assert "gated" not in str(caught.value)


def test_the_message_for_a_gated_repository_says_to_log_in() -> None:
    with pytest.raises(WeightsError, match=r"`hf auth login` \(it is gated\), then `hf download"):
        locate(Checkpoint.of_preset(load_preset("flux2")))


def test_weights_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = load_preset("full_capacitor")
    assert weights_status(preset) == "missing"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert weights_status(preset) == "hub"
    (tmp_path / "env" / "full_capacitor").mkdir(parents=True)
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "env"))
    assert weights_status(preset) == "missing", "locate would refuse this folder"
    put(tmp_path / "env" / "full_capacitor")
    assert weights_status(preset) == "cached"


def test_weights_status_of_cached_and_bundled(tmp_path: Path) -> None:
    fields = {"family": "fcdm", "summary": "", "licence": "", "card": "", "config": {}}
    geometry = {"channels": 8, "downscale": 16, "size_divisor": 16, "space": "toy"}
    toy = Preset("toy", **fields, **geometry, repo="org/name")
    assert weights_status(toy) == "missing"
    put_in_cache(tmp_path / "hub")
    assert weights_status(toy) == "cached"
    nano = Preset("nano", **fields, **geometry, bundled="nano")
    assert weights_status(nano) == "missing"
    put(tmp_path / "bundled" / "nano")
    assert weights_status(nano) == "bundled"


class Hub:
    """The resolve addresses of a Hub, for one repository, on a local port."""

    def __init__(self, files: dict[str, bytes]) -> None:
        hub = self
        self.files = files
        self.files_asked: list[str] = []
        self.asked: list[tuple[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        self.asked.append((request.command, request.path))
        if "/resolve/" in request.path:
            self.files_asked.append(request.path)
        status, error, content = self.look_up(request.path)
        request.send_response(status)
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Content-Length", str(len(content)))
        if error:
            request.send_header("X-Error-Code", error)
        else:
            request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.end_headers()
        if body:
            request.wfile.write(content)

    def look_up(self, path: str) -> tuple[int, str, bytes]:
        org, name, address, revision, file = (path.lstrip("/").split("/", 4) + [""] * 5)[:5]
        if address != "resolve":
            return 404, "", b""
        if f"{org}/{name}" == "org/gated":
            return 403, "GatedRepo", b""
        if f"{org}/{name}" == "org/broken":
            return 503, "", b""
        if f"{org}/{name}" != "org/name":
            return 404, "RepoNotFound", b""
        if revision not in ("main", COMMIT):
            return 404, "RevisionNotFound", b""
        if file not in self.files:
            return 404, "EntryNotFound", b""
        return 200, "", self.files[file]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub({"config.json": b'{"a": 1}', "model.safetensors": b"w" * 1000, "model.py": b"boom"})
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


LOCATE = """
import dataclasses, json, sys
from latentcli.core.errors import WeightsError
from latentcli.models.pretrained import Checkpoint, locate
answers = []
for repo, revision, file in json.loads(sys.argv[1]):
    try:
        found = locate(Checkpoint(repo, repo=repo, file=file), revision=revision)
        answers.append(dataclasses.asdict(found) | {"weights_path": str(found.weights_path)})
    except WeightsError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def locate_elsewhere(
    home: Path, endpoint: str, *asked: tuple[str, str | None, str], **env: str
) -> list[Any]:
    """`locate` in a new process: huggingface_hub reads its environment when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "LATENTCLI"))}
    done = subprocess.run(
        [sys.executable, "-c", LOCATE, json.dumps(asked)],
        env={**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def test_the_hub_gives_two_files_once(hub: Hub, tmp_path: Path) -> None:
    asked = ("org/name", None, "model.safetensors")
    (found,) = locate_elsewhere(tmp_path, hub.url, asked)
    assert (found["origin"], found["revision"], found["config"]) == ("hub", COMMIT, {"a": 1})
    assert Path(found["weights_path"]).read_bytes() == hub.files["model.safetensors"]
    assert Path(found["weights_path"]).is_relative_to(tmp_path)
    assert {line.rsplit("/", 1)[1] for line in hub.files_asked} == set(hub.files) - {"model.py"}

    before = len(hub.files_asked)
    (again,) = locate_elsewhere(tmp_path, hub.url, asked)
    (offline,) = locate_elsewhere(tmp_path, hub.url, asked, HF_HUB_OFFLINE="1")
    assert again == offline == {**found, "origin": "cached"}
    cache = str(tmp_path / "hub")
    (moved,) = locate_elsewhere(tmp_path / "empty", hub.url, asked, HF_HUB_CACHE=cache)
    assert moved == again
    assert len(hub.files_asked) == before, "what is cached is not asked for again"


def test_the_hub_gives_diffusers_file_name(hub: Hub, tmp_path: Path) -> None:
    name = "diffusion_pytorch_model.safetensors"
    hub.files[name] = hub.files.pop("model.safetensors")
    asked = ("org/name", None, "model.safetensors")
    (found,) = locate_elsewhere(tmp_path, hub.url, asked)
    (offline,) = locate_elsewhere(tmp_path, hub.url, asked, HF_HUB_OFFLINE="1")
    assert Path(found["weights_path"]).name == name
    assert (found["config"], offline) == ({"a": 1}, {**found, "origin": "cached"})
    del hub.files[name]
    (message,) = locate_elsewhere(tmp_path / "other", hub.url, asked)
    assert f"no file {name} at revision main" in message
    assert f"config.json model.safetensors` (or {name}, if it has that)" in message


def test_the_hub_gives_the_revision(hub: Hub, tmp_path: Path) -> None:
    (found,) = locate_elsewhere(tmp_path, hub.url, ("org/name", COMMIT, "model.safetensors"))
    assert (found["origin"], found["revision"]) == ("hub", COMMIT)
    assert all(f"/resolve/{COMMIT}/" in line for line in hub.files_asked)


def test_why_the_hub_did_not_give(hub: Hub, tmp_path: Path) -> None:
    cases = {
        ("org/gated", None, "model.safetensors"): "gated; accept its terms",
        ("org/none", None, "model.safetensors"): "no such repository, or a private one",
        ("org/name", "v9", "model.safetensors"): "no revision v9",
        ("org/name", None, "ema.safetensors"): "no file ema.safetensors at revision main",
        ("org/broken", None, "model.safetensors"): "it answered HTTP 503",
    }
    for message, told in zip(
        locate_elsewhere(tmp_path, hub.url, *cases), cases.values(), strict=True
    ):
        assert told in message
        assert "--weights PATH" in message
        assert "Traceback" not in message
    assert max(Counter(hub.asked).values()) == 1, "a failing Hub is asked once, without retries"


def test_a_hub_that_hangs_up_is_asked_no_more(tmp_path: Path) -> None:
    callers = []

    class HangsUp(BaseRequestHandler):
        def handle(self) -> None:
            callers.append(self.client_address)

    with ThreadingTCPServer(("127.0.0.1", 0), HangsUp) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        (message,) = locate_elsewhere(tmp_path, address, ("org/name", None, "m.safetensors"))
        server.shutdown()
    assert "not reached" in message
    assert 1 <= len(callers) <= 3  # one for the file, and what the library asks for itself


def test_no_network_is_one_message(tmp_path: Path) -> None:
    (message,) = locate_elsewhere(
        tmp_path, "http://127.0.0.1:9", ("org/name", None, "m.safetensors")
    )
    assert "the Hub, http://127.0.0.1:9/org/name: not reached (ConnectError:" in message
    assert "HF_HOME" in message
