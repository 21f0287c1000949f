"""A store pushed to a Hub of this machine, stopped and gone on with, and read back from there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jobkit
import pytest
import torch
from harness.hub import HubServer, hub_server, point_at, variables
from harness.hub_routes import Blob, Repository
from torch.utils.data import DataLoader

from latentcli import LatentDataset, open_store
from latentcli.core.errors import HubError, IncompleteStore, StoreError, UsageError
from latentcli.jobs.store import push_files
from latentcli.jobs.store.config import PushJob, VerifyJob
from latentcli.jobs.store.inspect import inspect_store
from latentcli.jobs.store.push import run_push
from latentcli.jobs.store.push_files import is_secret
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.store.lock import StoreLock

URL = "hf://datasets/org/cats"
FILES = 12
"""Of a commit, so that a small store makes several."""
DRIVER = f"""
import sys
from latentcli.cli.app import main
from latentcli.jobs.store import push_files
push_files.COMMIT_FILES = {FILES}
sys.exit(main(sys.argv[1:]))
"""
PRIVATE = ("sources.json", "holder.json")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(push_files, "COMMIT_FILES", FILES)
    with hub_server() as server:
        point_at(server, monkeypatch, tmp_path / "hf", "hf_writer")
        yield server


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eight pictures, each with a caption."""
    folder = jobkit.toy_pictures(tmp_path_factory.mktemp("many") / "pictures", 8)
    for path in folder.rglob("*.jpg"):
        path.with_suffix(".txt").write_text(f"picture {path.stem}")
    return folder


@pytest.fixture
def store(tmp_path, pictures, model):
    """In units of one, so that they make more than one commit."""
    jobkit.encode(pictures, tmp_path / "store", model, samples_per_shard=1)
    return tmp_path / "store"


def push(store: Path, **options: object) -> dict:
    return run_push(PushJob(store=str(store), repo=options.pop("repo", "org/cats"), **options))


def pushed(store: Path) -> dict[str, bytes]:
    """What of a store is to be on the Hub."""
    files = (path for path in store.rglob("*") if path.is_file() and path.name not in PRIVATE)
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def puts(hub: HubServer) -> list[str]:
    return [request for request in hub.requests if request.startswith("PUT")]


def start(hub: HubServer, store: Path, cache: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **variables(hub, cache)}
    words = [sys.executable, "-c", DRIVER, "push", str(store), "org/cats", "--quiet"]
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE)


def kill_where(hub: HubServer, store: Path, cache: Path, request: str, let: int) -> None:
    """Pushes, and kills the process at a request that fits, the first ones let through."""
    hub.stop_at, hub.let = request, let
    hub.waiting.clear(), hub.go_on.clear()
    process = start(hub, store, cache)
    assert hub.waiting.wait(60), process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.stop_at = "$^"
    hub.go_on.set()


def test_what_was_pushed_comes_back(hub, store):
    document = push(store, private=True, message="All cats")
    repository = hub.repositories["org/cats"]
    assert repository.private and repository.files == pushed(store)
    assert document["commits"] == 2 and document["commit"] in repository.commits
    assert repository.messages[1:] == ["All cats (1 of 2)", "All cats (2 of 2)"]
    assert not any(b"/pictures" in data for data in repository.files.values())
    assert 'open_store("hf://datasets/org/cats")' in repository.files["README.md"].decode()
    there, local = open_store(URL), open_store(store)
    assert list(there) == list(local) and len(there) == 8
    for key in local:
        assert torch.equal(there[key], local[key])
        assert there.fields(key) == local.fields(key) == {"caption": f"picture {Path(key).name}"}
    assert inspect_store(URL)["encoded"] == 8 and inspect_store(URL)["sources"]["unknown"] == 8
    found = run_verify(VerifyJob(store=URL, samples=0))
    assert found["ok"] and found["sources"]["gone"] == 0
    with pytest.raises(UsageError, match="--repair cannot change a store on the Hub"):
        run_verify(VerifyJob(store=URL, samples=0, repair=True))


def test_a_second_push_sends_nothing(hub, store):
    push(store)
    asked = len(hub.requests)
    document = push(store)
    assert (document["commit"], document["uploaded"], document["bytes"]) == (None, 0, 0)
    more = hub.requests[asked:]
    assert not [r for r in more if r.startswith("PUT") or "/commit/" in r or "/preupload/" in r]
    assert len(more) <= 10


def test_a_killed_push_goes_on_where_it_was(hub, store, tmp_path):
    # In the middle of the first commit's uploads: nothing is visible yet.
    kill_where(hub, store, tmp_path / "hf", "^PUT ", 3)
    assert hub.repositories["org/cats"].files == {}
    first = set(hub.objects)
    assert first
    with pytest.raises(StoreError, match="it has no manifest"):
        open_store(URL)
    # Between the commits: a part is there, and is no store yet.
    kill_where(hub, store, tmp_path / "hf", "/commit/main$", 1)
    files = hub.repositories["org/cats"].files
    assert files and "manifest.json" not in files and len(files) < len(pushed(store))
    with pytest.raises(StoreError, match="it has no manifest"):
        open_store(URL)
    sent = puts(hub)
    assert len(sent) - len(set(sent)) <= 5  # those that the first kill cut
    push(store)
    assert hub.repositories["org/cats"].files == pushed(store)
    last = puts(hub)[len(sent) :]
    assert not set(last) & {f"PUT /lfs/{oid}" for oid in first}
    assert list(open_store(URL)) == list(open_store(store))


def test_a_store_that_grew_is_none_until_all_is_there(hub, store, pictures, tmp_path, model):
    push(store)
    old = LatentDataset(URL)
    more = tmp_path / "more"
    jobkit.toy_pictures(more, 8)
    bigger = tmp_path / "bigger"
    bigger.mkdir()
    (bigger / "a").symlink_to(pictures)
    (bigger / "b").symlink_to(more)
    grown = tmp_path / "grown"
    jobkit.encode(bigger, grown, model, samples_per_shard=1)
    kill_where(hub, grown, tmp_path / "hf", "/commit/main$", 1)
    with pytest.raises(StoreError, match="has no manifest"):
        LatentDataset(URL)
    # What was opened before stays at its own commit, also the shards that it had not read yet.
    local = open_store(store)
    assert all(torch.equal(item["latent"], local[item["key"]]) for item in old)
    document = push(grown)
    assert hub.repositories["org/cats"].files == pushed(grown) and document["uploaded"] > 0
    assert len(LatentDataset(URL)) == 16


def test_a_unit_that_is_gone_is_deleted(hub, store, pictures, tmp_path, model):
    push(store)
    found = hub.repositories["org/cats"]
    more = {"shards/000077.json": Blob(b"{}", False), "notes.txt": Blob(b"of a person", False)}
    found.commit("main", found.commits[found.branches["main"]] | more, "by hand")
    document = push(store)
    assert document["deleted"] == 1 and document["uploaded"] == 0
    assert hub.repositories["org/cats"].files == pushed(store) | {"notes.txt": b"of a person"}


def test_a_training_loop_asks_once_for_each_shard(hub, mixed_store, tmp_path):
    push(mixed_store)
    hub.requests.clear()
    dataset = LatentDataset(URL)
    opened = len(hub.requests)
    local = LatentDataset(mixed_store)
    shards = len(list((mixed_store / "shards").glob("*.safetensors")))
    for _ in range(2):
        for item, other in zip(dataset, local, strict=True):
            assert item["key"] == other["key"] and torch.equal(item["latent"], other["latent"])
    # A commit, two listings, the manifest and each record; then each shard, in two requests.
    assert opened <= 3 + 2 * (2 + shards) + 2
    assert len(hub.requests) - opened <= 2 * shards
    hub.requests.clear()
    again = LatentDataset(URL)
    assert [item["key"] for item in again] == local.keys and len(hub.requests) <= 3
    loader = DataLoader(again, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [item["key"] for item in loader] == local.keys


def test_another_branch_and_another_store(hub, mixed_store, raw_store):
    push(mixed_store)
    document = push(mixed_store, branch="half/x")
    assert document["open"] == f"{URL}@half%2Fx"
    assert len(open_store(document["open"])) == 23
    with pytest.raises(UsageError, match=r"made with another spec \(latents.state\)"):
        push(raw_store)
    document = push(raw_store, force=True)
    assert hub.repositories["org/cats"].files == pushed(raw_store)
    assert open_store(URL).state == "raw"


def test_only_whole_stores_are_pushed_unless_it_is_asked_for(hub, store):
    (store / "shards" / "000003.safetensors").unlink()
    with pytest.raises(IncompleteStore, match=r"is not complete .*--allow-partial"):
        push(store)
    assert "org/cats" not in hub.repositories
    document = push(store, allow_partial=True)
    assert document["commit"] is not None
    with pytest.raises(IncompleteStore):
        LatentDataset(URL)
    assert len(LatentDataset(URL, allow_partial=True)) == 7


def test_a_damaged_shard_is_not_pushed(hub, store):
    path = store / "shards" / "000003.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"000003.safetensors is not what was written.*--repair"):
        push(store)
    assert hub.repositories["org/cats"].files == {}


def test_a_job_at_work_is_not_disturbed(hub, store):
    with StoreLock(store), pytest.raises(StoreError):
        push(store)


def test_a_card_of_a_person_is_pushed_as_it_is(hub, store):
    (store / "README.md").write_text("# Mine\n")
    notes = push(store)["notes"]
    assert any("by hand" in note for note in notes)
    assert hub.repositories["org/cats"].files["README.md"] == b"# Mine\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("pipe:curl -H 'Authorization: Bearer x' https://h/x.tar", True),
        ("https://h/x.tar?X-Amz-Signature=1", True),
        ("https://me:word@h/x.tar", True),
        ("https://h/x.tar", False),
        ("s3://b/x.tar::a@b.jpg", False),
        ("cats/what?=.jpg", False),
        ("/home/me/x.jpg", False),
    ],
)
def test_sources_that_may_tell_a_secret(source, expected):
    assert is_secret(source) is expected


def test_secrets_are_refused(hub, store):
    record = store / "shards" / "000000.json"
    text = record.read_text()
    source = json.loads(text)["rows"][0]["source"]
    record.write_text(text.replace(source, "https://h/x.jpg?token=1"))
    with pytest.raises(
        UsageError, match=r"Some sources of the store \(1\) are shell commands or URLs"
    ):
        push(store)
    assert "org/cats" not in hub.repositories
    assert push(store, show_sources=True)["commit"]


def test_refusals_of_the_hub_are_told_in_plain_words(hub, mixed_store, monkeypatch):
    def told(**options: object) -> str:
        with pytest.raises(HubError) as caught:
            push(mixed_store, **options)
        return str(caught.value)

    assert "The token may not write to other/cats" in told(repo="other/cats")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not know the token" in told()
    monkeypatch.setenv("HF_TOKEN", "")
    assert "There is no token for the Hub" in told()
    with pytest.raises(StoreError, match="no such folder"):
        push(mixed_store.parent / "nowhere")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    hub.repositories["org/cats"] = Repository(private=False)
    assert "The token may not write to org/cats" in told()
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    with pytest.raises(UsageError, match="exists and is public"):
        push(mixed_store, private=True)
    for repo in ("cats", "a/b/c", "org/ca ts"):
        with pytest.raises(UsageError, match="is not a repository of the Hub"):
            push(mixed_store, repo=repo)
    with pytest.raises(UsageError, match="push takes a store in a folder"):
        push("s3://bucket/store")
    hub.close()
    assert re.search("failed 6 times .* could not be reached|cut", told())


def test_missing_repositories_and_revisions(hub, mixed_store):
    with pytest.raises(StoreError, match="no such repository"):
        open_store("hf://datasets/org/none")
    push(mixed_store)
    with pytest.raises(StoreError, match="no such branch"):
        LatentDataset(f"{URL}@none")
    with pytest.raises(StoreError, match=r"no such folder|no manifest"):
        open_store(f"{URL}/deeper")
    with pytest.raises(StoreError, match="no such repository"):
        inspect_store("hf://datasets/org/none")


@pytest.mark.parametrize("check", ["none", "open"])
def test_tars_and_single_shards_are_read_too(hub, pictures, tmp_path, model, check):
    store = tmp_path / "tars"
    jobkit.encode(pictures, store, model, shard_format="webdataset")
    push(store)
    there, local = LatentDataset(URL, check=check), LatentDataset(store)
    for item, other in zip(there, local, strict=True):
        assert torch.equal(item["latent"], other["latent"])
        assert item["caption"] == other["caption"] != ""
    shard = open_store(f"{URL}/shards/000000.tar")
    assert list(shard) == local.keys[:4]
    assert torch.equal(shard[local.keys[0]], local[0]["latent"])


def test_a_cached_shard_that_was_damaged_is_found(hub, mixed_store):
    push(mixed_store)
    key = next(iter(open_store(mixed_store)))
    open_store(URL)[key]
    (blob,) = {p.resolve() for p in Path(os.environ["HF_HOME"]).rglob("000000.safetensors")}
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(StoreError, match=r"000000.safetensors is not what.*Delete it"):
        open_store(URL, check="open")[key]
